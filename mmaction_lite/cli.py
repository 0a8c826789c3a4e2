"""The command line: every command is one function elsewhere, told here what the user typed."""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console
from rich.progress import track as rich_track
from rich.table import Table

from mmaction_lite.errors import Interrupted, UserError, VideoError

T = TypeVar("T")
# What typer raises for a wrong option or argument; it has no public name for it.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="Video action recognition: train, test, predict, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Make and check data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")
benchmark_app = typer.Typer(help="Measure speed.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(benchmark_app, name="benchmark")

Data = Annotated[Path, typer.Option("--data", help="Class folders, or list files; see the README.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None, typer.Option("--workers", min=0, help="Decoding processes [default: one per core].")
]
HangSeconds = Annotated[
    float, typer.Option(min=1, help="A video that takes longer than this to read is not opened again.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the runs; a demo's own earlier one is replaced.")
    ] = Path("runs/demo"),
    data: Data = Path("data/motions"),
    seed: Annotated[int, typer.Option(min=0, help="Of the two trainings.")] = 0,
) -> None:
    """Generate videos, train TSN and TSM on them, test, predict, report."""
    from mmaction_lite.demo import run_demo

    run_demo(out, data, seed, _console())


@app.command("list")
def list_(
    what: Annotated[Literal["recipes", "models"], typer.Argument(help="What to list.")] = "recipes",
    as_json: Json = False,
) -> None:
    """List the recipes with their published results, or the models with their size and cost."""
    if what == "models":
        return _list_models(as_json)
    from mmaction_lite.recipes import list_recipes

    recipes = list_recipes()
    if as_json:
        rows = [
            {
                "name": name,
                "model": repr(recipe.model),
                "epochs": recipe.epochs,
                "batch_size": recipe.batch_size,
                "test": str(recipe.test),
                "reported": vars(recipe.reported) if recipe.reported else None,
            }
            for name, recipe in recipes.items()
        ]
        return _print_json({"recipes": rows})
    table = Table("recipe", "epochs", "batch", "reported top-1 / top-5", "source", box=None)
    for name, recipe in recipes.items():
        reported = recipe.reported
        shown = [f"{x:.2f}" for x in (reported.top1, reported.top5) if x is not None] if reported else []
        numbers = (" / ".join(shown), reported.source if reported else "")
        table.add_row(name, str(recipe.epochs), str(recipe.batch_size), *numbers)
    Console(width=max(140, Console().width)).print(table)


def _list_models(as_json: bool) -> None:
    from mmaction_lite.complexity import list_models

    if as_json:
        return _print_json({"models": [vars(row) for row in list_models()]})
    table = Table("model", "input (T, H, W)", "parameters", "multiply-adds of one view", box=None)
    for row in list_models():
        shape = "x".join(map(str, row.input_shape[2:]))
        table.add_row(row.builder, shape, f"{row.parameters / 1e6:.3f} M", f"{row.multiply_adds / 1e9:.2f} G")
    Console().print(table)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A name from `mmaction-lite list`, or my.py:my_recipe.")],
    data: Data,
    out: Annotated[
        Path, typer.Option(help="Run folder; new or empty, or an interrupted run's with --resume.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Change a field, as in optimizer.lr=0.01; repeatable."
        ),
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Train as suits few clips of your own, from --init-from.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the run in --out stopped.")] = False,
    init_from: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Train a recipe and leave a run folder."""
    from mmaction_lite.data.cache import Caches
    from mmaction_lite.metrics import TITLES
    from mmaction_lite.recipes import get_recipe
    from mmaction_lite.recipes.finetune import finetune as adapt
    from mmaction_lite.recipes.recipe import change
    from mmaction_lite.train import read_training, train

    chosen = get_recipe(recipe)
    if finetune:
        if init_from is None and not resume:
            raise UserError("--finetune starts from trained weights; pass them as --init-from")
        chosen = adapt(chosen, len(read_training(data)))
    done = train(
        change(chosen, settings or []),
        data,
        out,
        resume=resume,
        init_from=init_from,
        device=device,
        num_workers=workers,
        hang_seconds=hang_seconds,
        seed=seed,
        caches=Caches(track=_track),
        console=_console(),
    )
    best = f"best val {TITLES[done.metric]} {done.best_score:.1%} at step {done.best_step}"
    print(f"{done.step} steps done; {best}: {out}")


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="Checkpoint of another project.")],
    recipe: Annotated[str, typer.Option(help="Recipe with the network that the weights are for.")],
    out: Annotated[Path, typer.Option(help="New .safetensors file.")],
    classes: Annotated[Path | None, typer.Option(help="Text file with one class name a line.")] = None,
) -> None:
    """Turn weights of MMAction2, PySlowFast, PyTorchVideo, MIT's TSM or torchvision into ours."""
    from mmaction_lite.convert import convert_file
    from mmaction_lite.data.annotations import read_classes
    from mmaction_lite.recipes import get_recipe

    print(convert_file(file, get_recipe(recipe), out, read_classes(classes) if classes else None))


@app.command("test")
def measure(
    weights: Annotated[Path, typer.Argument(help="Weights file or run folder.")],
    data: Data,
    recipe: Annotated[
        str | None, typer.Option(help="For weights of a model of your own, my.py:my_recipe.")
    ] = None,
    protocol: Annotated[Literal["val", "test"], typer.Option(help="Which views are averaged.")] = "test",
    dump: Annotated[
        Path | None, typer.Option(help="Write the scores of every video to this .npz file.")
    ] = None,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    as_json: Json = False,
) -> None:
    """Measure weights on the test split (val where a data set has no other)."""
    from mmaction_lite.data.annotations import read_split
    from mmaction_lite.device import default_workers
    from mmaction_lite.distributed import join
    from mmaction_lite.evaluate import evaluate
    from mmaction_lite.metrics import describe
    from mmaction_lite.recipes import get_recipe
    from mmaction_lite.recipes.weights import card_of, load

    if dump is not None and (dump.suffix != ".npz" or not os.access(dump.parent, os.W_OK)):
        raise UserError(
            f"--dump {dump}: expected a file name ending in .npz in a folder that can be written to"
        )
    model = load(weights, get_recipe(recipe) if recipe else None)
    card = card_of(model)
    samples = read_split(data, protocol, card.classes)
    with join(device) as team:
        result = evaluate(
            model.to(team.device),
            samples,
            card.val if protocol == "val" else card.test,
            card.normalize,
            activation=card.activation,
            num_workers=default_workers(team.local_number) if workers is None else workers,
            hang_seconds=hang_seconds,
            track=_track if team.is_first else None,
            team=team,
        )
    if dump is not None and team.is_first:
        result.save(dump)
    numbers = result.metrics | {"videos": len(samples), "unreadable": len(result.faults)}
    if as_json:
        faults = [fault._asdict() for fault in result.faults]
        return _print_json(
            {**numbers, "faults": faults, "protocol": result.protocol, "weights": str(weights)}
        )
    for fault in result.faults:
        _warn(f"counted as wrong: {fault.reason}")
    print(describe(result.metrics, len(card.classes), digits=2))
    print(result.protocol)


@app.command()
def predict(
    weights: Annotated[Path, typer.Argument(help="Weights file or run folder.")],
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of JPEG frames.")],
    recipe: Annotated[
        str | None, typer.Option(help="For weights of a model of your own, my.py:my_recipe.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to show per video.")] = 5,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Say what is seen in videos."""
    from mmaction_lite.device import pick_device
    from mmaction_lite.recipes import get_recipe
    from mmaction_lite.recipes.weights import load
    from mmaction_lite.recognize import predictions

    model = load(weights, get_recipe(recipe) if recipe else None).to(pick_device(device))
    rows: list[dict[str, Any]] = []
    for video in videos:
        try:
            result = next(predictions(model, [video]))
        except VideoError as error:  # the other videos still get their answer
            rows.append({"video": str(video), "error": str(error)})
            _warn(str(error))
            continue
        labels = [
            {"label": label, "score": float(s)} for label, s in zip(result.labels, result.scores, strict=True)
        ]
        rows.append({"video": str(video), "predictions": labels, "protocol": result.protocol})
        if not as_json:
            best = ", ".join(f"{row['label']} {row['score']:.3f}" for row in labels[:top])
            print(f"{video}: {best}")
    if as_json:
        _print_json({"videos": rows})
    if any("error" in row for row in rows):
        raise typer.Exit(2)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file [default: report.html in the first run].")
    ] = None,
) -> None:
    """Write one self-contained HTML page about runs: curves, confusions, classes, worst clips."""
    from mmaction_lite.report import write_report

    print(write_report(runs, out))


@data_app.command()
def generate(
    out: Annotated[Path, typer.Argument(help="Folder; an interrupted generation goes on.")],
    frames: Annotated[bool, typer.Option("--frames", help="JPEG frames instead of H.264 files.")] = False,
    scenes: Annotated[
        int, typer.Option(min=0, help="Instead: so many clips as costly to decode as those of Kinetics.")
    ] = 0,
    keyframe_every: Annotated[
        int | None, typer.Option(min=1, help="Of --scenes: frames between keyframes [default: x264's, 250].")
    ] = None,
) -> None:
    """Write the data set `motions`: ten actions that only the order of the frames tells apart."""
    from mmaction_lite.demo import generate_motions

    if scenes:
        generate_scenes_like_kinetics(out, scenes, keyframe_every)
        print(f"{out}: train and val, nothing to learn and everything to decode")
        return
    generate_motions(out, "frames" if frames else "video", _console())
    print(f"{out}: train, val and test as class folders and as list files")


def generate_scenes_like_kinetics(out: Path, clips: int, keyframe_every: int | None) -> None:
    """With a progress bar."""
    from mmaction_lite.data.scenes import generate_scenes
    from mmaction_lite.device import default_workers

    for _ in _track(generate_scenes(out, clips, keyframe_every, default_workers()), clips, "writing clips"):
        pass


@data_app.command()
def validate(
    data: Annotated[Path, typer.Argument(help="A data set as --data takes it.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for lists of what is sound and what is not; an interrupted check goes on."),
    ] = None,
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    as_json: Json = False,
) -> None:
    """Open every video of every split, decode first, middle and last frame, and list what is wrong."""
    from mmaction_lite.data.check import describe, validate
    from mmaction_lite.device import default_workers

    workers = default_workers() if workers is None else workers
    report = validate(data, _track, out, workers, hang_seconds)
    if as_json:
        _print_json(vars(report))
    else:
        for name, facts in report.splits.items():
            print(f"{name}: {describe(facts)}")
        for line in [*(f"note: {note}" for note in report.notes), *report.faults]:
            _warn(line)
        if out is not None:
            print(f"{out}: lists of the sound clips, a data set for --data")
    if report.faults:
        raise typer.Exit(1)


@data_app.command()
def prepare(
    data: Annotated[Path, typer.Argument(help="A data set as --data takes it.")],
    out: Annotated[Path, typer.Argument(help="Folder of the new one; an interrupted preparation goes on.")],
    short_side: Annotated[int, typer.Option(min=1, help="Larger videos are reduced to it.")] = 256,
    keyframe_every: Annotated[int, typer.Option(min=1, help="Frames between keyframes.")] = 10,
    crf: Annotated[int, typer.Option(min=0, max=51, help="x264's quality; smaller is better.")] = 20,
    frames: Annotated[bool, typer.Option("--frames", help="JPEG frames instead of H.264 files.")] = False,
    shard: Annotated[int, typer.Option(min=0, help="Pack so many clips into each tar file; 0: none.")] = 0,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="ray: on the cluster of RAY_ADDRESS, or a local one.")
    ] = "local",
    workers: Workers = None,
    hang_seconds: HangSeconds = 1200.0,
) -> None:
    """Write a data set that reads faster: smaller frames, closer keyframes, or JPEG frames."""
    from mmaction_lite.data.prepare import Form, prepare
    from mmaction_lite.device import default_workers

    form = Form(
        kind="frames" if frames else "video",
        short_side=short_side,
        keyframe_every=keyframe_every,
        crf=crf,
        shard=shard,
    )
    workers = default_workers() if workers is None else workers
    faults = prepare(data, out, form, _track, workers, hang_seconds, engine)
    for fault in faults:
        _warn(f"left out: {fault}")
    print(f"{out}: a data set for --data, {len(faults)} videos left out")


@data_app.command()
def index(
    shards: Annotated[
        list[Path], typer.Argument(help="Tar files with clips; an index is written beside each.")
    ],
    out: Annotated[Path, typer.Option(help="New .csv table of their clips, such as my_data/train.csv.")],
    url: Annotated[
        str | None, typer.Option(help="Where the tar files will be, if not here: https://…, s3://…")
    ] = None,
) -> None:
    """Index tar files of clips, so that they are read in any order, from here or from a server."""
    from mmaction_lite.data.annotations import VIDEO_SUFFIXES, write_rows
    from mmaction_lite.data.shards import index_shards

    if url is not None:
        at = {str(shard): f"{url.rstrip('/')}/{shard.name}" for shard in shards}
    else:
        at = {str(shard): str(shard.absolute()) for shard in shards}
    rows = [(f"{at[tar]}/{member}", label) for tar, member, label in index_shards(shards, VIDEO_SUFFIXES)]
    write_rows(out, rows)
    print(f"{out}: {len(rows)} clips in {len(shards)} tar files")


@data_app.command()
def browse(
    data: Data,
    recipe: Annotated[str, typer.Option(help="Whose views to draw.")],
    out: Annotated[Path, typer.Option(help="New .png file.")] = Path("clips.png"),
    clips: Annotated[int, typer.Option(min=1, help="Training clips to show.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Write a contact sheet of training clips, augmented, as the network sees them."""
    from mmaction_lite.data.annotations import read_split
    from mmaction_lite.data.browse import browse
    from mmaction_lite.recipes import get_recipe

    count = browse(read_split(data, "train"), get_recipe(recipe).train, out, clips, seed)
    print(f"{out}: {count} views")


@benchmark_app.command("loader")
def benchmark_loader(
    recipe: Annotated[
        str, typer.Option(help="Whose training views to draw.")
    ] = "tsn_r50_1x1x3_100e_kinetics400_rgb",
    data: Annotated[
        Path | None, typer.Option(help="Your data [default: generated clips like those of Kinetics].")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips to time.")] = 32,
    device: Device = "auto",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Time opening, decoding, cropping, augmenting, collating and copying of clips, and what limits them."""
    from mmaction_lite.benchmark import measure_loader
    from mmaction_lite.data.annotations import read_split
    from mmaction_lite.device import default_workers, pick_device
    from mmaction_lite.recipes import get_recipe

    if data is None:
        data = Path("data/scenes")
        generate_scenes_like_kinetics(data, 16, None)
    report = measure_loader(
        read_split(data, "train"),
        get_recipe(recipe),
        pick_device(device),
        clips,
        default_workers() if workers is None else workers,
        _track,
    )
    if as_json:
        return _print_json(vars(report))
    print(f"{report.data}, {report.recipe}: {report.clips} clips, {report.unreadable} unreadable")
    table = Table("stage", "CPU ms per clip (median)", box=None)
    rows = [*report.stages.items(), ("whole path, file to pixels", report.whole)]
    rows += [(f"open and decode: {name}", value) for name, value in report.peers.items()]
    for name, value in rows:
        table.add_row(name, f"{value:.2f}")
    Console().print(table)
    print(f"the whole path takes {report.whole_to_decode:.2f} of opening and decoding alone, clip by clip")
    print(
        f"{report.clips_per_second:.1f} clips/s from {report.workers} decoding processes; "
        f"limited by: {report.limited_by}"
    )


def main() -> None:
    """Run a command; a user's mistake is one line on standard error and exit code 2."""
    # Threads that wait for each other's share of a small layer should sleep, not spin: on a busy machine a
    # training step of the demo's network takes a quarter of the processor time. Read when PyTorch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if os.environ.get("RANK", "0") != "0":  # of several processes the first one speaks
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    try:
        sys.exit(app(standalone_mode=False))
    except UsageError as error:
        message = error.format_message()
        _warn(message if "\n" in message else f"error: {message} (see mmaction-lite --help)")
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except Interrupted as error:
        _warn(str(error))
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        _warn(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        _warn(f"error: {error.filename}: {error.strerror}")
        sys.exit(2)


def _console() -> Console:
    return Console(stderr=True)


def _track(items: Iterable[T], total: int, title: str) -> Iterable[T]:
    return rich_track(items, title, total, console=_console(), transient=True)


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, ensure_ascii=False))

"""Command-line interface. Each command parses its options and calls one library function."""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from mmaction_lite import __version__
from mmaction_lite.cli import benchmark, data, weights
from mmaction_lite.cli.mistakes import check_arguments, describe_usage_error, is_help, system_exit_code
from mmaction_lite.cli.options import (
    Amp,
    Compile,
    Data,
    Device,
    HangSeconds,
    Json,
    Offline,
    Weights,
    Workers,
    console,
    prepare_streams,
    print_json,
    show,
    start,
    track,
    warn,
)
from mmaction_lite.errors import Interrupted, MissingSplitError, UserError, VideoError
from mmaction_lite.files import write_atomically
from mmaction_lite.training.signals import exit_signals

if TYPE_CHECKING:
    from mmaction_lite.inference.scores import Evaluation

# Base class of typer's exceptions for wrong options and arguments, which has no public name.
ClickException: Any = typer.BadParameter.__mro__[2]

MOST_CONFUSED_PAIRS = 10_000  # in the JSON object of `test`

app = typer.Typer(
    help="Video action recognition: train, test, predict, report.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data.app, name="data")
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(weights.app, name="weights")


def _print_version(is_given: bool) -> None:
    if is_given:
        print(f"mmaction-lite {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Video action recognition: train, test, predict, report."""


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option(help="Output folder; the results of an earlier demo in it are replaced.")
    ] = Path("runs/demo"),
    data: Data = Path("data/motions"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of both trainings.")] = 0,
) -> None:
    """Generate videos, train and test TSN and TSM on them, predict a clip and write a report."""
    from mmaction_lite.demo import run_demo

    start("auto")
    run_demo(out, data, seed, console())


@app.command("list")
def list_(
    what: Annotated[Literal["recipes", "models"], typer.Argument(help="What to list.")] = "recipes",
    as_json: Json = False,
) -> None:
    """List recipes with their published results, or models with their parameters and multiply-adds."""
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
                "test": str(recipe.test_protocol),
                "reported": vars(recipe.reported) if recipe.reported else None,
            }
            for name, recipe in recipes.items()
        ]
        return print_json({"recipes": rows})
    table = Table("recipe", "epochs", "batch", "reported top-1 / top-5", "source", box=None)
    for name, recipe in recipes.items():
        reported = recipe.reported
        shown = [f"{x:.2f}" for x in (reported.top1, reported.top5) if x is not None] if reported else []
        numbers = (" / ".join(shown), reported.source if reported else "")
        table.add_row(name, str(recipe.epochs), str(recipe.batch_size), *numbers)
    Console(width=max(140, Console().width)).print(table)


def _list_models(as_json: bool) -> None:
    from mmaction_lite.models.complexity import list_models

    if as_json:
        return print_json({"models": [vars(row) for row in list_models()]})
    table = Table("model", "input (T, H, W)", "parameters", "multiply-adds of one view", box=None)
    for row in list_models():
        shape = "x".join(map(str, row.input_shape[2:]))
        table.add_row(row.builder, shape, f"{row.parameters / 1e6:.3f} M", f"{row.multiply_adds / 1e9:.2f} G")
    Console().print(table)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Name from `mmaction-lite list`, or my.py:my_recipe.")],
    data: Data,
    out: Annotated[
        Path, typer.Option(help="Run folder: new or empty, or that of an interrupted run with --resume.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Change a field of the recipe, as in optimizer.lr=0.01; repeatable.",
        ),
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Adapt the recipe to a small dataset; needs --init-from.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out from its last checkpoint.")
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="Initial weights: a weights file, checkpoint, run folder, address, name from "
            "`mmaction-lite weights list`, or imagenet or kinetics400 for those that fit the recipe."
        ),
    ] = None,
    offline: Offline = False,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard", help="Divide weights and optimizer state over the processes of torchrun (FSDP2)."
        ),
    ] = False,
    wandb: Annotated[str | None, typer.Option(help="Weights & Biases project to log to.")] = None,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
) -> None:
    """Train a recipe and write a run folder."""
    from mmaction_lite.data.loading.cache import Caches
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.recipes import get_recipe
    from mmaction_lite.recipes.finetune import finetune as adapt
    from mmaction_lite.recipes.overrides import apply_overrides
    from mmaction_lite.tasks.metrics import TITLES
    from mmaction_lite.training.clips import read_training_split
    from mmaction_lite.training.loop import train

    chosen = get_recipe(recipe)
    if finetune:
        if init_from is None and not resume:
            raise UserError("--finetune starts from trained weights; pass them as --init-from")
        chosen = adapt(chosen, len(read_training_split(data)))
    chosen = apply_overrides(chosen, settings or [])
    shapes = chosen.multigrid.num_shapes if chosen.compile and chosen.multigrid else 0
    start(device, shapes)
    done = train(
        chosen,
        data,
        out,
        resume=resume,
        init_from=init_from,
        device=device,
        workers=WorkerSettings(num_workers=workers, hang_seconds=hang_seconds),
        stop_on_signals=True,
        shard=shard,
        wandb=wandb,
        seed=seed,
        caches=Caches(track=track),
        console=console(),
    )
    best = f"best val {TITLES[done.metric]} {done.best_score:.1%} at step {done.best_step}"
    show(f"{done.step} {'step' if done.step == 1 else 'steps'} done; {best}: {out}")


@app.command()
def convert(
    file: Annotated[
        str,
        typer.Argument(
            help="Checkpoint file of another project, its address, or a name from "
            "`mmaction-lite weights list`."
        ),
    ],
    out: Annotated[Path, typer.Option(help="New .safetensors file to write.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe with the model and the test protocol of the weights; a name of public weights "
            "needs none."
        ),
    ] = None,
    classes: Annotated[Path | None, typer.Option(help="Text file with one class name per line.")] = None,
    keep_protocol: Annotated[
        bool,
        typer.Option(
            "--keep-protocol",
            help="Store normalization and sampling of the recipe, not those of the weights.",
        ),
    ] = False,
    offline: Offline = False,
) -> None:
    """Convert weights of MMAction2, PySlowFast, PyTorchVideo, MIT TSM or torchvision to a weights file."""
    from mmaction_lite.data.annotations.classes import read_classes
    from mmaction_lite.recipes import get_recipe
    from mmaction_lite.weights.conversion import convert_file
    from mmaction_lite.weights.named import locate_checkpoint, recipe_for

    chosen = get_recipe(recipe) if recipe else None
    names = read_classes(classes) if classes else None
    path, entry = locate_checkpoint(file)
    if chosen is None and entry is None:
        raise UserError(f"{file}: --recipe is missing; expected the recipe of the network of the weights")
    if entry is not None:
        names = names or entry.classes
        chosen = chosen or recipe_for(entry)
    assert chosen is not None
    # The protocols of public weights are in the catalogue.
    show(str(convert_file(path, chosen, out, names, keep_protocol=keep_protocol or entry is not None)))


@app.command("test")
def test(
    weights: Weights,
    data: Data,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of a model of your own, as my.py:my_recipe.")
    ] = None,
    protocol: Annotated[
        Literal["val", "test"],
        typer.Option(help="Protocol and split: those of validation or those of the test."),
    ] = "test",
    dump: Annotated[
        Path | None, typer.Option(help="Write the scores of all videos to this .npz file.")
    ] = None,
    per_class: Annotated[
        Path | None, typer.Option(help="Write the results of every class to this .csv file.")
    ] = None,
    amp: Amp = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Quantize the model to 8 bits, on a CPU; takes about a quarter of the time."
        ),
    ] = False,
    compile: Compile = None,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Test weights on the test split, or on the val split if the data set has no test split."""
    from mmaction_lite.data.annotations.splits import read_split
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.distributed import init_distributed
    from mmaction_lite.inference.evaluate import evaluate
    from mmaction_lite.inference.scores import check_scores_out
    from mmaction_lite.recipes import get_recipe
    from mmaction_lite.tasks.class_table import check_table_out, to_csv
    from mmaction_lite.weights.card import card_of, load

    if dump is not None:
        check_scores_out(dump)
    if per_class is not None:
        check_table_out(per_class)
    settings = WorkerSettings(num_workers=workers, hang_seconds=hang_seconds)
    model = load(weights, get_recipe(recipe) if recipe else None)
    card = card_of(model)
    samples = read_split(data, protocol, card.classes)
    for note in samples.notes:
        warn(f"note: {note}")
    try:
        calibration = read_split(data, "train", card.classes) if int8 else None
    except MissingSplitError:
        calibration = samples
    device = "cpu" if int8 and device == "auto" else device
    start(device)
    with init_distributed(device) as context:
        result = evaluate(
            model.to(context.device),
            samples,
            card.val if protocol == "val" else card.test,
            task=card.task,
            precision=amp or "float32",
            compile=compile,
            calibration=calibration,
            workers=replace(settings, num_workers=settings.count(context.local_world_size)),
            track=track if context.is_main_process else None,
            context=context,
        )
    if dump is not None and context.is_main_process:
        result.save(dump)
    if per_class is not None and context.is_main_process:
        table = to_csv(result.per_class())
        check_table_out(per_class)
        write_atomically(per_class, lambda file: file.write(table))
    if context.is_main_process:
        _print_test(result, weights, as_json)


def _print_test(result: "Evaluation", weights: str | Path, as_json: bool) -> None:
    """Print the results of `test`."""
    from mmaction_lite.report.run_folder import validation_source

    source = validation_source(Path(weights))
    is_chosen_here = source is not None and Path(source).absolute() == Path(result.source).absolute()
    if is_chosen_here:
        warn(
            f"note: the videos of {result.source} chose these weights in training, so the accuracy is "
            "optimistic; measure it on videos that the training did not use"
        )
    if as_json:
        return print_json(
            {
                **result.metrics,
                "videos": len(result.labels),
                "unreadable": len(result.faults),
                "intervals": result.intervals(),
                "per_class": result.per_class(),
                "confusion": result.confused_pairs(MOST_CONFUSED_PAIRS),
                "chose_weights": is_chosen_here,
                "faults": [fault._asdict() for fault in result.faults],
                "protocol": result.protocol_line,
                "weights": str(weights),
            }
        )
    for fault in result.faults:
        warn(f"unreadable, scored as incorrect: {fault.reason}")
    show(result.describe(digits=2, has_intervals=True))
    show(result.protocol_line)


@app.command()
def predict(
    weights: Weights,
    videos: Annotated[
        list[Path],
        typer.Argument(help="Video files, folders of frames or of clips, or patterns such as 'x/*.mp4'."),
    ],
    recipe: Annotated[
        str | None, typer.Option(help="Recipe of a model of your own, as my.py:my_recipe.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Number of classes to print per video [default: 5; with --json: all]."),
    ] = None,
    device: Device = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Predict the classes of videos."""
    from mmaction_lite.data.tools.find import find_clips
    from mmaction_lite.inference.predict import load_for_inference, predictions
    from mmaction_lite.recipes import get_recipe

    model = load_for_inference(weights, get_recipe(recipe) if recipe else None).to(start(device))
    videos = find_clips(videos)
    rows: list[dict[str, Any]] = []
    for video in videos:
        try:
            result = next(predictions(model, [video]))
        except VideoError as error:  # continue with the other videos
            rows.append({"video": str(video), "error": str(error)})
            warn(str(error))
            continue
        labels = [
            {"label": label, "score": float(s)} for label, s in zip(result.labels, result.scores, strict=True)
        ]
        rows.append({"video": str(video), "predictions": labels[:top], "protocol": str(result.protocol)})
        if not as_json:
            best = ", ".join(f"{row['label']} {row['score']:.3f}" for row in labels[: top or 5])
            show(f"{video}: {best}")
    protocols = {row["protocol"] for row in rows if "protocol" in row}
    if protocols and not as_json:
        show(" ".join(protocols))
    if as_json:
        print_json({"videos": rows})
    if any("error" in row for row in rows):
        raise typer.Exit(2)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write [default: report.html in the first run folder].")
    ] = None,
) -> None:
    """Write an HTML page about runs: learning curves, confusion matrix, classes and worst clips."""
    from mmaction_lite.report.page import write_report

    show(str(write_report(runs, out)))


def main() -> None:
    """Run a command. A user error prints one line on standard error and exits with code 2."""
    # OpenMP threads that wait for each other in small layers sleep instead of spinning. On a busy machine a
    # training step of the demo then takes a quarter of the processor time. PyTorch reads the variable when it
    # is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if os.environ.get("RANK", "0") != "0":  # only rank 0 prints results
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    prepare_streams()
    # The other commands leave nothing to clean up, and the usual effect also ends a process that hangs.
    is_cleaned_up = sys.argv[1:2] and sys.argv[1] in ("train", "demo", "data", "benchmark")
    try:
        check_arguments(sys.argv[1:])
        with exit_signals() if is_cleaned_up else nullcontext():
            code = app(standalone_mode=False, prog_name="mmaction-lite")
        sys.stdout.flush()
    except ClickException as error:
        if is_help(error):
            print(error.format_message(), file=sys.stderr)
        else:
            warn(describe_usage_error(error, sys.argv[1:]))
        code = 2
    except typer.Abort:
        code = 130
    except Interrupted as error:
        if os.environ.get("RANK", "0") == "0":
            warn(str(error))
        code = 130
    except KeyboardInterrupt:
        code = 130
    except UserError as error:
        warn(f"error: {error}")
        code = 2
    except (OSError, MemoryError, RuntimeError) as error:
        code = system_exit_code(error)
    sys.exit(code)

"""`mmaction-lite data`: generate, check and convert datasets."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmaction_lite.cli.options import Data, HangSeconds, Json, Workers, console, print_json, show, track, warn
from mmaction_lite.errors import UserError

app = typer.Typer(help="Generate, check and convert datasets.", no_args_is_help=True, rich_markup_mode=None)
Frames = Annotated[bool, typer.Option("--frames", help="Write JPEG frames instead of H.264 files.")]


@app.command()
def generate(
    out: Annotated[Path, typer.Argument(help="Output folder; an interrupted generation continues.")],
    frames: Frames = False,
    long: Annotated[
        bool, typer.Option("--long", help="Write long videos instead, with tables of their actions.")
    ] = False,
    scenes: Annotated[
        int, typer.Option(min=0, help="Write this many clips with the decoding cost of Kinetics instead.")
    ] = 0,
    keyframe_every: Annotated[
        int | None,
        typer.Option(min=1, help="Frames between keyframes of --scenes [default: 250, as in x264]."),
    ] = None,
) -> None:
    """Generate the dataset `motions`: ten actions that differ in the order of the frames only."""
    from mmaction_lite.demo import generate_long_motions, generate_motions

    if long and (frames or scenes or keyframe_every):
        raise UserError("--long writes long H.264 videos; omit --frames, --scenes and --keyframe-every")
    if long:
        generate_long_motions(out, console())
        show(f"{out}: train, val and test as long videos with tables of their actions, for data windows")
        return

    if scenes:
        generate_scenes_like_kinetics(out, scenes, keyframe_every)
        show(f"{out}: train and val, for measurements of decoding")
        return
    generate_motions(out, "frames" if frames else "video", console())
    show(f"{out}: train, val and test as class folders and as list files")


def generate_scenes_like_kinetics(out: Path, clips: int, keyframe_every: int | None) -> None:
    """Generate clips with the decoding cost of Kinetics, with a progress bar."""
    from mmaction_lite.data.generated.scenes import generate_scenes
    from mmaction_lite.device import default_workers

    for _ in track(generate_scenes(out, clips, keyframe_every, default_workers()), clips, "writing clips"):
        pass


@app.command()
def validate(
    data: Annotated[Path, typer.Argument(help="Dataset, as for --data.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for lists of readable and unreadable videos; an interrupted check continues."
        ),
    ] = None,
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    as_json: Json = False,
) -> None:
    """Check a dataset: decode the first, middle and last frame of every video, and list all problems."""
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.data.tools.validate import describe, validate

    report = validate(data, track, out, WorkerSettings(num_workers=workers, hang_seconds=hang_seconds))
    if as_json:
        print_json(vars(report))
    else:
        for name, facts in report.splits.items():
            show(f"{name}: {describe(facts)}")
        for line in [*(f"note: {note}" for note in report.notes), *report.faults]:
            warn(line)
        if out is not None:
            show(f"{out}: lists of the readable clips, a dataset for --data")
    if report.faults:
        raise typer.Exit(1)


@app.command()
def prepare(
    data: Annotated[Path, typer.Argument(help="Dataset, as for --data.")],
    out: Annotated[Path, typer.Argument(help="Output folder; an interrupted conversion continues.")],
    short_side: Annotated[
        int, typer.Option(min=1, help="Reduce larger videos to this short side, in pixels.")
    ] = 256,
    keyframe_every: Annotated[int, typer.Option(min=1, help="Frames between keyframes.")] = 10,
    crf: Annotated[int, typer.Option(min=0, max=51, help="Quality of x264; smaller is better.")] = 20,
    frames: Frames = False,
    shard: Annotated[
        int, typer.Option(min=0, help="Pack this many clips into each tar file; 0: no tar files.")
    ] = 0,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="local: worker processes; ray: the cluster of RAY_ADDRESS, or a local one."),
    ] = "local",
    workers: Workers = None,
    hang_seconds: HangSeconds = 1200.0,
) -> None:
    """Convert a dataset so that it decodes faster: smaller frames, closer keyframes, or JPEG frames."""
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.data.tools.prepare import Form, prepare

    form = Form(
        kind="frames" if frames else "video",
        short_side=short_side,
        keyframe_every=keyframe_every,
        crf=crf,
        shard=shard,
    )
    settings = WorkerSettings(num_workers=workers, hang_seconds=hang_seconds)
    faults = prepare(data, out, form, track, workers=settings, engine=engine)
    for fault in faults:
        warn(f"unreadable, omitted: {fault}")
    show(f"{out}: a dataset for --data, {len(faults)} unreadable videos omitted")


@app.command()
def windows(
    data: Annotated[
        Path, typer.Argument(help="Dataset of actions in long videos, with start_seconds and end_seconds.")
    ],
    out: Annotated[Path, typer.Argument(help="Output folder for the lists of windows.")],
    window: Annotated[float, typer.Option(min=0.01, help="Length of a window in seconds.")] = 2.5,
    stride: Annotated[float, typer.Option(min=0.01, help="Distance between windows in seconds.")] = 1.0,
    margin: Annotated[
        float,
        typer.Option(
            min=0, help="Leave out windows whose center is this close to a start or end, in seconds."
        ),
    ] = 0.1,
    background: Annotated[
        str, typer.Option(help="Class of windows without an action at their center.")
    ] = "background",
    background_share: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of background windows in all windows.")
    ] = 1 / 3,
) -> None:
    """Cut training windows from long videos, to train a network for `timeline`; nothing is re-encoded."""
    from mmaction_lite.data.tools.windows import TrainingWindows, write_windows

    settings = TrainingWindows(
        seconds=window,
        stride=stride,
        margin=margin,
        background=background,
        background_share=background_share,
    )
    found, faults = write_windows(data, out, settings, track)
    for fault in faults:
        warn(f"unreadable, omitted: {fault}")
    for name, samples in found.items():
        show(f"{name}: {len(samples)} windows of {len(samples.classes)} classes")
    show(f"{out}: a dataset for --data, {len(faults)} unreadable videos omitted")


@app.command()
def index(
    shards: Annotated[
        list[Path], typer.Argument(help="Tar files of clips; an index is written next to each.")
    ],
    out: Annotated[Path, typer.Option(help="Table of the clips to write, such as my_data/train.csv.")],
    url: Annotated[
        str | None,
        typer.Option(help="Address of the folder to which the tar files will be uploaded: https://…, s3://…"),
    ] = None,
) -> None:
    """Index tar files of clips for random access, from disk or from a server."""
    from mmaction_lite.data.tools.index import index

    count = index(shards, out, url)
    show(f"{out}: {count} clips in {len(shards)} tar files")


@app.command()
def browse(
    data: Data,
    recipe: Annotated[str, typer.Option(help="Recipe with the training views to draw.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")] = Path("clips.png"),
    clips: Annotated[int, typer.Option(min=1, help="Number of training clips.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random draws.")] = 0,
) -> None:
    """Write a contact sheet of augmented training clips, as the network receives them."""
    from mmaction_lite.data.annotations.splits import read_split
    from mmaction_lite.data.tools.browse import browse, check_out
    from mmaction_lite.recipes import get_recipe

    check_out(out)
    count = browse(read_split(data, "train"), get_recipe(recipe).train, out, clips, seed)
    show(f"{out}: {count} views")

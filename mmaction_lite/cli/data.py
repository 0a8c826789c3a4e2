"""`mmaction-lite data`: make, check and rewrite data sets."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mmaction_lite.cli.options import Data, HangSeconds, Json, Workers, console, print_json, track, warn

app = typer.Typer(help="Make and check data sets.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
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
    generate_motions(out, "frames" if frames else "video", console())
    print(f"{out}: train, val and test as class folders and as list files")


def generate_scenes_like_kinetics(out: Path, clips: int, keyframe_every: int | None) -> None:
    """With a progress bar."""
    from mmaction_lite.data.generated.scenes import generate_scenes
    from mmaction_lite.device import default_workers

    for _ in track(generate_scenes(out, clips, keyframe_every, default_workers()), clips, "writing clips"):
        pass


@app.command()
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
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.data.tools.validate import describe, validate

    report = validate(data, track, out, WorkerSettings(num_workers=workers, hang_seconds=hang_seconds))
    if as_json:
        print_json(vars(report))
    else:
        for name, facts in report.splits.items():
            print(f"{name}: {describe(facts)}")
        for line in [*(f"note: {note}" for note in report.notes), *report.faults]:
            warn(line)
        if out is not None:
            print(f"{out}: lists of the sound clips, a data set for --data")
    if report.faults:
        raise typer.Exit(1)


@app.command()
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
        warn(f"left out: {fault}")
    print(f"{out}: a data set for --data, {len(faults)} videos left out")


@app.command()
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
    from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
    from mmaction_lite.data.annotations.tables import write_rows
    from mmaction_lite.data.sources.shards import index_shards

    if url is not None:
        at = {str(shard): f"{url.rstrip('/')}/{shard.name}" for shard in shards}
    else:
        at = {str(shard): str(shard.absolute()) for shard in shards}
    rows = [(f"{at[tar]}/{member}", label) for tar, member, label in index_shards(shards, VIDEO_SUFFIXES)]
    write_rows(out, rows)
    print(f"{out}: {len(rows)} clips in {len(shards)} tar files")


@app.command()
def browse(
    data: Data,
    recipe: Annotated[str, typer.Option(help="Whose views to draw.")],
    out: Annotated[Path, typer.Option(help="New .png file.")] = Path("clips.png"),
    clips: Annotated[int, typer.Option(min=1, help="Training clips to show.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
) -> None:
    """Write a contact sheet of training clips, augmented, as the network sees them."""
    from mmaction_lite.data.annotations.splits import read_split
    from mmaction_lite.data.tools.browse import browse
    from mmaction_lite.recipes import get_recipe

    count = browse(read_split(data, "train"), get_recipe(recipe).train, out, clips, seed)
    print(f"{out}: {count} views")

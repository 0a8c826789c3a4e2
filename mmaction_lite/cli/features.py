"""Commands for features of videos: `features` extracts them, `search` finds similar videos with them."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from mmaction_lite.cli.options import (
    Device,
    HangSeconds,
    Json,
    Offline,
    OwnRecipe,
    Weights,
    Workers,
    own_recipe,
    print_json,
    show,
    start,
    track,
    warn,
)
from mmaction_lite.errors import Interrupted, UserError, printable

if TYPE_CHECKING:
    from torch import nn

    from mmaction_lite.data.loading.loader import Fault
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.data.sources.source import Source
    from mmaction_lite.distributed import DistributedContext
    from mmaction_lite.inference.feature_folder import WrittenFile
    from mmaction_lite.inference.feature_reading import Reading
    from mmaction_lite.inference.features import Extractor

MOST_LINES = 50  # about single files
# Formats that features are not written in; a folder of such a name is probably not meant.
OTHER_SUFFIXES = (".csv", ".h5", ".hdf5", ".json", ".mat", ".pkl", ".pt", ".pth", ".safetensors", ".txt")


def features(
    weights: Weights,
    videos: Annotated[
        list[Path] | None,
        typer.Argument(help="Video files, folders of frames or of clips, or patterns such as 'x/*.mp4'."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Dataset instead of videos: folder with class folders, lists or tables."),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Split of --data.")] = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for one file per video, or a .npz, .npy or .parquet file for all rows."),
    ] = None,
    format: Annotated[
        Literal["npz", "npy", "parquet"], typer.Option(help="Format of the files in a folder.")
    ] = "npz",
    layer: Annotated[
        str | None,
        typer.Option(help="Name of a layer, see --layers [default: the input of the classifier]."),
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="List the layers with the shapes of their outputs, and exit.")
    ] = False,
    pool: Annotated[
        Literal["all", "time", "space", "none"],
        typer.Option(help="Take the mean over time, space, both (all) or neither."),
    ] = "all",
    stride: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Seconds between sliding windows, a row each [default: a row for each video]."
        ),
    ] = None,
    window: Annotated[
        float | None, typer.Option(min=0.01, help="Length of a window in seconds [default: one clip].")
    ] = None,
    per_view: Annotated[
        bool, typer.Option("--per-view", help="A row for each view instead of their mean.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store float16.")] = False,
    recipe: OwnRecipe = None,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Extract features of videos from any layer of a network."""
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.distributed import init_distributed
    from mmaction_lite.inference.features import Extractor, FeatureSettings
    from mmaction_lite.weights.card import load

    settings = FeatureSettings(
        layer=layer, pool=pool, stride=stride, window=window, per_view=per_view, half=half
    )
    if not layers:
        _check_options(videos, data, out)
    model = load(weights, own_recipe(recipe))
    if layers:
        return _print_layers(model.to(start(device)), as_json)
    assert out is not None
    start(device)
    with init_distributed(device) as context:
        extractor = Extractor(model.to(context.device), settings)
        reading, root = _reading(extractor, videos, data, split)
        processes = WorkerSettings(num_workers=workers, hang_seconds=hang_seconds)
        processes = replace(processes, num_workers=processes.count(context.local_world_size))
        files, faults = _write(extractor, reading, out, processes, context, format=format, root=root)
    if context.is_main_process:
        _print_files(extractor, files, faults, as_json)


def search(
    stored: Annotated[
        Path, typer.Argument(metavar="FEATURES", help="Features file, or folder of features files.")
    ],
    query: Annotated[Path, typer.Argument(help="Video whose neighbors are searched.")],
    weights: Annotated[
        str | None,
        typer.Option(help="Weights of the features, for a query that is not among their videos."),
    ] = None,
    at: Annotated[
        float | None, typer.Option(min=0, help="Only the row of the query at this time, in seconds.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of neighbors of each row.")] = 5,
    recipe: OwnRecipe = None,
    device: Device = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Find the videos, or times in videos, whose features are nearest to those of a query."""
    from mmaction_lite.inference.feature_files import read_features
    from mmaction_lite.inference.neighbors import nearest_rows, rows_at, rows_of

    found = read_features(stored)
    rows = rows_of(found, query)
    if rows is None and weights is None:
        raise UserError(
            f"{printable(str(query))}: is not among the {len(found.videos)} videos of "
            f"{printable(str(stored))}; pass the weights of the features as --weights to compute its features"
        )
    if rows is None:
        from mmaction_lite.inference.features import FeatureSettings, extract_features
        from mmaction_lite.weights.card import load

        assert weights is not None
        model = load(weights, own_recipe(recipe)).to(start(device))
        settings = FeatureSettings.of_info(found.info)
        rows = extract_features(model, query, device=device, **vars(settings))
    if at is not None:
        rows = rows_at(rows, at)
    neighbors = nearest_rows(found, rows, top)
    if as_json:
        queries = [
            {
                "start_seconds": float(rows.start_seconds[i]),
                "end_seconds": float(rows.end_seconds[i]),
                "neighbors": [neighbor._asdict() for neighbor in near],
            }
            for i, near in enumerate(neighbors)
        ]
        return print_json(
            {
                "query": str(query),
                "rows": queries,
                "layer": found.info["layer"],
                "protocol": found.protocol_line,
            }
        )
    for i, near in enumerate(neighbors):
        show(f"{query}{_time(rows.start_seconds[i], rows.end_seconds[i])}")
        for neighbor in near:
            time = _time(neighbor.start_seconds, neighbor.end_seconds)
            show(f"  {neighbor.distance:.4f}  {neighbor.video}{time}")
        if not near:
            show("  no rows but those of the query itself")
    show(f"cosine distance of {found.info['layer']}; {found.protocol_line}")


def _time(start: float, end: float) -> str:
    return "" if start != start else f", {start:.2f} to {end:.2f} s"


def _check_options(videos: list[Path] | None, data: Path | None, out: Path | None) -> None:
    """Check that there is something to read, and a place to write to."""
    from mmaction_lite.files import check_output_folder
    from mmaction_lite.inference.feature_files import check_features_out

    if bool(videos) == (data is not None):
        problem = "both videos and --data are" if videos else "neither videos nor --data is"
        raise UserError(f"{problem} given; pass video files, or a data set as --data")
    if out is None:
        raise UserError("--out is missing; pass a folder, or a .npz, .npy or .parquet file")
    if _is_file(out):
        check_features_out(out)
    else:
        check_output_folder(out, scanned=[data] if data is not None and data.is_dir() else [])


def _reading(
    extractor: "Extractor", videos: list[Path] | None, data: Path | None, split: Any
) -> tuple["Reading", Path | None]:
    """Return the videos, and the folder that contains them, if it is known."""
    from mmaction_lite.data.annotations.splits import read_split
    from mmaction_lite.data.sources.source import open_sample
    from mmaction_lite.data.tools.find import find_clips

    if data is None:
        clips = find_clips(videos or [])
        return extractor.reading([str(clip) for clip in clips], partial(_open, clips)), None
    samples = read_split(data, split)
    for note in samples.notes:
        warn(f"note: {note}")
    names = [samples.name(i) for i in range(len(samples))]
    return extractor.reading(names, partial(open_sample, samples)), samples.root


def _open(clips: list[Path], number: int) -> "Source":
    from mmaction_lite.data.sources.source import open_source

    return open_source(clips[number])


def _write(
    extractor: "Extractor",
    reading: "Reading",
    out: Path,
    workers: "WorkerSettings",
    context: "DistributedContext",
    *,
    format: Any,
    root: Path | None,
) -> tuple[list["WrittenFile"], list["Fault"]]:
    """Write the rows of all videos to one file or to a folder."""
    from mmaction_lite.inference.feature_folder import write_features

    if _is_file(out):
        if context.world_size > 1:
            raise UserError(f"--out {printable(str(out))}: several processes write to a folder; pass one")
        return _write_file(extractor, reading, out, workers)
    try:
        return write_features(
            extractor,
            reading,
            out,
            format=format,
            root=root,
            workers=workers,
            context=context,
            track=track if context.is_main_process else None,
            report=warn,
        )
    except KeyboardInterrupt:
        shown = printable(str(out))
        raise Interrupted(
            f"{shown}: stopped; finished files are kept, and the same command continues"
        ) from None


def _is_file(out: Path) -> bool:
    """Whether --out names a file. An existing folder may have any name."""
    return out.suffix.lower() in (".npz", ".npy", ".parquet", *OTHER_SUFFIXES) and not out.is_dir()


def _write_file(
    extractor: "Extractor", reading: "Reading", out: Path, workers: "WorkerSettings"
) -> tuple[list["WrittenFile"], list["Fault"]]:
    """Write the rows of all videos to one file, unless no video can be read."""
    from mmaction_lite.data.loading.loader import Fault
    from mmaction_lite.inference.feature_files import check_features_out, join_features, save_features
    from mmaction_lite.inference.feature_folder import WrittenFile
    from mmaction_lite.inference.feature_reading import plan_parts

    parts = plan_parts(reading, range(len(reading.names)), workers)
    results = list(track(extractor.extract(reading, parts, workers), len(reading.names), "features"))
    found = [result for result in results if not isinstance(result, Fault)]
    if found:
        check_features_out(out)
        save_features(out, join_features(found))
    files = [
        WrittenFile(video=part.videos[0], file=out, num_rows=len(part), note=part.note) for part in found
    ]
    return files, [result for result in results if isinstance(result, Fault)]


def _print_files(
    extractor: "Extractor", files: list["WrittenFile"], faults: list["Fault"], as_json: bool
) -> None:
    for line in [file.note for file in files if file.note] + [fault.reason for fault in faults]:
        warn(line)
    if as_json:
        rows = [
            {"video": f.video, "file": str(f.file), "rows": f.num_rows} | ({"note": f.note} if f.note else {})
            for f in files
        ]
        errors = [{"video": fault.path, "error": fault.reason} for fault in faults]
        print_json({"videos": rows + errors, **extractor.info})
    else:
        for f in files[:MOST_LINES]:
            count = "finished earlier" if f.num_rows is None else f"{f.num_rows} row{'s' * (f.num_rows > 1)}"
            show(f"{f.video}: {count}, {f.file}")
        if len(files) > MOST_LINES:
            show(f"… and {len(files) - MOST_LINES} more")
        show(f"{extractor.info['layer']}; {extractor.info['protocol']}")
    if faults or any(file.note for file in files):
        raise typer.Exit(2)


def _print_layers(model: "nn.Module", as_json: bool) -> None:
    from mmaction_lite.inference.features import layers_of

    rows = layers_of(model)
    if as_json:
        return print_json({"layers": [row._asdict() for row in rows]})
    table = Table("layer", "module", "output (C, T, H, W)", box=None)
    for row in rows:
        table.add_row(row.name, row.kind, " × ".join(map(str, row.shape)))
    Console(width=max(120, Console().width)).print(table)

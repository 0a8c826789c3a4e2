"""`mmaction-lite benchmark`: speed of networks and of decoding."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mmaction_lite.cli.data import generate_scenes_like_kinetics
from mmaction_lite.cli.options import (
    Amp,
    Compile,
    Device,
    Json,
    Workers,
    print_json,
    show,
    start,
    track,
    warn,
)
from mmaction_lite.errors import UserError

if TYPE_CHECKING:
    from mmaction_lite.benchmark.changes import Change
    from mmaction_lite.benchmark.processes import InstalledPeer
    from mmaction_lite.benchmark.run import Plan
    from mmaction_lite.benchmark.settings import Setting

app = typer.Typer(help="Measure the speed of networks and of decoding.", rich_markup_mode=None)
SCENES = Path("data/scenes")
PEERS = Path(".peers")

Rows = Annotated[
    list[str] | None,
    typer.Option(help="Row or recipe to measure; repeatable [default: all rows of the benchmark page]."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for benchmark.json, .md and .png, in which an interrupted benchmark continues "
        "[default: runs/benchmark; with --quick or --against a new folder in runs]."
    ),
]
OptionalData = Annotated[
    Path | None,
    typer.Option(help="Dataset [default: generated clips with the decoding cost of Kinetics]."),
]
Synthetic = Annotated[
    bool, typer.Option("--synthetic", help="Measure the network only, without video files.")
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, help="Batch size per device [default: that of the row, which is small on a CPU]."),
]
AsPublished = Annotated[
    bool, typer.Option("--as-published", help="With --amp: measure the other frameworks in float32, too.")
]
Processes = Annotated[
    int, typer.Option(min=1, help="Number of processes of a distributed training; needs --synthetic.")
]
Rounds = Annotated[
    int, typer.Option(min=1, help="Number of measurements of this package and of each other framework.")
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Three rows, one clip per step, no files: under three minutes.")
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="COMMIT", help="Measure this commit of the package in turns, instead of other frameworks."
    ),
]
NoInference = Annotated[bool, typer.Option("--no-inference", help="Do not measure inference.")]
AtOnce = Annotated[
    int,
    typer.Option(min=1, help="Number of rows that start and compile together, and must fit into memory."),
]
Peers = Annotated[Path, typer.Option(help="Folder in which `make peers` installed other frameworks.")]
PeerSources = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FOLDER",
        help="Checkout of a framework without a package: mit_tsm or pyslowfast; repeatable.",
    ),
]
PeerResults = Annotated[
    list[Path] | None, typer.Option(help="JSON file of external measurements; repeatable.")
]
Note = Annotated[str | None, typer.Option(help="Note to show with the tables.")]


@app.callback(invoke_without_command=True)
def benchmark(
    context: typer.Context,
    recipes: Rows = None,
    out: Out = None,
    data: OptionalData = None,
    synthetic: Synthetic = False,
    batch_size: BatchSize = None,
    amp: Amp = None,
    as_published: AsPublished = False,
    compile: Compile = None,
    devices: Processes = 1,
    device: Device = "auto",
    workers: Workers = None,
    rounds: Rounds = 5,
    quick: Quick = False,
    against: Against = None,
    no_inference: NoInference = False,
    at_once: AtOnce = 1,
    peers: Peers = PEERS,
    peer_source: PeerSources = None,
    peer_result: PeerResults = None,
    note: Note = None,
    as_json: Json = False,
) -> None:
    """Measure training steps, data loading, memory and inference, and compare with other frameworks."""
    if context.invoked_subcommand is not None:
        return
    from mmaction_lite.benchmark.changes import changes_since
    from mmaction_lite.benchmark.processes import find_peers
    from mmaction_lite.benchmark.run import Plan
    from mmaction_lite.benchmark.settings import QUICK, SETTINGS, find_setting
    from mmaction_lite.device import default_workers

    if quick:
        recipes, synthetic, batch_size = recipes or list(QUICK), True, batch_size or 1
    if out is None:
        out = Path(
            f"runs/benchmark_{time.strftime('%Y%m%d_%H%M%S')}" if quick or against else "runs/benchmark"
        )
    if peers != PEERS and not peers.is_dir():
        raise UserError(
            f"{peers}: no such folder; --peers is the folder in which `make peers` installed other frameworks"
        )
    without_files = ("--quick" if quick else "--synthetic") if synthetic else None
    _check_options(as_published, amp, devices, data, without_files, against, peer_source)
    settings = [find_setting(name) for name in recipes] if recipes else list(SETTINGS)
    if against is not None:
        others, settings = _older_commit(against, settings, context)
    else:
        others = find_peers(peers, _parse_sources(peer_source or [])) if devices == 1 else {}
    imported = _read_imported(peer_result or [], settings, out)
    precision = amp or "float32"
    plan = Plan(
        device=device,
        batch_size=batch_size,
        precision=precision,
        peer_precisions=("float32", precision) if as_published and amp else (precision,),
        compile=compile,
        devices=devices,
        data=None if synthetic else data or _generate_data(settings, device, others),
        workers=default_workers() if workers is None else workers,
        rounds=rounds,
        inference=not no_inference,
        at_once=at_once,
    )
    found, failed, text = _measure(settings, plan, others, imported, out, note=note)
    if as_json:
        print_json(found)
    else:
        show(text)
        if against is not None:
            _show_changes(changes_since(found), f"ratios to commit {against} that exclude 1")
        show(f"{out}: benchmark.json, benchmark.md, benchmark.png")
    if against is not None:
        failed += [f"{row['setting']}: {row['error']}" for row in found["results"] if row.get("error")]
    if failed:
        raise UserError(f"not all rows could be measured: {failed[0]}")


def _read_imported(files: Sequence[Path], settings: "Sequence[Setting]", out: Path) -> list[dict[str, Any]]:
    """Return the external measurements in files, of rows to measure or of an earlier benchmark in `out`."""
    from mmaction_lite.benchmark.run import FILE, read_imported, read_result

    rows = {setting.name for setting in settings}
    if files and (out / FILE).exists():
        rows |= {row["setting"] for row in read_result(out / FILE)["results"]}
    return [read_imported(file, rows) for file in files]


def _measure(
    settings: "Sequence[Setting]",
    plan: "Plan",
    others: "Mapping[str, InstalledPeer]",
    imported: Sequence[dict[str, Any]],
    out: Path,
    *,
    note: str | None,
) -> tuple[dict[str, Any], list[str], str]:
    """Measure the rows and write the files; return the result, what failed, and the tables as text."""
    from mmaction_lite.benchmark.run import FILE, add_imported, output_folder, run_benchmark, save_result
    from mmaction_lite.benchmark.tables import write_tables

    with output_folder(out):
        found, failed = run_benchmark(settings, plan, others, out, warn)
        for theirs in imported:
            add_imported(found, theirs)
        if note is not None:
            found["note"] = note
        if imported or note is not None:
            save_result(found, out / FILE)
        return found, failed, write_tables(found, out)


def _older_commit(
    commit: str, settings: "Sequence[Setting]", context: typer.Context
) -> "tuple[dict[str, InstalledPeer], list[Setting]]":
    """Export a commit until the command ends; return it as the only peer, of every setting."""
    from mmaction_lite.benchmark.older import export_commit

    folder = Path(context.with_resource(TemporaryDirectory(prefix="mmaction_lite_commit_")))
    name, older = export_commit(commit, folder)
    return {name: older}, [replace(setting, peers={name: setting.key}) for setting in settings]


def _show_changes(changes: "Sequence[Change]", what: str) -> None:
    for change in changes:
        show(f"* {change}")
    show(f"{what}: {len(changes)}")


def _check_options(
    as_published: bool,
    amp: str | None,
    devices: int,
    data: Path | None,
    without_files: str | None,
    against: str | None,
    peer_source: Sequence[str] | None,
) -> None:
    """Check options of `benchmark` that depend on each other; `without_files` is the given one of them.

    Raises:
        UserError: they do not fit together.
    """
    if as_published and amp is None:
        raise UserError(
            "--as-published goes with --amp: without it the other frameworks are measured in float32 anyway"
        )
    if devices > 1 and without_files is None:
        raise UserError(f"--devices {devices} needs a measurement without video files; add --synthetic")
    if data is not None and without_files is not None:
        raise UserError(f"--data {data} goes without {without_files}, which measures without files")
    if against is not None and (devices > 1 or peer_source or as_published):
        raise UserError(
            f"--against {against} measures one device, and no other framework; leave out --devices, "
            "--peer-source and --as-published"
        )
    if devices > 1 and peer_source:
        raise UserError(f"--devices {devices} measures no other framework; leave out --peer-source")


def _parse_sources(texts: Sequence[str]) -> dict[str, Path]:
    """Return the folders of `--peer-source NAME=FOLDER` by name.

    Raises:
        UserError: a text has another form.
    """
    sources = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (name and equals and folder):
            raise UserError(f"--peer-source {text}: expected NAME=FOLDER, such as mit_tsm=checkouts/tsm")
        sources[name] = Path(folder).expanduser()
    return sources


def _generate_data(settings: "Sequence[Setting]", device: str, peers: Collection[str]) -> Path:
    """Generate clips with the decoding cost of Kinetics, and their frames if a row or a peer reads them."""
    from mmaction_lite.benchmark.lists import frames_of
    from mmaction_lite.benchmark.run import FRAME_READERS
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.data.tools.prepare import Form, prepare
    from mmaction_lite.device import pick_device

    generate_scenes_like_kinetics(SCENES, 16, None)
    is_read = any(setting.from_frames for setting in settings) or FRAME_READERS & set(peers)
    if is_read or pick_device(device).type != "cpu":
        form = Form(kind="frames", short_side=256)
        prepare(SCENES, frames_of(SCENES), form, track, workers=WorkerSettings(hang_seconds=1200.0))
    return SCENES


@app.command("page")
def benchmark_page(
    results: Annotated[list[Path], typer.Argument(help="Files benchmark.json of `mmaction-lite benchmark`.")],
    out: Annotated[Path, typer.Option(help="Markdown file to write.")],
) -> None:
    """Write the benchmark page of the documentation, with its figures."""
    from mmaction_lite.benchmark.page import write_page
    from mmaction_lite.benchmark.run import read_result

    write_page([(file, read_result(file)) for file in results], out)
    show(str(out))


@app.command("compare")
def benchmark_compare(
    old: Annotated[Path, typer.Argument(help="File benchmark.json of `mmaction-lite benchmark`.")],
    new: Annotated[Path, typer.Argument(help="Later file.")],
    check: Annotated[
        bool, typer.Option("--check", help="End with status 1 if this package became slower or larger.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the cells of two results that moved beyond their spread over the rounds."""
    from mmaction_lite.benchmark.changes import compare_results, is_same_machine, read_comparable

    before, after = read_comparable(old), read_comparable(new)
    changes, shared = compare_results(before, after)
    if not shared:
        raise UserError(f"{old}, {new}: have no cell in common; expected results with the same rows")
    if before.get("date", "") > after.get("date", ""):
        warn(f"{new} was measured before {old}; the older file is the first argument")
    rows = [{row["setting"] for row in found["results"]} for found in (before, after)]
    if missing := sorted(rows[0] - rows[1]):
        warn(f"{new}: has no row {', '.join(missing)}")
    if as_json:
        print_json({"cells": shared, "changes": [change._asdict() for change in changes]})
    else:
        if not is_same_machine(before, after):
            warn("measured on different machines or with different options; only ratios are compared")
        _show_changes(changes, f"of {shared} cells, moved beyond their spread")
    if check and (worse := [change for change in changes if change.is_worse]):
        raise UserError(f"{len(worse)} cells became worse, such as: {worse[0]}")


@app.command("scaling")
def benchmark_scaling(
    result: Annotated[
        Path, typer.Argument(help="File benchmark.json of `mmaction-lite benchmark` on one device.")
    ],
    recipe: Annotated[str, typer.Option(help="Row or recipe of the file.")],
    link_gb: Annotated[
        float,
        typer.Option(min=0.001, help="Bandwidth of the slowest link between devices, in GB/s per direction."),
    ],
    devices: Annotated[list[int], typer.Option(min=1, help="Number of devices; repeatable.")] = [  # noqa: B006
        1,
        8,
        64,
        800,
    ],
    loader_clips: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Throughput of the loader of one device, in clips/s; see `benchmark loader`."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict the iteration time on many devices from a measurement of one device."""
    from mmaction_lite.benchmark.run import find_row, read_result
    from mmaction_lite.benchmark.scaling import predict_scaling
    from mmaction_lite.benchmark.tables import seconds

    row = find_row(read_result(result), recipe, result)
    predictions = [
        predict_scaling(
            number,
            batch_size=row["batch_size"],
            step_seconds=seconds(row["train"]["ours"]),
            backward_seconds=seconds([row["stages"]], "backward"),
            gradient_bytes=4 * row["parameters"],
            link_bytes_per_second=1e9 * link_gb,
            loader_clips_per_second=loader_clips,
        )
        for number in devices
    ]
    if as_json:
        return print_json({"setting": row["setting"], "predictions": [vars(made) for made in predictions]})
    show(f"{row['setting']}, batch size {row['batch_size']} per device")
    table = Table(
        "devices",
        "iteration, s",
        "exchange not hidden, s",
        "data, s",
        "clips/s",
        "efficiency",
        "limit",
        box=None,
    )
    for made in predictions:
        table.add_row(
            str(made.devices),
            f"{made.iteration:.3f}",
            f"{made.exposed:.3f}",
            f"{made.data:.3f}",
            f"{made.clips_per_second:.1f}",
            f"{made.efficiency:.0%}",
            made.limited_by,
        )
    Console().print(table)


@app.command("loader")
def benchmark_loader(
    recipe: Annotated[
        str, typer.Option(help="Recipe with the training views to draw.")
    ] = "tsn_r50_1x1x3_100e_kinetics400_rgb",
    data: OptionalData = None,
    clips: Annotated[int, typer.Option(min=1, help="Number of clips to time.")] = 32,
    device: Device = "auto",
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Time the stages of data loading from opening a file to the copy to the device, and name the slowest."""
    from mmaction_lite.benchmark.loader import measure_loader
    from mmaction_lite.data.annotations.splits import read_split
    from mmaction_lite.device import default_workers
    from mmaction_lite.recipes import get_recipe

    if data is None:
        data = SCENES
        generate_scenes_like_kinetics(data, 16, None)
    report = measure_loader(
        read_split(data, "train"),
        get_recipe(recipe),
        start(device),
        clips,
        default_workers() if workers is None else workers,
        track,
    )
    if as_json:
        return print_json(vars(report))
    show(f"{report.data}, {report.recipe}: {report.clips} clips, {report.unreadable} unreadable")
    table = Table("stage", "CPU ms per clip (median)", box=None)
    rows = [*report.stages.items(), ("whole path, file to pixels", report.whole)]
    rows += [(f"open and decode: {name}", value) for name, value in report.peers.items()]
    for name, value in rows:
        table.add_row(name, f"{value:.2f}")
    Console().print(table)
    show(f"whole path / (open + decode): {report.whole_to_decode:.2f} (median over clips)")
    show(
        f"{report.clips_per_second:.1f} clips/s from {report.workers} decoding workers; "
        f"limited by: {report.limited_by}"
    )

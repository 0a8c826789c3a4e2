"""`mmaction-lite benchmark`: measure speed."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from mmaction_lite.cli.data import generate_scenes_like_kinetics
from mmaction_lite.cli.options import Device, Json, Workers, print_json, track

app = typer.Typer(help="Measure speed.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def callback() -> None:
    """Measure speed."""


@app.command("loader")
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
        track,
    )
    if as_json:
        return print_json(vars(report))
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

"""Options and output functions that all commands share."""

import gc
import json
import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import track as rich_track

from mmaction_lite.errors import printable

if TYPE_CHECKING:
    import torch

    from mmaction_lite.recipes.recipe import Recipe

T = TypeVar("T")
GC_THRESHOLD = gc.get_threshold()[0]
LONGEST = 4000  # characters of a printed line


def limit_workers(number: int | None) -> int | None:
    """Reduce a number of --workers that only needs memory, with a note."""
    if number:
        from mmaction_lite.data.loading.worker_settings import worker_limit

        if number > worker_limit():
            warn(f"--workers {number}: starts {worker_limit()}; more do not decode faster on this machine")
            return worker_limit()
    return number


Data = Annotated[
    Path,
    typer.Option(
        "--data", help="Dataset: folder with class folders, list files or tables, or a single list."
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, cuda:N or mps.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        callback=limit_workers,
        help="Number of decoding worker processes [default: one per core].",
    ),
]
HangSeconds = Annotated[
    float,
    typer.Option(
        min=1, help="Time limit for reading one video, in seconds; slower ones count as unreadable."
    ),
]
Amp = Annotated[
    Literal["bfloat16", "float16"] | None,
    typer.Option("--amp", help="Autocast to this dtype [default: float32]."),
]
Compile = Annotated[
    Literal["default", "reduce-overhead", "max-autotune"] | None,
    typer.Option("--compile", help="Mode of torch.compile [default: not compiled]."),
]
PerClass = Annotated[Path | None, typer.Option(help="Write the results of every class to this .csv file.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output instead of text.")
]


def _forbid_downloads(is_offline: bool) -> bool:
    """Set the environment variable of `--offline`, for this process and its workers."""
    if is_offline:
        os.environ["MMACTION_LITE_OFFLINE"] = "1"
    return is_offline


Weights = Annotated[
    str,
    typer.Argument(help="Weights file, run folder, address, or name from `mmaction-lite weights list`."),
]
OwnRecipe = Annotated[
    str | None, typer.Option("--recipe", help="Recipe of a model of your own, as my.py:my_recipe.")
]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Never download weights.", callback=_forbid_downloads),
]


def own_recipe(name: str | None) -> "Recipe | None":
    """Return the recipe of `--recipe`, or None without this option.

    Raises:
        UserError: there is no such recipe; see `get_recipe`.
    """
    if not name:
        return None
    from mmaction_lite.recipes import get_recipe

    return get_recipe(name)


def start(name: str, compiled_shapes: int = 0) -> "torch.device":
    """Return the device called `name`, with this process configured for it; see `configure_process`."""
    from mmaction_lite.device import configure_process, pick_device

    # The imports are done: nothing that they created is garbage, and from here on cycles may hold tensors.
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *gc.get_threshold()[1:])
    device = pick_device(name)
    configure_process(device, compiled_shapes)
    return device


def console() -> Console:
    """Return a console on standard error; results go to standard output."""
    return Console(stderr=True)


def track(items: Iterable[T], total: int, title: str) -> Iterable[T]:
    """Iterate over the items, with a progress bar if standard error is a terminal."""
    shown = console()
    title = escape(printable(title))
    return rich_track(items, title, total, console=shown, transient=True, disable=not shown.is_terminal)


def prepare_streams() -> None:
    """Make standard output and standard error accept every text, in any locale and if they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def warn(line: str) -> None:
    """Print one line on standard error."""
    print(printable(line, LONGEST), file=sys.stderr)


def show(text: str) -> None:
    """Print the lines of a result on standard output."""
    print("\n".join(printable(line, LONGEST) for line in text.split("\n")))


def print_json(value: dict[str, Any]) -> None:
    """Print the JSON object of `--json` on standard output. Numbers that are not finite become null."""
    is_unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(_finite(value), ensure_ascii=not is_unicode, allow_nan=False)
    # Bytes of file names that are not UTF-8 (lone surrogates) become escape sequences of JSON.
    print(text.encode("utf-8", "backslashreplace").decode())


def _finite(value: Any) -> Any:
    """Return a value in which None replaces numbers that are not finite, which JSON cannot express."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

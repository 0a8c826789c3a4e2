"""The curves of a run folder while it is trained, without paths of the server."""

import os
import re
import socket
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mmaction_lite.errors import UserError, printable
from mmaction_lite.files import LOCK, read_json_lines
from mmaction_lite.serve.numbers import finite

RunState = Literal["waiting", "training", "stopped", "finished"]

MOST_ROWS = 2000  # of a curve; of longer ones, every n-th row is left
SOURCE = re.compile(r"(\d+ videos) of .+, (\d+ unreadable)$")  # end of a protocol line
OWNER = re.compile(r"process (\d+) on (.+)")  # content of the lock of a folder


class RunRows(NamedTuple):
    """Contents of a run folder.

    Args:
        name: name of the folder.
        state: "waiting": nothing is written yet; "training": a process writes to the folder; "finished":
            the weights are written; "stopped": the training ended before.
        recipe: name of the recipe and seed; empty if not known.
        updated_seconds: time since the last row was written; None without a row.
        training: values of training steps: `step`, `epoch`, `loss`, `lr` and others.
        validation: values of validations: `step`, `epoch`, `loss`, the metrics, and the protocol line.
    """

    name: str
    state: RunState
    recipe: str
    updated_seconds: float | None
    training: list[dict[str, Any]]
    validation: list[dict[str, Any]]


class RunCurves:
    """Reads a run folder again whenever its metrics change.

    Args:
        folder: the run folder, which may be empty or missing before the training starts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "metrics.jsonl"
        self._version: tuple[int, int] | None = None
        self._rows: list[dict[str, Any]] = []

    def read(self) -> RunRows:
        """Return the curves and the state of the run."""
        try:
            status = self._file.stat()
        except OSError:
            status, self._version, self._rows = None, None, []
        if status is not None and self._version != (status.st_size, status.st_mtime_ns):
            try:
                rows = [_shown(row) for _, row in read_json_lines(self._file, "step", "epoch")]
            except UserError:  # a line that is being written; the next call reads it again
                rows = None
            if rows is not None:
                self._rows, self._version = rows, (status.st_size, status.st_mtime_ns)
        return RunRows(
            name=printable(self._folder.absolute().name, 100),
            state=self._state(),
            recipe=_recipe(self._folder / "recipe.txt"),
            updated_seconds=None if status is None else max(0.0, time.time() - status.st_mtime),
            training=_thinned([row for row in self._rows if "split" not in row]),
            validation=_thinned([row for row in self._rows if row.get("split") == "val"]),
        )

    def _state(self) -> RunState:
        if _is_locked(self._folder / LOCK):
            return "training"
        if (self._folder / "weights.safetensors").exists():
            return "finished"
        return "stopped" if self._rows else "waiting"


def _is_locked(file: Path) -> bool:
    """Whether a process that still runs holds the lock of a folder; the owner is read from the file."""
    try:
        owner = OWNER.match(file.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return False
    if owner is None or owner[2].strip() != socket.gethostname():
        return owner is not None  # a process of another machine deletes the file at its end
    try:
        os.kill(int(owner[1]), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # a process of another user
        return True
    return True


def _recipe(file: Path) -> str:
    """Return the first line of `recipe.txt`: the name of the recipe and the seed."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            first = stream.readline(1000)
    except OSError:
        return ""
    return printable(first.removeprefix("# ").strip(), 200) if first.startswith("# ") else ""


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a row, and the texts that name no file."""
    shown: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, int | float):
            shown[printable(key, 50)] = finite(value)
    if isinstance(row.get("split"), str):
        shown["split"] = printable(row["split"], 20)
    if isinstance(row.get("protocol"), str):
        shown["protocol"] = without_source(row["protocol"])
    return shown


def without_source(protocol: str) -> str:
    """Return a protocol line without the file or folder of the videos."""
    return printable(SOURCE.sub(r"\1, \2", protocol), 500)


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most `MOST_ROWS` rows, always with the last one."""
    step = -(-len(rows) // MOST_ROWS)
    return rows if step <= 1 else [*rows[:-1][::step][: MOST_ROWS - 1], rows[-1]]

"""Progress of a training on one line of a terminal, or as lines of a log file."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.text import Text

LOG_SECONDS = 30.0
"""Seconds between two lines where the output is not a terminal."""


class ProgressLine:
    """Show epoch, step, loss and remaining time, and further numbers where they fit. A context manager.

    On a terminal the line is replaced at every step. In a file, a line is added at most every `LOG_SECONDS`.

    Args:
        console: where to write.
        epochs: number of epochs of the training.
        first_step: number of steps done.
        last_step: number of steps of the training.
    """

    def __init__(self, console: Console, epochs: int, first_step: int, last_step: int):
        self.console = console
        self.epochs = epochs
        is_live = console.is_terminal or console.is_jupyter
        self._bar = Progress(
            _Line(console),
            console=console,
            transient=True,
            disable=not is_live,
            speed_estimate_period=3600,  # seconds; steps may take longer than the default of 30
        )
        fields = {"epochs": epochs, "epoch": 0.0, "row": {}}
        self._task = self._bar.add_task("", total=last_step, completed=first_step, **fields)
        self._logs_lines = not is_live
        self._logged_at = float("-inf")

    def __enter__(self) -> "ProgressLine":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def step(self, step: int, epoch: float) -> None:
        """Show that `step` steps, which are `epoch` epochs, are done."""
        self._bar.update(self._task, completed=step, epoch=epoch)

    def row(self, row: Mapping[str, Any]) -> None:
        """Show the numbers of a row of `metrics.jsonl`."""
        self._bar.update(self._task, completed=row["step"], epoch=row["epoch"], row=row)
        if self._logs_lines and monotonic() - self._logged_at >= LOG_SECONDS:
            self._logged_at = monotonic()
            line = "  ".join(_parts(self._bar.tasks[self._task]))
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class _Line(ProgressColumn):
    """The parts of the line that fit the width of the terminal, the most important ones first."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console

    def render(self, task: Task) -> Text:
        return Text(fit(list(_parts(task)), self.console.width), no_wrap=True)


def fit(parts: list[str], width: int) -> str:
    """Return as many of the first `parts` as fit `width` columns, at least one."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line[:width]


def _parts(task: Task) -> Iterator[str]:
    row, left = task.fields["row"], task.time_remaining
    yield f"epoch {task.fields['epoch']:.1f}/{task.fields['epochs']}"
    yield f"step {task.completed:.0f}/{task.total:.0f}"
    if not row:
        return
    yield f"loss {row['loss']:.4g}"
    yield f"ETA {'-:--:--' if left is None else timedelta(seconds=int(left))}"
    if "top1" in row:
        yield f"top-1 {row['top1']:.0%}"
    yield f"lr {row['lr']:.2g}"
    yield f"iteration {row['iteration_seconds']:.3f} s (data {row['data_seconds']:.3f})"
    yield f"limited by {row['limited_by']}"
    yield f"memory {row['memory_mib']:.0f} MiB"

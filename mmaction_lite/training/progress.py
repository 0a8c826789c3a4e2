"""Progress of a training: metrics.jsonl, TensorBoard, unreadable videos, and alarms."""

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from rich.console import Console
from torch import Tensor

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import Fault
from mmaction_lite.device import peak_memory
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError, printable
from mmaction_lite.files import read_json_lines, write_json_lines, writing
from mmaction_lite.inference.scores import Evaluation
from mmaction_lite.training.progress_line import ProgressLine
from mmaction_lite.training.tensorboard import RESUMABLE, TensorBoard
from mmaction_lite.training.training import StepResult

MAX_BROKEN_SHARE = 0.05
ESTIMATED_AFTER = 10  # steps
DIVERGED, DIVERGED_STEPS = 1000.0, 10  # a loss this many times the first one, in this many steps in a row


class Board(Protocol):
    """Writer of scalars, with the interface of TensorBoard's `SummaryWriter`."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Add one value of a curve."""
        ...

    def close(self) -> Any:
        """Write everything that is buffered."""
        ...


def import_wandb() -> Any:
    """Import and return the package of Weights & Biases.

    Raises:
        UserError: it is not installed.
    """
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("--wandb needs the package wandb: pip install 'mmaction-lite[wandb]'") from None
    return wandb


class WandbBoard:
    """Run of Weights & Biases; a resumed run folder resumes it."""

    def __init__(self, project: str, out: Path, recipe: str):
        wandb = import_wandb()
        number = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:16]
        config = {"recipe": recipe}
        self.run = wandb.init(
            project=project, name=out.name, dir=out, id=number, resume="allow", config=config
        )

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add one value of a curve."""
        self.run.log({tag: scalar_value, "step": global_step})

    def close(self) -> None:
        """Wait until all values are sent."""
        self.run.finish()


class TrainingLog:
    """Log of one run. A context manager.

    Args:
        out: run folder.
        samples: the training split, for the names of the videos in a batch.
        batch_plan: converts steps to epochs.
        first_step: number of steps done; rows of later steps, from an interrupted run, are deleted.
        last_step: number of steps of the whole training.
        console: shows the progress bar.
        context: processes, over which values are averaged; rank 0 writes.
    """

    def __init__(
        self,
        out: Path,
        samples: Samples,
        batch_plan: BatchPlan,
        *,
        first_step: int,
        last_step: int,
        console: Console,
        context: DistributedContext,
    ):
        self.context = context
        self.samples = samples
        self.batch_plan = batch_plan
        self.log_interval = max(1, min(batch_plan.first_step(1) // 5, 50))
        self.file = out / "metrics.jsonl"
        # Rows that an interrupted run wrote after its last checkpoint will be written again.
        if context.is_main_process:
            _rewrite(self.file, "step", int, lambda step: step <= first_step)
        tensorboard = TensorBoard(out, first_step + 1, context.is_main_process)
        self.boards: list[Board] = [tensorboard]
        self.console = console
        self.line = ProgressLine(console, round(batch_plan.epochs(last_step)), first_step, last_step)
        self.lr, self.loss, self._first_loss = math.nan, math.nan, math.nan
        self._large_losses = 0
        self._window: dict[str, float] = defaultdict(float)
        self._first_step, self._last_step, self._measured_from = first_step, last_step, 0.0
        self._pending: tuple[int, float, Tensor, Tensor, Sequence[int]] | None = None

    def __enter__(self) -> "TrainingLog":
        self.line.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.line.__exit__(*exception)
        for board in self.boards:
            try:
                board.close()
            except UserError:
                if exception[0] is None:  # otherwise the first error is reported
                    raise

    def step(
        self, step: int, result: StepResult, samples: Sequence[int], began: float, data_seconds: float
    ) -> None:
        """Record a step.

        Args:
            step: number of steps done, counted from 1.
            result: learning rate, loss and accuracy.
            samples: sample numbers of the batch.
            began: `perf_counter()` at the start of the iteration, before its wait for data.
            data_seconds: duration of that wait, in seconds.

        Raises:
            UserError: the loss of the previous step is not finite, or see `settle`.
        """
        # Reading a loss waits for the device; reading that of the previous step leaves the device work to do.
        self.settle()
        self._pending = (step, result.lr, result.loss.detach(), result.correct.detach(), samples)
        self._estimate(step)
        self._window["steps"] += 1
        self._window["seconds"] += perf_counter() - began
        self._window["data_seconds"] += data_seconds

    def _estimate(self, step: int) -> None:
        """Print the expected time of the training after `ESTIMATED_AFTER` steps, if it is long.

        The first two steps, which are slower, do not count.
        """
        done, left = step - self._first_step, self._last_step - step
        if done == 2:
            self._measured_from = perf_counter()
        if done == ESTIMATED_AFTER and left >= 10 * ESTIMATED_AFTER:
            seconds = (perf_counter() - self._measured_from) / (done - 2)
            expected = timedelta(seconds=round(left * seconds))
            line = f"expected time: {expected} for {left:,} steps of {seconds:.3g} s, without validations"
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def settle(self) -> None:
        """Read the values of the last step, and write a row if one is due.

        Raises:
            UserError: its loss is not finite, or the last losses are `DIVERGED` times the first one.
        """
        if self._pending is None:
            return
        step, lr, loss, correct, samples = self._pending
        self._pending = None
        self._check_loss(step, lr, float(loss), samples)
        self._window["read"] += 1
        self._window["loss"] += float(loss)
        self._window["top1"] += float(correct)
        epoch = self.batch_plan.epochs(step)
        if step % self.log_interval == 0 or epoch.is_integer():
            windows, self._window = self.context.all_gather(dict(self._window)), defaultdict(float)
            window = {name: sum(each[name] for each in windows) for name in windows[0]}
            row = {
                "step": step,
                "epoch": round(epoch, 4),
                "loss": window["loss"] / window["read"],
                "lr": lr,
                **({} if math.isnan(window["top1"]) else {"top1": window["top1"] / window["read"]}),
                "iteration_seconds": window["seconds"] / window["steps"],
                "data_seconds": window["data_seconds"] / window["steps"],
                "memory_mib": round(peak_memory(self.context.device), 1),
                "limited_by": "data" if window["data_seconds"] > 0.1 * window["seconds"] else "network",
            }
            self._write(row, "train")
            self.line.row(row)
        self.line.step(step, epoch)

    @property
    def numbers(self) -> str:
        """Loss and learning rate of the last step that was read, for messages."""
        return "" if math.isnan(self.loss) else f"loss {self.loss:.4g}, learning rate {self.lr:.4g}"

    def _check_loss(self, step: int, lr: float, loss: float, samples: Sequence[int]) -> None:
        """Stop a training that has diverged, before the next checkpoint.

        Raises:
            UserError: the loss is not finite, or `DIVERGED_STEPS` losses in a row are `DIVERGED` times the
                first one.
        """
        self.lr, self.loss = lr, loss
        if not math.isfinite(loss):
            names = [printable(self.samples.name(sample)) for sample in samples[:4]]
            more = f" and {len(samples) - 4} more" if len(samples) > 4 else ""
            raise UserError(
                f"the loss of step {step} is {loss}: stopped before the next checkpoint; lower the "
                f"learning rate ({lr:.4g}), or check the videos of the batch: {', '.join(names)}{more}"
            )
        if math.isnan(self._first_loss):
            self._first_loss = loss
        is_large = loss > DIVERGED * max(1.0, self._first_loss)
        self._large_losses = self._large_losses + 1 if is_large else 0
        if self._large_losses == DIVERGED_STEPS:
            raise UserError(
                f"the training diverges: the loss of step {step} is {loss:.4g}, that of the first step was "
                f"{self._first_loss:.4g}; lower the learning rate ({lr:.4g}), for example with "
                f"--set optimizer.lr=..., or set max_grad_norm"
            )

    def validated(self, step: int, result: Evaluation) -> None:
        """Write and print the results of a validation."""
        epoch = self.batch_plan.epochs(step)
        row = {
            "step": step,
            "epoch": epoch,
            "split": "val",
            "loss": result.loss,
            **result.metrics,
            "videos": len(result.labels),
            "unreadable": len(result.faults),
            "protocol": result.protocol_line,
        }
        if result.heads:
            row |= {"heads": result.heads, "best_head": result.best_head}
        self._write(row, "val")
        numbers = f"{result.describe()}, loss {row['loss']:.3f}"
        if len(result.heads) > 1:
            best = result.heads[result.best_head]
            numbers += f" (learning rate {best['lr']:g}, weight decay {best['weight_decay']:g})"
        line = f"epoch {epoch:g}: val {numbers}"
        self.console.print(printable(line), highlight=False, markup=False, soft_wrap=True)

    def _write(self, row: dict[str, Any], part: str) -> None:
        if not self.context.is_main_process:
            return
        with writing(self.file, RESUMABLE), self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if isinstance(value, float) and name != "epoch":
                for board in self.boards:
                    board.add_scalar(f"{part}/{name}", value, row["step"])


class Quarantine:
    """List of the unreadable training videos, once each, in `quarantine.jsonl`.

    Args:
        out: run folder.
        num_videos: number of videos in the training split.
        writes: whether this process writes; with several processes only rank 0 does.
        max_share: largest fraction of unreadable videos with which the training continues.
    """

    def __init__(self, out: Path, num_videos: int, writes: bool = True, max_share: float = MAX_BROKEN_SHARE):
        self.file = out / "quarantine.jsonl"
        self.num_videos = num_videos
        self.writes = writes
        self.max_share = max_share
        rows = _rewrite(self.file, "path", str, lambda path: True) if writes else []
        self.paths = {row["path"] for row in rows}

    def add(self, faults: Sequence[Fault]) -> None:
        """Add faults to the list.

        Raises:
            UserError: too many videos are unreadable.
        """
        for fault in faults:
            if fault.path not in self.paths:
                self.paths.add(fault.path)
                if self.writes:
                    with writing(self.file, RESUMABLE), self.file.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(fault._asdict()) + "\n")
        if faults and len(self.paths) > self.max_share * self.num_videos:
            raise UserError(
                f"{len(self.paths)} of {self.num_videos} videos cannot be read, more than "
                f"{self.max_share:.0%}; {self.file} lists them, the last: {faults[-1].reason}. Run "
                "`mmaction-lite data validate DATA --out checked`, then continue with --data checked --resume"
            )


def _rewrite(file: Path, key: str, kind: type, keep: Callable[[Any], bool]) -> list[dict[str, Any]]:
    """Delete the other rows and an incomplete last line from a JSON Lines file; return the rows to keep.

    Args:
        file: the file; it may be missing.
        key: a key of every row.
        kind: type of its values, `int` or `str`.
        keep: whether to keep a row with this value.

    Raises:
        UserError: a line is damaged. The file stays unchanged.
    """
    if not file.exists():
        return []
    rows = read_json_lines(file, key)
    for number, row in rows:
        if not isinstance(row[key], kind):
            expected = f"expected {'text' if kind is str else 'an integer'}. Delete this line"
            raise UserError(f"{file}, line {number}: {key} is {row[key]!r:.60}; {expected}")
    kept = [row for _, row in rows if keep(row[key])]
    write_json_lines(file, kept)
    return kept

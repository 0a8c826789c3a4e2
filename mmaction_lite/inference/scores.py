"""Compute the scores of videos under a protocol; the scores of a whole split and their files."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.loading.loader import Fault
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.device import CompileMode, Precision, reusing_memory
from mmaction_lite.errors import UserError
from mmaction_lite.tasks.bootstrap import bootstrap_intervals
from mmaction_lite.tasks.class_table import class_table, mistake_table
from mmaction_lite.tasks.metrics import describe, intervals_of
from mmaction_lite.tasks.score_files import Scores, write_scores
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task

# Upper bound of the float inputs in one forward pass; limits the memory of tests with many views.
CHUNK_BYTES = 96 << 20
SINGLE_LABEL = SingleLabel()


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of every video of a split.

    Args:
        scores: float32 (N, K), averaged over views by `protocol`. The row of an unreadable video is NaN;
            every metric counts the video as incorrect.
        labels: targets of the task, such as int64 (N,), or, multi-label, bool (N, K).
        paths: one per video.
        classes: class names in the order of the scores.
        protocol: views, normalization, averaging and window.
        source: file or folder that lists the videos.
        faults: the unreadable videos.
        task: kind of labels.
        precision: of the forward pass.
        compile: mode of `torch.compile`, or None.
        weights: fingerprint of the weights, see `fingerprint_of_weights`; None if unknown.
        view_logits: logits of every view, float32 (N, V, K), windows as further views; None if not kept.
        heads: settings, metrics and loss of every head of a probe; the scores are those of the best one.
        best_head: number of that head.
    """

    scores: np.ndarray
    labels: np.ndarray
    paths: list[str]
    classes: tuple[str, ...]
    protocol: Protocol
    source: str
    faults: list[Fault]
    task: Task = field(default_factory=SingleLabel)
    precision: Precision | Literal["int8"] = "float32"
    compile: CompileMode | None = None
    weights: str | None = None
    view_logits: np.ndarray | None = None
    heads: tuple[dict[str, float], ...] = ()
    best_head: int = 0

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the scores; see `Task.metrics`."""
        return self.task.metrics(self.scores, self.labels)

    def describe(self, digits: int = 1, *, has_intervals: bool = False) -> str:
        """Return the metrics as one line, with the 95 % confidence intervals of the accuracies on request."""
        shown = self.task.shown_metrics(len(self.classes))
        return describe(self.metrics, shown, digits, intervals=self.intervals() if has_intervals else None)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % confidence intervals of the metrics, by name."""
        metrics = self.metrics
        resampled = bootstrap_intervals(self.task, self.scores, self.labels, metrics)
        return intervals_of(metrics, len(self.labels)) | resampled

    def per_class(self) -> list[dict[str, Any]]:
        """Return the results of every class; see `class_table`."""
        groups = self.task.class_results(self.scores, self.labels)
        return [row for group in groups for row in class_table(group, self.classes)]

    def confused_pairs(self, most: int) -> list[dict[str, Any]]:
        """Return the `most` most frequent mistakes of every group of classes; see `mistake_table`."""
        groups = self.task.class_results(self.scores, self.labels)
        return [row for group in groups for row in mistake_table(group, self.classes, most)]

    @property
    def loss(self) -> float:
        """Cross entropy of the averaged probabilities; see `Task.log_loss`."""
        readable = ~np.isnan(self.scores).any(1)
        return self.task.log_loss(self.scores[readable], self.labels[readable])

    @property
    def protocol_line(self) -> str:
        """The protocol, the precision and the number of videos, to print and store with every metric."""
        arithmetic = "" if self.precision == "float32" else f"{self.precision}; "
        arithmetic += f"compiled ({self.compile}); " if self.compile else ""
        videos = f"{len(self.labels)} videos of {self.source}, {len(self.faults)} unreadable"
        return f"{self.protocol}; {arithmetic}{videos}"

    def save(self, path: Path) -> None:
        """Write the scores to a score file, `.npz` or `.parquet`; see `write_scores`.

        Raises:
            UserError: `path` is a file that is not a score file, or cannot be written.
        """
        table = Scores(
            file=path,
            paths=self.paths,
            labels=self.labels,
            scores=self.scores,
            class_names=list(self.classes),
            protocol=self.protocol_line,
            task=self.task,
            weights=self.weights,
            views=self.protocol.num_views,
            view_logits=self.view_logits,
        )
        write_scores(table)


def compute_scores(
    model: nn.Module,
    videos: list[Tensor],
    protocol: Protocol,
    *,
    probabilities: Callable[[Tensor], Tensor] = SINGLE_LABEL.probabilities,
    precision: Precision = "float32",
    is_compiled: bool = False,
) -> np.ndarray:
    """Compute the scores of a few videos under a protocol, float32 (len(videos), K).

    Args:
        model: see `compute_logits`, as `videos`, `protocol`, `precision` and `is_compiled`.
        videos: clips of each video.
        protocol: views, normalization, averaging and window.
        probabilities: converts logits (..., K) to probabilities; see `Task.probabilities`.
        precision: autocast to this dtype.
        is_compiled: whether `model` is compiled.

    Raises:
        UserError: the protocol has a window that the model cannot classify.
    """
    logits = compute_logits(model, videos, protocol, precision=precision, is_compiled=is_compiled)
    return protocol.average_logits(logits, probabilities).cpu().numpy()


def compute_logits(
    model: nn.Module,
    videos: list[Tensor],
    protocol: Protocol,
    *,
    precision: Precision = "float32",
    is_compiled: bool = False,
) -> Tensor:
    """Compute the logits of all views of a few videos under a protocol.

    Args:
        model: maps (B, C, T, H, W) to logits (B, K), in evaluation mode.
        videos: uint8 (num_clips, T, H, W, C) each, as `Protocol.read` returns them. They are copied to the
            device of the model.
        protocol: views, normalization, averaging and window.
        precision: autocast to this dtype.
        is_compiled: whether `model` is compiled.

    Returns:
        (len(videos), V, K) on the device of the model. Windows are further views.

    Raises:
        UserError: the protocol has a window that the model cannot classify.
    """
    device = device_of(model)
    on_device = (clips.to(device, non_blocking=True) for clips in videos)
    options = forward_options(model, protocol)
    dtype = getattr(torch, precision)
    parts = []
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), reusing_memory(device):
        for inputs in protocol.prepare_in_chunks(on_device, chunk_views(protocol)):
            if is_compiled:
                torch.compiler.cudagraph_mark_step_begin()
            # A replayed CUDA graph writes its next output to the same memory.
            parts.append(model(inputs, **options).clone())
    logits = torch.cat(parts).unflatten(0, (len(videos), protocol.num_views))
    return logits if protocol.window is None else logits.flatten(1, 2)


def forward_options(model: nn.Module, protocol: Protocol) -> dict[str, int]:
    """Return the keyword arguments of the forward pass.

    Raises:
        UserError: the protocol has a window, and the model's forward method takes none.
    """
    if protocol.window is None:
        return {}
    if "window" not in inspect.signature(model.forward).parameters:
        raise UserError(
            f"the protocol classifies windows of the features (window={protocol.window}), and the forward "
            f"method of {type(model).__name__} has no argument `window`. Use a recipe with window=None"
        )
    return {"window": protocol.window}


def chunk_views(protocol: Protocol) -> int:
    """Return the number of views of a protocol in one forward pass."""
    return clips_at_once(protocol.views.view_shape)


def clips_at_once(shape: tuple[int, ...]) -> int:
    """Return the number of clips of the shape (T, H, W, C) in one forward pass."""
    return max(1, CHUNK_BYTES // (4 * math.prod(shape)))


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's parameters."""
    return next(model.parameters()).device

"""Pre-training without labels: the network reconstructs hidden parts of its input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.settings import check_fields
from mmaction_lite.tasks.task import ClassResults, Mistake

CLASSES = ("video",)
"""The class of all clips of a data set without labels."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Minimize the error that a network computes itself; labels are not used.

    The output of the network is the mean squared error of each clip, (B, 1), in units of the variance of the
    hidden pixels, within tokens or within the clip. Scores are the explained share of this variance,
    1 - error, and at least 0. See `Task` for the methods.
    """

    def __post_init__(self):
        check_fields(self)

    def for_classes(self, classes: Sequence[str]) -> "Reconstruction":
        """Return the task itself."""
        return self

    def num_logits(self, num_classes: int) -> int:
        """Return 1, the error of a clip."""
        return 1

    def check_labels(self, columns: tuple[str, ...], source: str) -> None:
        """Accept all labels; they are not used."""

    def target(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return 0, int64 ()."""
        return np.zeros((), np.int64)

    def targets(self, labels: np.ndarray, counts: np.ndarray, num_classes: int) -> np.ndarray:
        """Return zeros, int64 (N,)."""
        return np.zeros(len(counts), np.int64)

    def target_shape(self, num_videos: int, num_classes: int) -> tuple[int, ...]:
        """Return (num_videos,)."""
        return (num_videos,)

    def check_targets(self, targets: np.ndarray, num_classes: int) -> None:
        """Check that all targets are 0; see `Task.check_targets`."""
        if (targets != 0).any():
            raise ValueError(f"the largest target is {targets.max()}; expected 0 for all clips")

    def dense(self, targets: Tensor, num_classes: int) -> Tensor:
        """Return the targets as float32 (B, 1)."""
        return targets if targets.is_floating_point() else targets[:, None].float()

    def loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the error of every clip, float32 (B,)."""
        return logits[:, 0].float()

    def balanced_weights(self, counts: np.ndarray) -> np.ndarray:
        """Return ones, float32 (K,)."""
        return np.ones(len(counts), np.float32)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return NaN for every clip, float32 (B,): no prediction is correct or incorrect."""
        return torch.full_like(logits[:, 0], torch.nan, dtype=torch.float32)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the explained share of the variance, from 0 to 1, of the shape of `logits`."""
        return (1 - logits).clamp(0, 1)

    def metrics(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return `explained`, the mean explained share of the variance of hidden pixels."""
        return {"explained": float(np.nan_to_num(scores).mean())}

    def shown_metrics(self, num_classes: int) -> tuple[str, ...]:
        """Return the only metric."""
        return ("explained",)

    @property
    def temperature_scale(self) -> Literal["log_probability", "log_odds"]:
        """Not used: there are no probabilities."""
        return "log_odds"

    def are_correct(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether more than half of the variance is explained, bool (N,)."""
        return np.nan_to_num(scores[:, 0]) > 0.5

    def confidences(self, scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the explained shares, float (N,), and whether they are above one half, bool (N,)."""
        return scores[:, 0], self.are_correct(scores, targets)

    def likelihoods(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the explained shares, float (N,)."""
        return scores[:, 0]

    def log_loss(self, scores: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean error, with errors above 1 counted as 1."""
        return float((1 - scores).mean())

    def ranked(self, scores: np.ndarray, classes: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
        """Return the class of all clips and the explained share."""
        return tuple(classes), scores

    def exclusive_groups(self, num_classes: int) -> list[slice]:
        """Return all classes as one group."""
        return [slice(0, num_classes)]

    def best_classes(self, scores: np.ndarray) -> tuple[int, ...]:
        """Return the class of all clips."""
        return (0,)

    def class_results(self, scores: np.ndarray, targets: np.ndarray) -> tuple[ClassResults, ...]:
        """Return nothing: there are no classes."""
        return ()

    def mistakes(
        self, scores: np.ndarray, targets: np.ndarray, classes: Sequence[str], most: int
    ) -> list[Mistake]:
        """Return nothing: no prediction is incorrect."""
        return []

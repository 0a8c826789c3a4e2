"""Any number of classes per clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.losses import balanced_weights, binary_cross_entropy
from mmaction_lite.tasks.metrics import average_precision, class_results, readable_videos, worst_videos
from mmaction_lite.tasks.task import ClassResults, Mistake

THRESHOLD = 0.5  # probability from which a class counts as predicted, in recall, precision and F1


@dataclass(frozen=True, kw_only=True)
class MultiLabel:
    """Every clip has any number of classes, including none; a target holds ones and zeros, float32 (K,).

    Each class is a binary decision: probabilities are the sigmoid of the logits. See `Task` for the methods.
    """

    def for_classes(self, classes: Sequence[str]) -> "MultiLabel":
        """Return the task itself: it takes any classes."""
        return self

    def num_logits(self, num_classes: int) -> int:
        """Return `num_classes`."""
        return num_classes

    def check_labels(self, columns: tuple[str, ...], source: str) -> None:
        """Check that the labels are in the column `labels` or `label`; see `Task.check_labels`.

        Raises:
            UserError: they are in several columns.
        """
        if len(columns) > 1:
            raise UserError(
                f"{source}: labels are in the columns {' and '.join(columns)}, and the task multi_label "
                f"expects the column labels; use --set task={'_'.join(columns)}, or add a column labels"
            )

    def target(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the target of one clip, float32 (K,): 1 for its classes, 0 for the others."""
        target = np.zeros(num_classes, np.float32)
        target[labels] = 1
        return target

    def targets(self, labels: np.ndarray, counts: np.ndarray, num_classes: int) -> np.ndarray:
        """Return whether each clip has each class, bool (N, K)."""
        targets = np.zeros((len(counts), num_classes), bool)
        targets[np.repeat(np.arange(len(counts)), counts), labels] = True
        return targets

    def target_shape(self, num_videos: int, num_classes: int) -> tuple[int, ...]:
        """Return (num_videos, num_classes)."""
        return num_videos, num_classes

    def check_targets(self, targets: np.ndarray, num_classes: int) -> None:
        """Check that targets are bool; see `Task.check_targets`."""
        if targets.dtype != bool:
            raise ValueError(f"labels are {targets.dtype}; expected bool")

    def dense(self, targets: Tensor, num_classes: int) -> Tensor:
        """Return the targets unchanged, float32 (B, K), because they are dense."""
        return targets

    def loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the binary cross entropy of every clip, mean over the classes, float32 (B,)."""
        return binary_cross_entropy(
            logits, targets, label_smoothing=label_smoothing, class_weights=class_weights
        )

    def balanced_weights(self, counts: np.ndarray) -> np.ndarray:
        """Return class weights that give all classes the same total weight, float32 (K,)."""
        return balanced_weights(counts)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return whether the highest-scoring class is one of the clip's classes, float32 (B,)."""
        return (targets.gather(1, logits.argmax(1)[:, None])[:, 0] > 0).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the sigmoid of the logits."""
        return logits.sigmoid()

    def metrics(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return mean_average_precision and top1.

        mean_average_precision: mean of `average_precision` over the classes that have videos. top1: share of
        the videos whose highest-scoring class is one of their true classes.
        """
        correct = self.are_correct(scores, targets)
        precision = average_precision(scores, targets)
        mean = float(np.nanmean(precision)) if targets.any() else 0.0
        return {"mean_average_precision": mean, "top1": float(correct.mean())}

    def shown_metrics(self, num_classes: int) -> tuple[str, ...]:
        """Return the metrics to show."""
        return "mean_average_precision", "top1"

    @property
    def temperature_scale(self) -> Literal["log_probability", "log_odds"]:
        """Logits of a probability that a temperature divides: the log odds."""
        return "log_odds"

    def are_correct(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether the highest-scoring class is one of the true classes, bool (N,)."""
        best = np.nan_to_num(scores, nan=-1).argmax(1)
        return targets[np.arange(len(targets)), best] & ~np.isnan(scores).any(1)

    def confidences(self, scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of every class of every video, float (N * K,), and whether it is true."""
        return scores.ravel(), targets.ravel()

    def likelihoods(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the probability of the presence or absence of every class, float (N * K,)."""
        return np.where(targets, scores, 1 - scores).ravel()

    def log_loss(self, scores: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean binary cross entropy over videos and classes."""
        own = np.where(targets, scores, 1 - scores)
        return float(-np.log(np.maximum(own, 1e-12)).mean()) + 0.0  # no -0.000

    def ranked(self, scores: np.ndarray, classes: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
        """Return all class names and their probabilities, the most probable first."""
        order = np.argsort(-scores, kind="stable")
        return tuple(classes[int(i)] for i in order), scores[order]

    def exclusive_groups(self, num_classes: int) -> list[slice]:
        """Return one group per class: a video has any number of classes."""
        return [slice(k, k + 1) for k in range(num_classes)]

    def best_classes(self, scores: np.ndarray) -> tuple[int, ...]:
        """Return the index of the most probable class."""
        return (int(scores.argmax()),)

    def class_results(self, scores: np.ndarray, targets: np.ndarray) -> tuple[ClassResults, ...]:
        """Return recall, precision and F1 at a probability of 0.5, and the average precision.

        There is no confusion matrix, because a video can have several true classes.
        """
        predicted = scores >= THRESHOLD
        predicted[~readable_videos(scores)] = False
        correct = (targets & predicted).sum(0)
        precision = average_precision(scores, targets)
        return (class_results(correct, predicted.sum(0), targets.sum(0), average_precision=precision),)

    def mistakes(
        self, scores: np.ndarray, targets: np.ndarray, classes: Sequence[str], most: int
    ) -> list[Mistake]:
        """Return the worst videos; see `Task.mistakes`."""
        return [
            Mistake(
                index=int(n),
                true=", ".join(classes[k] for k in np.flatnonzero(targets[n]).tolist()),
                true_score=float(score),
                predicted=classes[int(scores[n].argmax())],
                predicted_score=float(scores[n].max()),
            )
            for n, score in zip(*worst_videos(scores, targets, most), strict=True)
        ]

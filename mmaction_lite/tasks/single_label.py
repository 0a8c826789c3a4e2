"""One class per clip."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from mmaction_lite.errors import UserError
from mmaction_lite.settings import check_fields
from mmaction_lite.tasks.losses import balanced_weights, binary_cross_entropy, one_hot_shares
from mmaction_lite.tasks.metrics import (
    check_indices,
    mean_class_accuracy,
    ranks,
    single_label_results,
    top_k,
    worst_videos,
)
from mmaction_lite.tasks.task import ClassResults, Mistake


@dataclass(frozen=True, kw_only=True)
class SingleLabel:
    """Every clip has exactly one class; a target is its index, int64 ().

    See `Task` for the methods.

    Args:
        criterion: "cross_entropy" of the classes, whose probabilities are the softmax of the logits, or
            "binary_cross_entropy" of each class independently, whose probabilities are the sigmoid.
    """

    criterion: Literal["cross_entropy", "binary_cross_entropy"] = "cross_entropy"

    def __post_init__(self):
        check_fields(self)

    def for_classes(self, classes: Sequence[str]) -> "SingleLabel":
        """Return the task itself: it takes any classes."""
        return self

    def num_logits(self, num_classes: int) -> int:
        """Return `num_classes`."""
        return num_classes

    def check_labels(self, columns: tuple[str, ...], source: str) -> None:
        """Check that the labels are in the column `label`; see `Task.check_labels`.

        Raises:
            UserError: they are in other columns.
        """
        if columns == ("labels",):
            raise UserError(
                f"{source}: clips have any number of classes, and the task single_label expects exactly one; "
                "use --set task=multi_label"
            )
        if columns != ("label",):
            raise UserError(
                f"{source}: labels are in the columns {' and '.join(columns)}, and the task single_label "
                f"expects the column label; use --set task={'_'.join(columns)}, or add a column label"
            )

    def target(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the class index of one clip, int64 ()."""
        return np.asarray(labels[0])

    def targets(self, labels: np.ndarray, counts: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the class index of every clip, int64 (N,)."""
        return labels

    def target_shape(self, num_videos: int, num_classes: int) -> tuple[int, ...]:
        """Return (num_videos,)."""
        return (num_videos,)

    def check_targets(self, targets: np.ndarray, num_classes: int) -> None:
        """Check that targets are class indices; see `Task.check_targets`."""
        check_indices(targets, num_classes)

    def dense(self, targets: Tensor, num_classes: int) -> Tensor:
        """Convert class indices, int64 (B,), to shares of the classes, float32 (B, K)."""
        return targets if targets.is_floating_point() else one_hot_shares(targets, num_classes)

    def loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the cross entropy of every clip, float32 (B,); see `Task.loss`."""
        if self.criterion == "cross_entropy":
            return cross_entropy(
                logits.float(), targets, class_weights, label_smoothing=label_smoothing, reduction="none"
            )
        shares = self.dense(targets, logits.shape[1])
        return binary_cross_entropy(
            logits, shares, label_smoothing=label_smoothing, class_weights=class_weights
        )

    def balanced_weights(self, counts: np.ndarray) -> np.ndarray:
        """Return class weights that give all classes the same total weight, float32 (K,)."""
        return balanced_weights(counts)

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return whether the best class is the true one, or has a share of a dense target, float32 (B,)."""
        best = logits.argmax(1)
        if targets.is_floating_point():
            return (targets.gather(1, best[:, None])[:, 0] > 0).float()
        return (best == targets).float()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax over the classes, or the sigmoid for binary cross entropy."""
        return logits.softmax(-1) if self.criterion == "cross_entropy" else logits.sigmoid()

    def metrics(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return top1, top5 and mean_class.

        top1 and top5: share of the videos whose class is among the best one or five; see `ranks` for ties.
        mean_class: mean over the classes that have videos of their top-1 accuracy.
        """
        rank = ranks(scores, targets)
        return {
            "top1": top_k(rank, 1),
            "top5": top_k(rank, 5),
            "mean_class": mean_class_accuracy(rank, targets),
        }

    def shown_metrics(self, num_classes: int) -> tuple[str, ...]:
        """Return the metrics to show; without top5 if there are at most five classes."""
        return ("top1", "top5", "mean_class") if num_classes > 5 else ("top1", "mean_class")

    @property
    def temperature_scale(self) -> Literal["log_probability", "log_odds"]:
        """Logits of a probability that a temperature divides; see `Task.temperature_scale`."""
        return "log_probability" if self.criterion == "cross_entropy" else "log_odds"

    def are_correct(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether the true class alone has the highest score, bool (N,); see `ranks`."""
        return ranks(scores, targets) == 0

    def confidences(self, scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of the predicted class, float (N,), and whether it is correct, bool (N,)."""
        return scores.max(1), self.are_correct(scores, targets)

    def likelihoods(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the probability of the true class, float (N,); with sigmoids, of all decisions, (N * K,)."""
        if self.criterion == "cross_entropy":
            return scores[np.arange(len(targets)), targets]
        return np.where(targets[:, None] == np.arange(scores.shape[1]), scores, 1 - scores).ravel()

    def log_loss(self, scores: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean negative logarithm of the probability of the true class."""
        own = scores[np.arange(len(targets)), targets]
        return float(-np.log(np.maximum(own, 1e-12)).mean()) + 0.0  # no -0.000

    def ranked(self, scores: np.ndarray, classes: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
        """Return all class names and their probabilities, the most probable first."""
        order = np.argsort(-scores, kind="stable")
        return tuple(classes[int(i)] for i in order), scores[order]

    def exclusive_groups(self, num_classes: int) -> list[slice]:
        """Return all classes as one group."""
        return [slice(0, num_classes)]

    def best_classes(self, scores: np.ndarray) -> tuple[int, ...]:
        """Return the index of the most probable class."""
        return (int(scores.argmax()),)

    def class_results(self, scores: np.ndarray, targets: np.ndarray) -> tuple[ClassResults, ...]:
        """Return the confusion matrix, recall, precision and F1 of the classes."""
        return (single_label_results(scores, targets),)

    def mistakes(
        self, scores: np.ndarray, targets: np.ndarray, classes: Sequence[str], most: int
    ) -> list[Mistake]:
        """Return the worst videos; see `Task.mistakes`."""
        indices, true_scores = worst_videos(scores, targets, most)
        return [
            Mistake(
                index=int(n),
                true=classes[int(targets[n])],
                true_score=float(score),
                predicted=classes[int(scores[n].argmax())],
                predicted_score=float(scores[n].max()),
            )
            for n, score in zip(indices, true_scores, strict=True)
        ]

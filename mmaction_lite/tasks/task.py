"""The interface of a task: everything that depends on the kind of labels that a clip has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassResults:
    """Results of one group of classes: all classes, or for example the verbs.

    Args:
        title: name of the group; empty if a task has one group.
        first: index of the group's first class among all classes of the task.
        confusion: counts, int64 (K, K): row = true class, column = predicted class; None for more than 1000
            classes, and where a clip may have several classes, so that no predicted class stands for a true
            one.
        mistakes: pairs of classes that were confused, int64 (M, 3): true class, predicted class, number of
            videos, the most frequent first; None where a clip may have several classes.
        videos: videos of each class, unreadable ones included, int64 (K,).
        correct: correctly predicted videos of each class, int64 (K,).
        recall: correctly predicted share of the videos of a class, float64 (K,); NaN without videos.
        precision: correct share of the videos predicted as a class, float64 (K,); NaN without predictions.
        f1: harmonic mean of recall and precision, float64 (K,).
        average_precision: see `average_precision`, float64 (K,); None for tasks that do not use it.
    """

    title: str = ""
    first: int = 0
    confusion: np.ndarray | None
    mistakes: np.ndarray | None = None
    videos: np.ndarray
    correct: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray
    average_precision: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One incorrectly predicted video.

    Args:
        index: row in the scores.
        true: names of the true classes.
        true_score: probability of the true class; of several, the lowest.
        predicted: name of the predicted class.
        predicted_score: its probability.
    """

    index: int
    true: str
    true_score: float
    predicted: str
    predicted_score: float


@runtime_checkable
class Task(Protocol):
    """What the labels of a clip mean. A task is a frozen dataclass, part of the recipe and of the model card.

    K is the number of logits. `num_classes` counts the classes of all groups. Targets have the shape
    that the task chooses; other modules store and pass them without reading them.
    """

    def for_classes(self, classes: Sequence[str]) -> "Task":
        """Return the task for these class names, in the order of the logits.

        Raises:
            UserError: the names do not fit the task.
        """
        ...

    def num_logits(self, num_classes: int) -> int:
        """Return the number of logits, K, which the model builder takes as `num_classes`."""
        ...

    def check_labels(self, columns: tuple[str, ...], source: str) -> None:
        """Check that the task can use the labels of an annotation file.

        Args:
            columns: the label columns, see `Samples.label_columns`.
            source: the file, for the message.

        Raises:
            UserError: the task cannot use them; the message names a task that can.
        """
        ...

    def target(self, labels: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the training target of one clip, which the loader stacks.

        Args:
            labels: class indices of the clip, int64 (k,).
            num_classes: number of all classes.
        """
        ...

    def targets(self, labels: np.ndarray, counts: np.ndarray, num_classes: int) -> np.ndarray:
        """Return the targets of all clips of a split, as `metrics` takes them.

        Args:
            labels: class indices of clip after clip, int64 (sum of counts,).
            counts: number of labels of each clip, int64 (N,).
            num_classes: number of all classes.
        """
        ...

    def target_shape(self, num_videos: int, num_classes: int) -> tuple[int, ...]:
        """Return the shape of the targets of `num_videos` clips."""
        ...

    def check_targets(self, targets: np.ndarray, num_classes: int) -> None:
        """Check the type and the values of targets that come from a file.

        Raises:
            ValueError: the message names the values and those expected.
        """
        ...

    def dense(self, targets: Tensor, num_classes: int) -> Tensor:
        """Convert training targets to shares of the classes, float32 (B, K), which mixing interpolates."""
        ...

    def loss(
        self,
        logits: Tensor,
        targets: Tensor,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of every clip, float32 (B,).

        Class weights multiply the terms, and nothing is divided by their sum: the loss of a clip does not
        depend on the other clips, so a batch can be split in any way.

        Args:
            logits: (B, K).
            targets: stacked targets, or dense ones, float (B, K).
            label_smoothing: share of the target that is spread over all classes.
            class_weights: one weight per class, float (K,).
        """
        ...

    def balanced_weights(self, counts: np.ndarray) -> np.ndarray:
        """Return class weights that give all classes the same total weight, float32 (K,).

        Args:
            counts: clips of each class, int (K,).
        """
        ...

    def correct(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return whether the prediction for each clip of a batch is correct, float32 (B,).

        Args:
            logits: (B, K).
            targets: stacked targets, or dense ones, float (B, K).
        """
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits (..., K) to probabilities (..., K)."""
        ...

    def metrics(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Return the metrics of a split, each from 0 to 1. The first one chooses the best weights.

        Args:
            scores: probabilities, float (N, K). Rows of NaN, unreadable videos, count as incorrect.
            targets: see `targets`.
        """
        ...

    def shown_metrics(self, num_classes: int) -> tuple[str, ...]:
        """Return the names of the metrics to show, in order; without those that are always 100 %."""
        ...

    @property
    def temperature_scale(self) -> Literal["log_probability", "log_odds"]:
        """Logits of a probability p that a temperature divides: log(p) or log(p / (1 - p))."""
        ...

    def are_correct(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return whether each video is correct as top-1 accuracy counts it, bool (N,).

        Args:
            scores: probabilities, float (N, K). Rows of NaN, unreadable videos, are incorrect.
            targets: see `targets`.
        """
        ...

    def confidences(self, scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of each decision, float (M,), and whether it is correct, bool (M,).

        Args:
            scores: probabilities, float (N, K), without unreadable videos.
            targets: see `targets`.
        """
        ...

    def likelihoods(self, scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return the probability that the scores give to each label, float (M,).

        The mean of their negative logarithms is a proper score: it is lowest for the true probabilities.

        Args:
            scores: probabilities, float (N, K), without unreadable videos.
            targets: see `targets`.
        """
        ...

    def log_loss(self, scores: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean cross entropy of averaged probabilities.

        Args:
            scores: probabilities, float (N, K), without unreadable videos.
            targets: see `targets`.
        """
        ...

    def ranked(self, scores: np.ndarray, classes: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray]:
        """Return what a prediction lists: names and their probabilities, the most probable first.

        Args:
            scores: probabilities of one video, float32 (K,).
            classes: class names.
        """
        ...

    def exclusive_groups(self, num_classes: int) -> list[slice]:
        """Return the groups of classes of which a video has one at a time, in order."""
        ...

    def best_classes(self, scores: np.ndarray) -> tuple[int, ...]:
        """Return the index of the most probable class of every group of classes; most tasks have one group.

        Args:
            scores: probabilities of one video, float32 (K,).
        """
        ...

    def class_results(self, scores: np.ndarray, targets: np.ndarray) -> tuple[ClassResults, ...]:
        """Return the results of each class, in one table per group of classes.

        Args:
            scores: probabilities, float (N, K); rows of NaN are unreadable videos.
            targets: see `targets`.
        """
        ...

    def mistakes(
        self, scores: np.ndarray, targets: np.ndarray, classes: Sequence[str], most: int
    ) -> list[Mistake]:
        """Return the `most` incorrectly predicted videos with the lowest probability of the true class.

        Args:
            scores: probabilities, float (N, K); rows of NaN are unreadable videos and are left out.
            targets: see `targets`.
            classes: class names.
            most: length of the list at most.
        """
        ...

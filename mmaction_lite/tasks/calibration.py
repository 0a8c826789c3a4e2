"""Calibration: whether predictions with a probability of 80 % are correct in 80 % of the cases."""

from typing import NamedTuple

import numpy as np

from mmaction_lite.tasks.metrics import readable_videos
from mmaction_lite.tasks.task import Task

NUM_BINS = 15  # as in Guo et al., arXiv:1706.04599


class Reliability(NamedTuple):
    """Decisions in bins of their probability; bin m holds the probabilities in ((m - 1) / M, m / M].

    Args:
        counts: decisions in each bin, int64 (M,).
        confidences: mean probability of the decisions in each bin, float64 (M,); NaN in an empty bin.
        accuracies: share of correct decisions in each bin, float64 (M,); NaN in an empty bin.
    """

    counts: np.ndarray
    confidences: np.ndarray
    accuracies: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean absolute difference of accuracy and confidence."""
        used = self.counts > 0
        gaps = np.abs(self.accuracies[used] - self.confidences[used])
        return float((gaps * self.counts[used]).sum() / max(1, self.counts.sum()))


def reliability_of(
    task: Task, scores: np.ndarray, labels: np.ndarray, num_bins: int = NUM_BINS
) -> Reliability:
    """Compute the reliability of the probabilities of a split (Guo et al., ICML 2017, arXiv:1706.04599).

    Unreadable videos have no probability and are left out; in every accuracy, they count as incorrect.

    Args:
        task: kind of labels; `Task.confidences` defines the decisions.
        scores: probabilities, float (N, K). Rows of NaN are unreadable videos.
        labels: targets of the task.
        num_bins: number of bins of equal width.
    """
    readable = readable_videos(scores)
    confidence, correct = task.confidences(scores[readable], labels[readable])
    return reliability(confidence.astype(np.float64), correct, num_bins)


def reliability(confidence: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> Reliability:
    """Sort decisions into bins.

    Args:
        confidence: probability of each decision, float (M,).
        correct: whether each decision is correct, bool (M,).
        num_bins: number of bins of equal width.
    """
    bins = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            counts=counts,
            confidences=np.bincount(bins, confidence, num_bins) / counts,
            accuracies=np.bincount(bins, correct, num_bins) / counts,
        )

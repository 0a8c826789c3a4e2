"""Metrics of scores and their names."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np

from mmaction_lite.tasks.task import ClassResults

TITLES = {
    "mean_average_precision": "mAP",
    "top1": "top-1",
    "top5": "top-5",
    "mean_class": "mean class",
    "action_top1": "action top-1",
    "action_top5": "action top-5",
    "verb_top1": "verb top-1",
    "verb_top5": "verb top-5",
    "noun_top1": "noun top-1",
    "noun_top5": "noun top-5",
    "explained": "explained variance",
}
LONG_TITLES = {
    "mean_average_precision": "mean average precision",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_class": "mean-class accuracy",
    "explained": "explained variance of hidden pixels",
} | {name: f"{TITLES[name]} accuracy" for name in TITLES if name.startswith(("action", "verb", "noun"))}


# Metrics that are the share of the videos that are correct. The others are means over classes.
SHARES_OF_VIDEOS = frozenset(name for name in TITLES if name.endswith(("top1", "top5")))
NORMAL_QUANTILE = 1.959964  # of a two-sided interval of 95 %
MOST_DENSE_CLASSES = 1000  # the confusion matrix of more classes would take too much memory
BLOCK_BYTES = 32 << 20  # of the scores that are compared at once


def describe(
    values: dict[str, float],
    shown: Sequence[str],
    digits: int = 1,
    videos: int | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> str:
    """Return metrics as one line, such as `top-1 75.0%, top-5 92.0%`.

    Args:
        values: the metrics.
        shown: names of those to show, in order.
        digits: digits after the decimal point.
        videos: number of videos, to add the confidence interval of each accuracy; None: no intervals.
        intervals: further intervals, by name.
    """
    parts, ends = [], intervals_of(values, videos) | dict(intervals or {})
    for name in shown:
        interval = ""
        if name in ends:
            low, high = ends[name]
            interval = f" (95% interval {100 * low:.1f} to {high:.1%})"
        parts.append(f"{TITLES[name]} {values[name]:.{digits}%}{interval}")
    return ", ".join(parts)


@overload
def wilson_interval(correct: float, videos: int) -> tuple[float, float]: ...
@overload
def wilson_interval(correct: np.ndarray, videos: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
def wilson_interval(correct: Any, videos: Any) -> tuple[Any, Any]:
    """Return the 95 % confidence interval of an accuracy: Wilson's score interval (JASA 22, 1927).

    It lies between 0 and 1, also where no video or every video is correct.

    Args:
        correct: number of correct videos, or one number per class.
        videos: number of videos, or one number per class; 0 gives the interval from 0 to 1.

    Returns:
        lower and upper end of the interval.
    """
    n = np.maximum(videos, 1e-9)
    share, z2 = correct / n, NORMAL_QUANTILE**2
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_QUANTILE * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2)) / (1 + z2 / n)
    low, high = np.clip(center - half, 0, 1), np.clip(center + half, 0, 1)
    low, high = np.where(correct <= 0, 0.0, low), np.where(correct >= videos, 1.0, high)
    if isinstance(correct, np.ndarray):
        return low, high
    return float(low), float(high)


def intervals_of(metrics: dict[str, float], videos: int | None) -> dict[str, tuple[float, float]]:
    """Return the 95 % confidence intervals of the accuracies among `metrics`, by name.

    Args:
        metrics: metrics by name.
        videos: number of videos; None or 0 gives no interval.
    """
    if not videos:
        return {}
    return {
        name: wilson_interval(metrics[name] * videos, videos) for name in metrics if name in SHARES_OF_VIDEOS
    }


def row_blocks(scores: np.ndarray) -> Iterator[slice]:
    """Yield slices of the rows of (N, K) scores, small enough for temporary arrays of their size."""
    rows = max(1, BLOCK_BYTES // max(1, scores[:1].nbytes))
    for first in range(0, len(scores), rows):
        yield slice(first, first + rows)


def readable_videos(scores: np.ndarray) -> np.ndarray:
    """Return whether each row of the scores (N, K) is finite, bool (N,); others are unreadable videos."""
    found = np.empty(len(scores), bool)
    for block in row_blocks(scores):
        found[block] = np.isfinite(scores[block]).all(1)
    return found


def check_indices(labels: np.ndarray, num_classes: int) -> None:
    """Check that labels are class indices.

    Raises:
        ValueError: they are not integers, or out of range.
    """
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}; expected class indices")
    if not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(f"labels run from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}")


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rank of the true class of every video, float (N,), counted from 0.

    The rank is the number of other classes that score at least as high, so that ties do not improve it.
    Unreadable videos have rank infinity.

    Args:
        scores: float (N, K). Rows of NaN are unreadable videos.
        labels: class indices, int64 (N,).
    """
    own = scores[np.arange(len(labels)), labels]
    above = np.empty(len(scores), np.int64)
    for block in row_blocks(scores):
        above[block] = (scores[block] >= own[block, None]).sum(1)
    # A comparison with NaN is false: without this case an unreadable video would have rank -1.
    return np.where(np.isnan(own), np.inf, above - 1)


def top_k(rank: np.ndarray, k: int) -> float:
    """Return the share of the videos whose true class has a rank below `k`; see `ranks`."""
    return float((rank < k).mean())


def mean_class_accuracy(rank: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over the classes that have videos of their top-1 accuracy.

    Args:
        rank: see `ranks`, (N,).
        labels: class indices, int64 (N,).
    """
    videos = np.bincount(labels)
    correct = np.bincount(labels[rank == 0], minlength=len(videos))
    return float(np.mean(correct[videos > 0] / videos[videos > 0]))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the average precision of every class, float64 (K,); NaN for a class without videos.

    The average precision is the mean, over the videos of a class, of the precision among all videos that
    score at least as high: the area under the precision-recall curve as a step function, without
    interpolation. Unreadable videos, rows of NaN, are retrieved for no class.

    Args:
        scores: float (N, K).
        labels: bool (N, K).
    """
    found = np.full(labels.shape[1], np.nan)
    for k in np.flatnonzero(labels.any(0)):
        is_read = ~np.isnan(scores[:, k])
        everything, own = np.sort(scores[is_read, k]), np.sort(scores[is_read & labels[:, k], k])
        above, own_above = (len(s) - np.searchsorted(s, own) for s in (everything, own))
        found[k] = (own_above / above).sum() / labels[:, k].sum()
    return found


def confusion(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Return counts, int64 (K, K): row = true class, column = predicted class. Both inputs are int (N,)."""
    pairs = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_results(
    correct: np.ndarray,
    predicted: np.ndarray,
    videos: np.ndarray,
    *,
    title: str = "",
    first: int = 0,
    confusion: np.ndarray | None = None,
    mistakes: np.ndarray | None = None,
    average_precision: np.ndarray | None = None,
) -> ClassResults:
    """Compute recall (the accuracy of a class), precision and F1 of every class.

    Args:
        correct: int (K,), videos of the class that were predicted as this class.
        predicted: int (K,), videos that were predicted as the class.
        videos: int (K,), videos of each class, unreadable ones included: they count as incorrect.
        title: see `ClassResults`, as the arguments below.
        first: index of the first class.
        confusion: counts of true and predicted classes.
        mistakes: counts of incorrect pairs of classes.
        average_precision: of every class.
    """
    with np.errstate(invalid="ignore"):
        return ClassResults(
            title=title,
            first=first,
            confusion=confusion,
            mistakes=mistakes,
            videos=videos,
            correct=correct,
            recall=correct / videos,
            precision=correct / predicted,
            f1=2 * correct / (videos + predicted),
            average_precision=average_precision,
        )


def single_label_results(
    scores: np.ndarray, labels: np.ndarray, *, title: str = "", first: int = 0
) -> ClassResults:
    """Compute the results of classes that exclude each other.

    Args:
        scores: float (N, K). Rows of NaN, unreadable videos, count as incorrect.
        labels: class indices, int64 (N,).
        title: see `ClassResults`.
        first: see `ClassResults`.
    """
    num_classes = scores.shape[1]
    is_read = readable_videos(scores)
    true, predicted = labels[is_read].astype(np.int64), scores.argmax(1)[is_read]
    is_dense = num_classes <= MOST_DENSE_CLASSES
    return class_results(
        np.bincount(true[true == predicted], minlength=num_classes),
        np.bincount(predicted, minlength=num_classes),
        np.bincount(labels, minlength=num_classes),
        title=title,
        first=first,
        confusion=confusion(true, predicted, num_classes) if is_dense else None,
        mistakes=count_mistakes(true, predicted, num_classes),
    )


def count_mistakes(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the incorrect pairs of classes: int64 (M, 3), true class, predicted class, videos; most first."""
    is_wrong = labels != predictions
    cells, videos = np.unique(
        labels[is_wrong].astype(np.int64) * num_classes + predictions[is_wrong], return_counts=True
    )
    order = np.argsort(-videos, kind="stable")
    return np.stack([*np.divmod(cells[order], num_classes), videos[order]], 1)


def worst_videos(scores: np.ndarray, is_true: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the incorrectly predicted videos with the lowest probability of a true class.

    A video is incorrect when its best class is not one of its true classes. Unreadable videos, rows of NaN,
    and videos without a class are left out.

    Args:
        scores: float (N, K).
        is_true: bool (N, K), or the class index of each video, int64 (N,).
        most: length of the list at most.

    Returns:
        indices int64 (n,), and the lowest score of their true classes, float (n,).
    """
    predicted, rows = scores.argmax(1), np.arange(len(scores))
    if is_true.ndim == 1:
        true_scores, is_wrong = scores[rows, is_true], predicted != is_true
    else:
        true_scores = np.full(len(scores), np.inf, scores.dtype)
        for block in row_blocks(scores):  # of several true classes, the one with the lowest score
            true_scores[block] = np.where(is_true[block], scores[block], np.inf).min(1)
        is_wrong = ~is_true[rows, predicted] & is_true.any(1)
    candidates = np.flatnonzero(readable_videos(scores) & is_wrong)
    chosen = candidates[np.argsort(true_scores[candidates], kind="stable")][:most]
    return chosen, true_scores[chosen]

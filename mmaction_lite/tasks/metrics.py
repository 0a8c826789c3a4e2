"""What scores are worth."""

from dataclasses import dataclass

import numpy as np

TITLES = {
    "mean_average_precision": "mAP",
    "top1": "top-1",
    "top5": "top-5",
    "mean_class": "mean class",
}


def metrics(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What `TITLES` names, from 0 to 1; the first is the one by which weights are chosen.

    top1 and top5: the share of the videos whose class is among the best one or five. A class counts as
    within the top k when fewer than k classes score at least as high, so that ties are no gain. mean_class:
    the mean over the classes that have videos of the share that is right (top-1). For videos with any number
    of classes, mean_average_precision (see `average_precision`, the mean over the classes that have videos)
    and top1: the share of the videos whose best class is one of theirs.

    Args:
        scores: float (N, K). Rows of NaN, unreadable videos, count as wrong.
        labels: int64 (N,), or multi-label bool (N, K).
    """
    if labels.ndim == 2:
        best = np.nan_to_num(scores, nan=-1).argmax(1)
        correct = labels[np.arange(len(labels)), best] & ~np.isnan(scores).any(1)
        precision = average_precision(scores, labels)
        mean = float(np.nanmean(precision)) if labels.any() else 0.0
        return {"mean_average_precision": mean, "top1": float(correct.mean())}
    own = scores[np.arange(len(labels)), labels]
    # A comparison with NaN is false, so unreadable videos need their own place behind all others.
    rank = np.where(np.isnan(own), np.inf, (scores >= own[:, None]).sum(1) - 1)
    correct = rank == 0
    present = np.unique(labels)
    return {
        "top1": float(correct.mean()),
        "top5": float((rank < 5).mean()),
        "mean_class": float(np.mean([correct[labels == label].mean() for label in present])),
    }


def describe(values: dict[str, float], num_classes: int, digits: int = 1) -> str:
    """Metrics in words; without top-5 where the class is always among five."""
    shown = [name for name in TITLES if name in values and (name != "top5" or num_classes > 5)]
    return ", ".join(f"{TITLES[name]} {values[name]:.{digits}%}" for name in shown)


def average_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Average precision of every class, float64 (K,); NaN for a class without videos.

    The mean over the videos of a class of the precision among all videos that score at least as high: the
    area under the precision-recall curve as a step function, without interpolation. Unreadable videos,
    rows of NaN, are found by no class.

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
    """Counts, int64 (K, K): row = true class, column = predicted class. Both inputs are int (N,)."""
    pairs = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


@dataclass(frozen=True, eq=False)
class ClassMetrics:
    """Per class, arrays (K,): videos int64; recall, precision, f1 float64, NaN where nothing is divided."""

    videos: np.ndarray
    recall: np.ndarray
    precision: np.ndarray
    f1: np.ndarray


def class_metrics(correct: np.ndarray, predicted: np.ndarray, videos: np.ndarray) -> ClassMetrics:
    """Recall (the class's accuracy), precision and F1 of every class.

    Args:
        correct: int (K,), videos of the class that were predicted to be.
        predicted: int (K,), videos that were predicted to be of the class.
        videos: int (K,), videos of each class, unreadable ones included: they count as wrong.
    """
    with np.errstate(invalid="ignore"):
        return ClassMetrics(videos, correct / videos, correct / predicted, 2 * correct / (videos + predicted))


def most_confused(matrix: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """The commonest mistakes of a confusion matrix (K, K): (true, predicted, videos), most videos first."""
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = ((*divmod(int(cell), len(matrix)), int(mistakes.flat[cell])) for cell in order)
    return [pair for pair in pairs if pair[2]]

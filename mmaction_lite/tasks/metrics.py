"""Metrics of scores and their names."""

from collections.abc import Sequence

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
}
LONG_TITLES = {
    "mean_average_precision": "mean average precision",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_class": "mean-class accuracy",
} | {name: f"{TITLES[name]} accuracy" for name in TITLES if name.startswith(("action", "verb", "noun"))}


def describe(values: dict[str, float], shown: Sequence[str], digits: int = 1) -> str:
    """Return the metrics named in `shown` as one line, such as `top-1 75.0%, top-5 92.0%`."""
    return ", ".join(f"{TITLES[name]} {values[name]:.{digits}%}" for name in shown)


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
    # A comparison with NaN is false: without this case an unreadable video would have rank -1.
    return np.where(np.isnan(own), np.inf, (scores >= own[:, None]).sum(1) - 1)


def top_k(rank: np.ndarray, k: int) -> float:
    """Return the share of the videos whose true class has a rank below `k`; see `ranks`."""
    return float((rank < k).mean())


def mean_class_accuracy(rank: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over the classes that have videos of their top-1 accuracy.

    Args:
        rank: see `ranks`, (N,).
        labels: class indices, int64 (N,).
    """
    correct = rank == 0
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))


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
        average_precision: of every class.
    """
    with np.errstate(invalid="ignore"):
        return ClassResults(
            title=title,
            first=first,
            confusion=confusion,
            videos=videos,
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
    is_read = np.isfinite(scores).all(1)
    matrix = confusion(labels[is_read], scores[is_read].argmax(1), num_classes)
    videos = np.bincount(labels, minlength=num_classes)
    return class_results(np.diag(matrix), matrix.sum(0), videos, title=title, first=first, confusion=matrix)


def most_confused(matrix: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """Return the commonest mistakes of a confusion matrix (K, K): (true, predicted, videos), most first."""
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:most]
    pairs = ((*divmod(int(cell), len(matrix)), int(mistakes.flat[cell])) for cell in order)
    return [pair for pair in pairs if pair[2]]


def worst_videos(scores: np.ndarray, is_true: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the incorrectly predicted videos with the lowest probability of a true class.

    A video is incorrect when its best class is not one of its true classes. Unreadable videos, rows of NaN,
    and videos without a class are left out.

    Args:
        scores: float (N, K).
        is_true: bool (N, K).
        most: length of the list at most.

    Returns:
        indices int64 (n,), and the lowest score of their true classes, float (n,).
    """
    readable = np.flatnonzero(np.isfinite(scores).all(1))
    scores, is_true = scores[readable], is_true[readable]
    # Of several true classes, the one with the lowest score.
    true_scores = np.where(is_true, scores, np.inf).min(axis=1)
    order = np.argsort(true_scores, kind="stable")
    wrong = order[~is_true[order, scores.argmax(axis=1)[order]] & is_true[order].any(axis=1)][:most]
    return readable[wrong], true_scores[wrong]

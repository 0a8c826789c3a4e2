"""Confidence intervals of metrics that are means over classes, from resampled videos."""

from collections.abc import Collection

import numpy as np

from mmaction_lite.tasks.task import Task

RESAMPLES = 1000
FEWEST_RESAMPLES = 200  # below, the ends of an interval are too uncertain
MOST_VALUES = 200_000_000  # resampled values of one metric; takes a few seconds
MOST_VIDEOS = 4_000_000  # resampled videos in memory at once


def bootstrap_intervals(
    task: Task, scores: np.ndarray, targets: np.ndarray, names: Collection[str], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of the mean class accuracy and of the mean average precision, by name.

    Each resample draws as many videos as there are, with replacement; the ends are the 2.5th and the 97.5th
    percentile of the metric over the resamples (Efron, Annals of Statistics 7, 1979). Resampling a large
    split would take minutes; it gets no interval. Neither does a metric that is equal in all resamples, as if
    every video is correct: its interval would have no width, which claims certainty.

    Args:
        task: kind of labels.
        scores: probabilities, float (N, K). Rows of NaN, unreadable videos, count as incorrect.
        targets: see `Task.targets`.
        names: metrics of the task; others than these two have no interval here.
        seed: of the resamples.
    """
    found, (num_videos, num_classes) = {}, scores.shape
    rng = np.random.default_rng(seed)
    sizes = {"mean_class": num_classes, "mean_average_precision": num_videos * num_classes}
    for name in sizes.keys() & set(names):
        number = min(RESAMPLES, MOST_VALUES // max(1, sizes[name]))
        if not num_videos or number < FEWEST_RESAMPLES:
            continue
        if name == "mean_class":
            values = _mean_class(task.are_correct(scores, targets), targets, number, rng)
        else:
            block = max(1, MOST_VIDEOS // num_videos)
            sizes_of_blocks = [min(block, number - first) for first in range(0, number, block)]
            values = np.concatenate(
                [_mean_average_precision(scores, targets, size, rng) for size in sizes_of_blocks]
            )
        low, high = np.percentile(values, [2.5, 97.5])
        if low < high:
            found[name] = float(low), float(high)
    return found


def _mean_class(correct: np.ndarray, labels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return `mean_class_accuracy` of resamples, float (number,), from the counts of each class."""
    videos = np.bincount(labels)
    right = np.bincount(labels[correct], minlength=len(videos))[videos > 0]
    counts = np.concatenate([right, videos[videos > 0] - right])
    # Drawing N videos with replacement draws these numbers of correct and incorrect videos of each class.
    drawn = rng.multinomial(len(labels), counts / len(labels), number)
    right, wrong = drawn[:, : len(right)], drawn[:, len(right) :]
    videos = right + wrong  # a class without videos in a resample is left out of its mean
    return (right / np.maximum(videos, 1)).sum(1) / (videos > 0).sum(1)


def _mean_average_precision(
    scores: np.ndarray, labels: np.ndarray, number: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the mean of `average_precision` over the classes of resamples, float (number,)."""
    times = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), number)  # each video occurs
    total, classes = np.zeros(number), np.zeros(number)
    for k in np.flatnonzero(labels.any(0)):
        order = np.flatnonzero(~np.isnan(scores[:, k]))
        order = order[np.argsort(-scores[order, k], kind="stable")]
        own = np.flatnonzero(labels[order, k])
        # Videos of equal scores are retrieved together: count up to the last one of them.
        last = np.searchsorted(-scores[order, k], -scores[order[own], k], side="right") - 1
        chosen = times[:, order]
        retrieved = chosen.cumsum(1)[:, last]
        true = (chosen * labels[order, k]).cumsum(1)[:, last]
        precision = chosen[:, own] * true / np.maximum(retrieved, 1)
        videos = times[:, labels[:, k]].sum(1)
        total += precision.sum(1) / np.maximum(videos, 1)
        classes += videos > 0
    return total / np.maximum(classes, 1)

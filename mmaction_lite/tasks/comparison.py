"""Compare two models on the same videos: which videos flipped, and whether the difference is significant."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmaction_lite.tasks.score_files import Scores

RESAMPLES = 10_000  # of the bootstrap


class Comparison(NamedTuple):
    """Difference of the top-1 accuracies of two score files, `after` minus `before`.

    Args:
        difference: difference of the accuracies; those of actions in verb-noun tasks.
        low: lower end of its 95 % interval, from a paired bootstrap over the videos.
        high: upper end of that interval.
        p_value: two-sided exact test of McNemar.
        fixed: rows of the videos that `before` predicts incorrectly and `after` correctly, int64.
        broken: rows of the videos that `before` predicts correctly and `after` incorrectly, int64.
        both_correct: number of videos that both predict correctly.
        both_incorrect: number of videos that both predict incorrectly.
    """

    difference: float
    low: float
    high: float
    p_value: float
    fixed: np.ndarray
    broken: np.ndarray
    both_correct: int
    both_incorrect: int


def compare(before: Scores, after: Scores, seed: int = 0) -> Comparison:
    """Compare two aligned score files. Unreadable videos count as incorrect.

    Args:
        before: scores of the first model.
        after: scores of the second model, of the same videos in the same order; see `align`.
        seed: of the bootstrap.
    """
    was, now = (table.task.are_correct(table.scores, table.labels) for table in (before, after))
    fixed, broken = np.flatnonzero(~was & now), np.flatnonzero(was & ~now)
    num_videos = len(was)
    counts = np.array([len(fixed), len(broken), num_videos - len(fixed) - len(broken)])
    # Drawing N videos with replacement draws the numbers of fixed, broken and other videos.
    drawn = np.random.default_rng(seed).multinomial(num_videos, counts / num_videos, RESAMPLES)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / num_videos, [2.5, 97.5])
    return Comparison(
        difference=float(now.mean() - was.mean()),
        low=float(low),
        high=float(high),
        p_value=mcnemar(len(fixed), len(broken)),
        fixed=fixed,
        broken=broken,
        both_correct=int((was & now).sum()),
        both_incorrect=int((~was & ~now).sum()),
    )


def mcnemar(fixed: int, broken: int) -> float:
    """Return the p-value of McNemar's two-sided exact test (Psychometrika 12, 1947).

    Under the null hypothesis, each of the n videos on which the models disagree is equally likely to be
    correct in either, so that the smaller count follows the binomial distribution B(n, 1/2).

    Args:
        fixed: videos that only the second model predicts correctly.
        broken: videos that only the first model predicts correctly.
    """
    number, smaller = fixed + broken, min(fixed, broken)
    if not number:
        return 1.0
    # The largest term of the tail, and the others by their ratio, from the largest to the smallest.
    term = math.exp(
        math.lgamma(number + 1)
        - math.lgamma(smaller + 1)
        - math.lgamma(number - smaller + 1)
        - number * math.log(2)
    )
    tail = 0.0
    for k in range(smaller, -1, -1):
        tail += term
        if term < 1e-17 * tail:
            break
        term *= k / (number - k + 1)
    return min(1.0, 2 * tail)


def predicted_names(table: Scores, rows: Sequence[int] | np.ndarray) -> list[str]:
    """Return the names of the predicted classes, or actions, of some videos; "unreadable" without scores."""
    names = []
    for row in np.asarray(rows, np.int64).tolist():
        scores = table.scores[row]
        is_read = bool(np.isfinite(scores).all())
        names.append(table.task.ranked(scores, table.class_names)[0][0] if is_read else "unreadable")
    return names

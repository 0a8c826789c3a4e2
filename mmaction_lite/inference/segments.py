"""Segments of actions from the scores of sliding windows: the best path, or hysteresis; borders, merging.

A window decides about the time around its center. The decisions of neighbouring windows differ at a border,
which lies midway between their centers:

    window k      ├───────●───────┤             decision: jump
    window k + 1      ├───────●───────┤         decision: run
    border                  │                   jump ends here, run begins

The border in frames is the first frame presented at this time or later. The first window of a video decides
for its beginning too, and the last one for its end.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from mmaction_lite.data.sources.packets import EARLY_SECONDS
from mmaction_lite.errors import UserError, nearest
from mmaction_lite.inference.segment_path import best_paths
from mmaction_lite.inference.windows import WindowPlan
from mmaction_lite.settings import NonNegativeFloat, Probability, check_fields
from mmaction_lite.tasks.task import Task

COLUMNS = 64  # classes that are smoothed, or labels whose paths are found, at once; bounds the memory
LEAST_SCORE = 0.02  # lower scores count as this one, so that a single window cannot decide about a segment


class Segment(NamedTuple):
    """An action in a video.

    Args:
        label: name of the class.
        start_seconds: start after frame 0, the presentation time of `first_frame`.
        end_seconds: end, the presentation time of `end_frame`, or the end of the video.
        first_frame: first frame.
        end_frame: frame after the last one.
        score: mean probability of the class in the windows of the segment, before smoothing.
    """

    label: str
    start_seconds: float
    end_seconds: float
    first_frame: int
    end_frame: int
    score: float


@dataclass(frozen=True, kw_only=True)
class PathRule:
    """Make segments by the most probable sequence of classes, in which every change of class has a cost.

    Every window has a class; see `best_paths`. If a clip may have several classes, each of them is present or
    absent.

    Args:
        switch: cost of a change of class in seconds. A change is worth its cost if the other class is e ≈ 2.7
            times as probable for this time, or twice as probable for 1.4 times this time.
        threshold: segments with a lower mean score are left out.
        background: see `SegmentRule`.
        min_length: segments that are shorter, in seconds, do not occur. The path takes this into account.
        merge: see `SegmentRule`.

    Raises:
        UserError: a value is out of range.
    """

    switch: NonNegativeFloat = 1.5
    threshold: Probability = 0.3
    background: tuple[str, ...] = ()
    min_length: NonNegativeFloat = 0.0
    merge: NonNegativeFloat = 0.0

    def __post_init__(self):
        check_fields(self)

    def __str__(self) -> str:
        """Return the rule as a line to print and store with the segments."""
        parts = [f"best path, switch {self.switch:g} s", f"threshold {self.threshold:g}"]
        return "; ".join(parts + _describe_common(self))


@dataclass(frozen=True, kw_only=True)
class SegmentRule:
    """Make segments by two thresholds for the scores of windows.

    Args:
        smooth: length of the centered moving average over the scores in seconds; 0: no smoothing.
        enter: a segment of a class begins where its smoothed score reaches this value and, unless a clip may
            have several classes, is the highest one.
        leave: it ends where its smoothed score falls below this value, or where a segment of another class
            begins.
        background: classes that mean that nothing happens. They have no segments.
        min_length: shorter segments are left out, in seconds.
        merge: segments of a class with a gap of at most this length between them become one, in seconds.

    Raises:
        UserError: a value is out of range, or `leave` is above `enter`.
    """

    smooth: NonNegativeFloat = 1.0
    enter: Probability = 0.5
    leave: Probability = 0.3
    background: tuple[str, ...] = ()
    min_length: NonNegativeFloat = 0.0
    merge: NonNegativeFloat = 0.0

    def __post_init__(self):
        check_fields(self)
        if self.leave > self.enter:
            raise UserError(
                f"SegmentRule: leave is {self.leave} and enter is {self.enter}; expected leave at most "
                "as high as enter"
            )

    def __str__(self) -> str:
        """Return the rule as a line to print and store with the segments."""
        parts = [f"smoothed over {self.smooth:g} s", f"enter {self.enter:g}, leave {self.leave:g}"]
        return "; ".join(parts + _describe_common(self))


Rule = PathRule | SegmentRule


def _describe_common(rule: Rule) -> list[str]:
    """Return the settings that both rules have, if they are not the default."""
    parts = [f"background {', '.join(rule.background)}"] if rule.background else []
    parts += [f"at least {rule.min_length:g} s"] if rule.min_length else []
    return parts + ([f"gaps up to {rule.merge:g} s merged"] if rule.merge else [])


def check_background(rule: Rule, classes: Sequence[str]) -> None:
    """Check that the background classes of a rule are among the class names.

    Raises:
        UserError: a class is not.
    """
    for name in rule.background:
        if name not in classes:
            raise UserError(f"background {name!r}: is not a class; {nearest(name, classes)}")


@dataclass(kw_only=True)
class WindowScores:
    """Scores of the windows of a video.

    Args:
        plan: the windows.
        classes: class names in the order of the scores.
        task: kind of labels.
        times: presentation times of all frames in seconds after frame 0, float64 (frames,).
        numbers: numbers of the windows, ascending, int64 (n,). Windows without a readable frame are missing.
        scores: probabilities, float32 (n, K).
        notes: what is unusual about the video, and its unreadable parts.
        is_complete: whether all windows of the video were read.
    """

    plan: WindowPlan
    classes: tuple[str, ...]
    task: Task
    times: np.ndarray
    numbers: np.ndarray
    scores: np.ndarray
    notes: tuple[str, ...] = ()
    is_complete: bool = True

    @cached_property
    def duration(self) -> float:
        """Length of the video in seconds: the end of its last frame."""
        return self.plan.duration(float(self.times[-1]))

    @cached_property
    def centers(self) -> np.ndarray:
        """Centers of the windows in seconds, float64 (n,); of the last one, that of its frames."""
        starts = self.numbers * self.plan.stride
        return (starts + np.minimum(starts + self.plan.seconds, self.duration)) / 2


def find_segments(windows: WindowScores, rule: Rule) -> list[Segment]:
    """Return the segments of a video in order of their start.

    Each group of classes of the task has one class at a time (`Task.exclusive_groups`); segments of different
    groups may overlap, as several labels, or a verb and a noun, do. No segment continues across missing
    windows.

    Raises:
        UserError: a background class of the rule does not exist.
    """
    check_background(rule, windows.classes)
    if not len(windows.numbers):
        return []
    found = []
    for group, decisions in _decisions(windows, rule):
        runs = _merged(list(_runs(decisions, windows.numbers)), windows, rule)
        found += [_segment(run, group.start, windows) for run in runs]
    if isinstance(rule, PathRule):
        found = [segment for segment in found if segment.score >= rule.threshold]
    return sorted(found, key=lambda segment: (segment.start_seconds, segment.label))


def _decisions(windows: WindowScores, rule: Rule) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield each group of classes with the class of every window in it, int64 (n,); -1: none."""
    is_background = np.array([name in rule.background for name in windows.classes])
    groups = windows.task.exclusive_groups(len(windows.classes))
    if isinstance(rule, SegmentRule):
        smoothed = _smoothed(windows, rule)
        for group in groups:
            yield group, _decide(smoothed[:, group], is_background[group], rule, windows.numbers)
    elif all(group.stop - group.start == 1 for group in groups):  # several labels
        for first in range(0, len(groups), COLUMNS):
            some = groups[first : first + COLUMNS]
            scores = windows.scores[:, some[0].start : some[-1].stop]
            paths = _paths(windows, np.stack([scores, 1 - scores], 2), rule, has_none=True)
            paths[:, is_background[some[0].start : some[-1].stop]] = -1
            yield from zip(some, paths.T, strict=True)
    else:
        for group in groups:
            background = is_background[group]
            scores = windows.scores[:, group]
            if background.any():
                none = scores[:, background].sum(1, keepdims=True)
                scores = np.concatenate([scores[:, ~background], none], 1)
            path = _paths(windows, scores[:, None], rule, has_none=bool(background.any()))[:, 0]
            yield group, np.append(np.flatnonzero(~background), -1)[path]


def _paths(windows: WindowScores, scores: np.ndarray, rule: PathRule, *, has_none: bool) -> np.ndarray:
    """Return the state of every window on the best paths, int64 (n, G); -1: the last state, if it is "none".

    Args:
        windows: the windows.
        scores: probabilities of the states, float32 (n, G, S).
        rule: the costs.
        has_none: whether the last state means that nothing happens. It has no minimum length.
    """
    stride = windows.plan.stride
    min_windows = np.full(scores.shape[2], max(1, math.ceil(rule.min_length / stride - 1e-6)))
    if has_none:
        min_windows[-1] = 1
    evidence = np.log(np.clip(np.nan_to_num(scores), LEAST_SCORE, 1)) * np.float32(stride)
    runs = _consecutive(windows.numbers)
    states = np.concatenate([best_paths(evidence[run], rule.switch, min_windows) for run in runs])
    if has_none:
        states[states == scores.shape[2] - 1] = -1
    return states


def _smoothed(windows: WindowScores, rule: SegmentRule) -> np.ndarray:
    """Return the moving average of the scores over consecutive windows, float32 (n, K)."""
    reach = int(rule.smooth / windows.plan.stride / 2 + 1e-6)
    if not reach:
        return windows.scores
    smoothed = np.empty_like(windows.scores)
    for run in _consecutive(windows.numbers):
        count = run.stop - run.start
        first = np.maximum(np.arange(count) - reach, 0)
        after = np.minimum(np.arange(count) + reach + 1, count)
        for column in range(0, windows.scores.shape[1], COLUMNS):
            columns = slice(column, column + COLUMNS)
            sums = np.cumsum(windows.scores[run, columns], axis=0, dtype=np.float64)
            sums = np.concatenate([np.zeros_like(sums[:1]), sums])
            smoothed[run, columns] = (sums[after] - sums[first]) / (after - first)[:, None]
    return smoothed


def _consecutive(numbers: np.ndarray) -> list[slice]:
    """Return the runs of windows without a missing one between them."""
    cuts = [0, *(np.flatnonzero(np.diff(numbers) > 1) + 1).tolist(), len(numbers)]
    return [slice(first, after) for first, after in pairwise(cuts)]


def _decide(
    scores: np.ndarray, is_background: np.ndarray, rule: SegmentRule, numbers: np.ndarray
) -> np.ndarray:
    """Return the class of every window, int64 (n,); -1: none.

    Args:
        scores: smoothed, (n, classes of the group).
        is_background: bool (classes of the group,).
        rule: the thresholds.
        numbers: of the windows; after a missing one, the decision begins without a class.
    """
    best = scores.argmax(1)
    highest = scores[np.arange(len(scores)), best]
    begins = highest >= rule.enter
    decisions = np.full(len(scores), -1, np.int64)
    if not begins.any():
        return decisions
    current, before = -1, numbers[0]
    for row, (chosen, is_sure, number) in enumerate(
        zip(best.tolist(), begins.tolist(), numbers.tolist(), strict=True)
    ):
        if number > before + 1:
            current = -1
        before = number
        if current >= 0 and not scores[row, current] >= rule.leave:
            current = -1
        if is_sure and chosen != current:
            current = -1 if is_background[chosen] else chosen
        decisions[row] = current
    return decisions


class _Run(NamedTuple):
    """Consecutive windows `first` to `after` (rows, exclusive) of one class."""

    label: int
    first: int
    after: int


def _runs(decisions: np.ndarray, numbers: np.ndarray) -> Iterator[_Run]:
    """Yield the runs of equal decisions other than -1; a missing window ends a run."""
    changes = (np.diff(decisions) != 0) | (np.diff(numbers) > 1)
    cuts = [0, *(np.flatnonzero(changes) + 1).tolist(), len(decisions)]
    for first, after in pairwise(cuts):
        if decisions[first] >= 0:
            yield _Run(int(decisions[first]), first, after)


def _merged(runs: list[_Run], windows: WindowScores, rule: Rule) -> list[_Run]:
    """Merge runs of a class across short gaps, and leave out short runs."""
    joined: list[_Run] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last and last.label == run.label and rule.merge:
            gap = _bounds(run, windows)[0] - _bounds(last, windows)[1]
            if gap <= rule.merge + EARLY_SECONDS:
                joined[-1] = _Run(run.label, last.first, run.after)
                continue
        joined.append(run)
    lengths = [end - start for start, end in (_bounds(run, windows) for run in joined)]
    shortest = rule.min_length - EARLY_SECONDS
    return [run for run, length in zip(joined, lengths, strict=True) if length >= shortest]


def _bounds(run: _Run, windows: WindowScores) -> tuple[float, float]:
    """Return start and end of a run in seconds; see the text at the top of the module."""
    numbers, centers, stride = windows.numbers, windows.centers, windows.plan.stride
    first, last = run.first, run.after - 1
    if first and numbers[first - 1] + 1 == numbers[first]:
        start = (centers[first - 1] + centers[first]) / 2
    else:
        start = 0.0 if numbers[first] == 0 else centers[first] - stride / 2
    if run.after < len(numbers) and numbers[last] + 1 == numbers[run.after]:
        end = (centers[last] + centers[run.after]) / 2
    else:
        is_last = windows.plan.end(int(numbers[last])) >= windows.duration - EARLY_SECONDS
        end = windows.duration if is_last else centers[last] + stride / 2
    return float(start), float(end)


def _segment(run: _Run, first_class: int, windows: WindowScores) -> Segment:
    """Return a run as a segment, with borders at frames."""
    times = windows.times
    bounds = np.array(_bounds(run, windows))
    first, end = np.searchsorted(times, bounds - EARLY_SECONDS).tolist()
    first = min(first, len(times) - 1)
    end = max(end, first + 1)
    label = first_class + run.label
    return Segment(
        label=windows.classes[label],
        start_seconds=float(times[first]),
        end_seconds=float(times[end]) if end < len(times) else windows.duration,
        first_frame=first,
        end_frame=end,
        score=float(windows.scores[run.first : run.after, label].mean()),
    )

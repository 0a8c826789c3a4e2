"""Compare the segments that were found in a video with its annotated actions."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.errors import UserError
from mmaction_lite.inference.segments import Segment

LEAST_IOU = 0.5  # intersection over union of a match


class Action(NamedTuple):
    """An annotated action in a video, in seconds after frame 0."""

    label: str
    start: float
    end: float


class SegmentScore(NamedTuple):
    """Result of a comparison.

    Args:
        num_matched: segments that match an action.
        num_segments: segments that were found.
        num_actions: annotated actions.
    """

    num_matched: int
    num_segments: int
    num_actions: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 if there are neither segments nor actions."""
        total = self.num_segments + self.num_actions
        return 2 * self.num_matched / total if total else 1.0


def actions_of(samples: Samples) -> dict[Path, list[Action]]:
    """Return the annotated actions of every video; an action of several classes is one of each class.

    Raises:
        UserError: the samples have no start and end in seconds.
    """
    if samples.segments is None or samples.segments_in_frames:
        raise UserError(
            f"{samples.source}: does not say when the actions happen; expected the columns start_seconds and "
            "end_seconds"
        )
    actions: dict[Path, list[Action]] = {}
    for sample, (start, end) in enumerate(samples.segments.tolist()):
        own = actions.setdefault(samples.path(sample), [])
        own += [Action(label, start, end) for label in samples.class_names(sample)]
    return actions


def match_segments(
    segments: Iterable[Segment], actions: Sequence[Action], least_iou: float = LEAST_IOU
) -> SegmentScore:
    """Count the segments that match an action.

    A segment matches an action of the same class if the intersection of both is at least `least_iou` of their
    union in time. Every action matches at most one segment. Segments with the highest scores choose first, as
    in the evaluation of ActivityNet.

    Args:
        segments: the segments of a video.
        actions: its actions.
        least_iou: least intersection over union.
    """
    free, num_matched, num_segments = list(actions), 0, 0
    for segment in sorted(segments, key=lambda segment: -segment.score):
        num_segments += 1
        overlaps = {action: _iou(segment, action) for action in free if action.label == segment.label}
        best = max(overlaps, key=overlaps.__getitem__, default=None)
        if best is not None and overlaps[best] >= least_iou:
            free.remove(best)
            num_matched += 1
    return SegmentScore(num_matched, num_segments, len(actions))


def _iou(segment: Segment, action: Action) -> float:
    shared = min(segment.end_seconds, action.end) - max(segment.start_seconds, action.start)
    both = max(segment.end_seconds, action.end) - min(segment.start_seconds, action.start)
    return shared / both if both > 0 else 0.0

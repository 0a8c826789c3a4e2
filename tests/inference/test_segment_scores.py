"""Segments match annotated actions by class and overlap in time."""

import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from mmaction_lite.inference.segment_scores import Action, SegmentScore, actions_of, match_segments
from mmaction_lite.inference.segments import Segment


def segment(label: str, start: float, end: float, score: float = 0.9) -> Segment:
    return Segment(label, start, end, round(start * 25), round(end * 25), score)


def test_segments_match_actions_of_their_class_once():
    actions = [Action("up", 0, 4), Action("down", 4, 8), Action("up", 10, 14)]
    found = [
        segment("up", 1, 4),  # intersection over union 0.75
        segment("up", 0, 4, 0.8),  # its action is taken
        segment("down", 5, 11),  # 3 / 7
        segment("down", 10, 14),  # another class
        segment("up", 10, 12),  # exactly one half
    ]
    score = match_segments(found, actions)
    assert score == SegmentScore(2, 5, 3)
    assert score.f1 == pytest.approx(2 * 2 / 8)
    assert match_segments(found, actions, 0.6).num_matched == 1
    assert match_segments([], []).f1 == 1
    assert match_segments([], actions).f1 == 0


def test_actions_of_a_table(tmp_path):
    table = tmp_path / "test.csv"
    table.write_text("path,label,start_seconds,end_seconds\na.mp4,up,0,2\nb.mp4,down,1,2\na.mp4,down,3,4\n")
    actions = actions_of(read_split(table, "test"))
    assert actions[tmp_path / "a.mp4"] == [Action("up", 0, 2), Action("down", 3, 4)]
    assert actions[tmp_path / "b.mp4"] == [Action("down", 1, 2)]
    table.write_text("path,label\na.mp4,up\n")
    with pytest.raises(UserError, match="does not say when"):
        actions_of(read_split(table, "test"))

"""Segments follow the documented rules for borders, hysteresis, merging and missing windows."""

from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.inference.segments import PathRule, Segment, SegmentRule, WindowScores, find_segments
from mmaction_lite.inference.windows import Windows
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.verb_noun import VerbNoun

VIEWS = TestViews(clips=SegmentFrames(num_segments=4), crop=CenterCrop(size=(8, 8)))
SHARP = SegmentRule(smooth=0.0)


def scored(rows, numbers=None, task=None, classes=("none", "run", "jump"), times=None, seconds=2.0):
    """Windows of 2 s every 1 s; window k has its center at k + 1 s."""
    numbers = np.arange(len(rows)) if numbers is None else np.array(numbers)
    times = np.arange((numbers[-1] + 2) * 10) / 10 if times is None else times
    plan = Windows(seconds=seconds, stride=1.0).plan(Protocol(views=VIEWS), 10.0)
    return WindowScores(
        plan=plan,
        classes=classes,
        task=task or SingleLabel(),
        times=times,
        numbers=numbers,
        scores=np.array(rows, np.float32),
    )


def scores_of(labels, high=0.8):
    low = (1 - high) / 2
    return [[high if k == label else low for k in range(3)] for label in labels]


def bounds(segments):
    return [(s.label, round(s.start_seconds, 3), round(s.end_seconds, 3)) for s in segments]


def test_borders_lie_midway_between_the_centers_of_windows():
    found = find_segments(scored(scores_of([1, 1, 1, 2, 2])), SHARP)
    assert bounds(found) == [("run", 0.0, 3.5), ("jump", 3.5, 6.0)]
    assert isinstance(found[0], Segment)
    assert found[0] == ("run", 0.0, 3.5, 0, 35, pytest.approx(0.8))
    assert (found[1].first_frame, found[1].end_frame) == (35, 60)


def test_background_classes_and_low_scores_have_no_segments():
    rule = SegmentRule(smooth=0.0, background=("none",))
    assert bounds(find_segments(scored(scores_of([0, 0, 1, 1, 0])), rule)) == [("run", 2.5, 4.5)]
    assert find_segments(scored(scores_of([1, 1], high=0.4)), SHARP) == []
    with pytest.raises(UserError, match=r"background 'nothing': is not a class; nearest: none"):
        find_segments(scored(scores_of([1])), SegmentRule(background=("nothing",)))


def test_a_segment_continues_until_its_score_is_below_leave():
    run = [0.2, 0.6, 0.4, 0.45, 0.4, 0.2, 0.4]
    rows = [[1 - score, score, 0.0] for score in run]
    rows = [[a / 2, b, a / 2] for a, b, _ in rows]
    found = find_segments(scored(rows), SegmentRule(smooth=0.0, enter=0.5, leave=0.35))
    assert bounds(found) == [("run", 1.5, 5.5)]
    assert found[0].score == pytest.approx(np.mean(run[1:5]), rel=1e-6)


def test_another_class_ends_a_segment_before_its_score_is_below_leave():
    rows = [[0, 0.9, 0.1], [0, 0.45, 0.55], [0, 0.45, 0.55]]
    assert bounds(find_segments(scored(rows), SHARP)) == [("run", 0.0, 1.5), ("jump", 1.5, 4.0)]


def test_smoothing_averages_neighbouring_windows_within_the_video():
    rows = np.array(scores_of([1, 1, 2, 1, 1, 1]))
    assert len(find_segments(scored(rows), SHARP)) == 3
    assert bounds(find_segments(scored(rows), SegmentRule(smooth=2.0))) == [("run", 0.0, 7.0)]


def test_gaps_are_merged_and_short_segments_left_out():
    rows = scores_of([1, 1, 0, 1, 1, 0, 0, 0, 2, 0])
    rule = {"smooth": 0.0, "background": ("none",)}
    assert len(find_segments(scored(rows), SegmentRule(**rule))) == 3
    merged = find_segments(scored(rows), SegmentRule(**rule, merge=1.0))
    assert bounds(merged) == [("run", 0.0, 5.5), ("jump", 8.5, 9.5)]
    assert bounds(find_segments(scored(rows), SegmentRule(**rule, merge=1.0, min_length=1.5))) == [
        ("run", 0.0, 5.5)
    ]


def test_no_segment_continues_across_missing_windows():
    found = find_segments(scored(scores_of([1, 1, 1, 1]), numbers=[0, 1, 6, 7]), SegmentRule(smooth=2.0))
    assert bounds(found) == [("run", 0.0, 2.5), ("run", 6.5, 9.0)]


def test_segments_of_several_classes_overlap():
    rows = [[0.1, 0.9, 0.1], [0.1, 0.9, 0.9], [0.1, 0.1, 0.9]]
    found = find_segments(scored(rows, task=MultiLabel()), SHARP)
    assert bounds(found) == [("run", 0.0, 2.5), ("jump", 1.5, 4.0)]


def test_verbs_and_nouns_have_segments_of_their_own():
    classes = ("verb: open", "verb: close", "noun: door")
    rows = [[0.9, 0.1, 1.0], [0.2, 0.8, 1.0], [0.2, 0.8, 1.0]]
    task = VerbNoun().for_classes(classes)
    found = find_segments(scored(rows, task=task, classes=classes), SHARP)
    assert bounds(found) == [("noun: door", 0.0, 4.0), ("verb: open", 0.0, 1.5), ("verb: close", 1.5, 4.0)]


def test_borders_are_presentation_times_of_frames():
    times = np.array([0.0, 0.1, 0.3, 0.9, 1.4, 1.52, 2.2, 3.1, 3.5])
    found = find_segments(scored(scores_of([1, 2, 2]), times=times), SHARP)
    assert bounds(found) == [("run", 0.0, 1.52), ("jump", 1.52, 3.6)]
    assert [(s.first_frame, s.end_frame) for s in found] == [(0, 5), (5, 9)]


def test_a_video_shorter_than_a_window_has_one_segment():
    windows = scored(scores_of([1]), times=np.arange(3) / 10)
    assert bounds(find_segments(windows, SegmentRule())) == [("run", 0.0, 0.3)]


def test_leave_above_enter_is_refused():
    with pytest.raises(UserError, match="expected leave at most as high as enter"):
        SegmentRule(enter=0.3, leave=0.5)


def test_the_best_path_leaves_out_short_changes_and_keeps_long_ones():
    rows = scores_of([1, 1, 2, 1, 1, 2, 2, 2])
    assert bounds(find_segments(scored(rows), PathRule(switch=1.5))) == [
        ("run", 0.0, 5.5),
        ("jump", 5.5, 9.0),
    ]
    assert len(find_segments(scored(rows), PathRule(switch=0.0))) == 4
    assert str(PathRule(min_length=1.5)) == "best path, switch 1.5 s; threshold 0.3; at least 1.5 s"


def test_the_best_path_respects_background_threshold_and_minimum_length():
    rows = scores_of([0, 0, 1, 1, 2, 0, 0])
    rule = PathRule(switch=0.1, background=("none",))
    assert bounds(find_segments(scored(rows), rule)) == [("run", 2.5, 4.5), ("jump", 4.5, 5.5)]
    assert find_segments(scored(rows), replace(rule, threshold=0.9)) == []
    longer = replace(rule, min_length=2.0)
    assert bounds(find_segments(scored(rows), longer)) == [("run", 2.5, 4.5)]
    with pytest.raises(UserError, match="background 'nothing': is not a class"):
        find_segments(scored(rows), PathRule(background=("nothing",)))


@pytest.mark.parametrize("size", [3, 150])
def test_the_best_path_finds_each_of_several_labels_alone(size):
    classes = tuple(f"label{k}" for k in range(size))
    rows = np.zeros((6, size))
    rows[:, 0], rows[2:5, size - 1] = 0.9, 0.8
    found = find_segments(scored(rows, task=MultiLabel(), classes=classes), PathRule())
    assert bounds(found) == [("label0", 0.0, 7.0), (classes[-1], 2.5, 5.5)]


def test_the_best_path_of_verbs_and_nouns_and_of_missing_windows():
    task = VerbNoun(num_verbs=2)
    rows = [[0.9, 0.1, 0.2, 0.8]] * 3 + [[0.9, 0.1, 0.8, 0.2]] * 3
    found = find_segments(scored(rows, task=task, classes=("cut", "wash", "pan", "cup")), PathRule())
    assert bounds(found) == [("cup", 0.0, 3.5), ("cut", 0.0, 7.0), ("pan", 3.5, 7.0)]
    gap = find_segments(scored(scores_of([1, 1, 1]), numbers=[0, 1, 5]), PathRule())
    assert bounds(gap) == [("run", 0.0, 2.5), ("run", 5.5, 7.0)]


def test_scores_that_are_not_numbers_have_no_segments():
    rows = np.array(scores_of([1, 1, 1, 1]))
    rows[1] = np.nan
    assert find_segments(scored(rows), PathRule()) == []

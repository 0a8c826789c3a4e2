"""The options of `timeline` choose the rule of segments."""

import pytest

from mmaction_lite.cli.segment_rule import rule_of
from mmaction_lite.errors import UserError
from mmaction_lite.inference.segments import PathRule, SegmentRule

NO_PATH = {"switch": None, "threshold": None}
NO_THRESHOLDS = {"enter": None, "leave": None, "smooth": None}


def test_the_best_path_is_the_default_and_thresholds_replace_it():
    assert rule_of(NO_PATH, NO_THRESHOLDS, merge=0.5) == PathRule(merge=0.5)
    assert rule_of({**NO_PATH, "switch": 2.0}, NO_THRESHOLDS) == PathRule(switch=2.0)
    assert rule_of(NO_PATH, {**NO_THRESHOLDS, "smooth": 0.0}) == SegmentRule(smooth=0.0)


def test_options_of_both_rules_are_an_error():
    with pytest.raises(UserError, match="--threshold and --leave are given; --switch and"):
        rule_of({**NO_PATH, "threshold": 0.1}, {**NO_THRESHOLDS, "leave": 0.2})

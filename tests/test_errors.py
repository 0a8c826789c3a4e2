"""Errors that a user can correct."""

import pytest

from mmaction_lite.errors import Interrupted, MissingSplitError, UserError, VideoError, nearest


@pytest.mark.parametrize("kind", [VideoError, MissingSplitError, Interrupted])
def test_every_kind_is_shown_as_one_line(kind):
    assert issubclass(kind, UserError)


def test_nearest_names_are_listed_best_first():
    names = ["tsm_r50", "tsn_r50", "slowfast_r50"]
    assert nearest("tsm_r5", names).startswith("nearest: tsm_r50, tsn_r50")
    assert nearest("epohcs", ["epochs", "model"]).startswith("nearest: epochs")


def test_all_names_are_listed_where_none_is_near():
    assert nearest("xyz", ["b", "a"]) == "valid: a, b"
    assert nearest("!", [f"{number:02}" for number in range(30)]).endswith("19, …")

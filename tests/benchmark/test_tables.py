"""Numbers of the benchmark tables."""

import pytest

from mmaction_lite.benchmark.tables import Ratio, data_share, ratio, seconds


def test_ratios_are_taken_round_by_round():
    def rounds(*means):
        return [[{"iteration": mean - 0.1}, {"iteration": mean + 0.1}] for mean in means]

    assert ratio({"ours": rounds(1, 2, 9), "peer": rounds(2, 2, 10)}) == Ratio(0.9, 0.5, 1.0)
    assert ratio({"ours": rounds(1)}) is None
    phase = {"ours": rounds(1, 1), "int8": rounds(0.2, 0.3), "peer": rounds(2, 2)}
    assert ratio(phase, "int8") == pytest.approx(Ratio(0.125, 0.1, 0.15))


def test_seconds_are_the_median_of_all_steps_and_data_share_is_of_their_sum():
    turns = [[{"iteration": 1.0, "data": 0.5}, {"iteration": 2.0}], [{"iteration": 5.0, "data": 1.5}]]
    assert seconds(turns) == 2.0
    assert seconds(turns, "data") == 0.5  # a step without the stage took no time
    assert data_share(turns) == 2.0 / 8.0

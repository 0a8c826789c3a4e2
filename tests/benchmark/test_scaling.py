"""Predicted iterations of several devices."""

from typing import Any

import pytest

from mmaction_lite.benchmark.scaling import predict_scaling


def test_scaling_is_limited_by_what_is_slowest():
    one: Any = {"batch_size": 8, "step_seconds": 0.4, "backward_seconds": 0.25}
    one["gradient_bytes"] = 100e6
    fast: Any
    slow: Any
    fast, slow = ({"link_bytes_per_second": rate} for rate in (50e9, 0.1e9))
    assert predict_scaling(1, **one, **fast).iteration == 0.4
    many = predict_scaling(8, **one, **fast)
    assert 0.4 < many.iteration < 0.402
    assert many.limited_by == "network"
    assert many.clips_per_second == pytest.approx(8 * 8 / many.iteration)
    hidden = 0.8 * 0.25
    crawling = predict_scaling(8, **one, **slow)
    assert crawling.iteration == pytest.approx(0.4 + 2 * 7 / 8 * 1.0 - hidden)
    assert crawling.limited_by == "exchange"
    starved = predict_scaling(8, **one, **fast, loader_clips_per_second=10)
    assert (starved.iteration, starved.limited_by) == (0.8, "data")


@pytest.mark.parametrize(("exposed", "limit"), [(0.039, "network"), (0.041, "exchange")])
def test_exchange_is_the_limit_when_it_adds_more_than_a_tenth(exposed, limit):
    """Gradients of 20 MB are one bucket, so nothing of their exchange is hidden."""
    made = predict_scaling(
        2,
        batch_size=8,
        step_seconds=0.4,
        backward_seconds=0.25,
        gradient_bytes=20e6,
        link_bytes_per_second=20e6 / exposed,
    )
    assert made.exposed == pytest.approx(exposed)
    assert made.limited_by == limit


@pytest.mark.parametrize(("clips_per_second", "limit"), [(20.1, "network"), (19.9, "data")])
def test_data_is_the_limit_when_clips_come_later_than_the_step_ends(clips_per_second, limit):
    made = predict_scaling(
        1,
        batch_size=8,
        step_seconds=0.4,
        backward_seconds=0.25,
        gradient_bytes=20e6,
        link_bytes_per_second=1e9,
        loader_clips_per_second=clips_per_second,
    )
    assert made.limited_by == limit
    assert made.iteration == pytest.approx(max(0.4, 8 / clips_per_second))

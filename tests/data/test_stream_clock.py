"""Times of live streams: parts, gaps, and pacing."""

import pytest

from mmaction_lite.data.sources.stream_clock import DRIFT, Place, StreamClock


def clock(**settings) -> StreamClock:
    made = StreamClock(**({"max_gap": 0.5, "speed": 1.0, "is_paced": False, "queue_frames": 64} | settings))
    made.fps = 10.0
    return made


def places(made: StreamClock, stamps: list[float], delay: float = 100.0) -> list[Place]:
    """The places of frames that arrive `delay` seconds after their time stamps."""
    return [made.place(stamp, stamp + delay) for stamp in stamps]


def test_time_begins_at_zero_wherever_the_time_stamps_begin():
    found = places(clock(), [7.0, 7.1, 7.2])
    assert [place.part for place in found] == [0, 0, 0]
    assert [place.number for place in found] == [0, 1, 2]
    assert [place.before for place in found] == ["start"] * 3
    assert [place.seconds for place in found] == pytest.approx([0, 0.1, 0.2])
    assert [place.due for place in found] == [107.0, 107.1, 107.2]


def test_a_gap_longer_than_the_limit_begins_a_part():
    made = clock()
    found = places(made, [0.0, 0.1, 0.6, 1.2])
    assert [place.part for place in found] == [0, 0, 0, 1]
    assert (found[3].before, found[3].number, found[3].part_seconds) == ("loss", 0, 0.0)
    assert found[3].seconds == pytest.approx(1.2)  # the stream time continues during the gap
    assert made.gaps == 1


def test_a_few_missing_frames_are_no_gap_at_a_low_rate():
    made = clock(max_gap=0.0)
    assert [place.part for place in places(made, [0.0, 0.1, 0.5, 0.91])] == [0, 0, 0, 1]


def test_time_stamps_that_jump_back_begin_a_part_and_small_disorder_does_not():
    made = clock()
    found = [made.place(stamp, 50 + 0.1 * i) for i, stamp in enumerate([90.0, 90.1, 90.05, 90.2, 0.0, 0.1])]
    assert [place.part for place in found] == [0, 0, 0, 0, 1, 1]
    assert [place.seconds for place in found] == pytest.approx([0, 0.1, 0.1, 0.2, 0.3, 0.4])


def test_time_continues_after_a_reconnect():
    made = clock()
    places(made, [5.0, 5.1])
    made.interrupt("loss")
    found = made.place(0.0, 105.1 + 3.0)
    assert (found.part, found.before) == (1, "loss")
    assert found.seconds == pytest.approx(3.1)
    assert made.gaps == 0


def test_frames_without_time_stamps_count_at_their_arrival():
    made = clock()
    found = [made.place(None, arrival) for arrival in (3.0, 3.2, 3.25, 4.5)]
    assert [place.seconds for place in found] == pytest.approx([0, 0.2, 0.25, 1.5])
    assert [place.part for place in found] == [0, 0, 0, 1]


def test_a_burst_waits_until_half_a_second_before_its_time():
    made = clock(is_paced=True)
    found = [made.place(0.1 * i, 10.0) for i in range(40)]
    assert [place.due for place in found] == pytest.approx(
        [10 + 0.1 * i * (1 - DRIFT) - 0.5 for i in range(40)]
    )


def test_a_burst_is_short_for_a_short_queue_and_a_high_speed():
    assert clock(is_paced=True, queue_frames=4).place(0.0, 10.0).due == pytest.approx(9.8)
    assert clock(is_paced=True, speed=10.0).place(0.0, 10.0).due == pytest.approx(9.95)
    assert clock(is_paced=True, speed=0.0).place(0.0, 10.0).due == 10.0


def test_a_stream_that_stops_for_a_while_is_not_caught_up():
    made = clock(is_paced=True)
    made.place(0.0, 10.0)
    made.place(0.1, 15.0)  # after a pause of the server
    assert made.place(0.2, 15.0).due == pytest.approx(15.0 + 0.1 - 0.5, abs=1e-3)

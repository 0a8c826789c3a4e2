import math
import subprocess
import sys

import numpy as np
import pytest

from mmaction_lite.data.views.samplers import (
    DenseClips,
    PySlowFastClips,
    SegmentClips,
    SegmentFrames,
    SegmentWindows,
    TimedClips,
)
from mmaction_lite.errors import UserError

LENGTHS = range(1, 301)


@pytest.mark.parametrize("num_segments", [1, 3, 8, 16, 25])
def test_segment_centers_are_the_published_ones(num_segments):
    for length in LENGTHS:
        average = length / num_segments
        expected = [math.floor(i * average + average / 2) for i in range(num_segments)]
        assert SegmentFrames(num_segments=num_segments)(length).tolist() == [expected]


@pytest.mark.parametrize(
    ("clip_len", "interval", "num_clips"), [(32, 2, 10), (8, 8, 10), (4, 16, 1), (16, 4, 3)]
)
def test_dense_test_clips_are_the_published_ones(clip_len, interval, num_clips):
    """MMAction2 1.x: starts spread evenly and rounded, indices modulo the length."""
    sampler = DenseClips(clip_len=clip_len, frame_interval=interval, num_clips=num_clips)
    for length in LENGTHS:
        last = max(length - ((clip_len - 1) * interval + 1), 0)
        if num_clips == 1:
            starts = [last // 2]
        else:
            starts = [round(i * (last / (num_clips - 1))) for i in range(num_clips)]
        expected = [[(start + i * interval) % length for i in range(clip_len)] for start in starts]
        assert sampler(length).tolist() == expected


def test_several_clips_of_segments_are_the_published_ones():
    """VideoMAE's test on Something-Something: the first frame of each segment, then the one in the middle."""
    one = SegmentClips(num_segments=16)
    for length in LENGTHS:
        part = length / 16
        expected = [[math.floor(i * part + start * part) for i in range(16)] for start in (0, 0.5)]
        assert SegmentClips(num_segments=16, num_clips=2)(length).tolist() == expected
        assert one(length).tolist() == SegmentFrames(num_segments=16)(length).tolist()
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    drawn = one(300, rng)
    assert drawn.tolist() == SegmentFrames(num_segments=16)(300, same).tolist()
    clips = SegmentClips(num_segments=16, num_clips=3)(300, rng)
    assert clips.shape == (3, 16)
    assert (clips // (300 / 16)).astype(int).tolist() == [list(range(16))] * 3
    assert len({tuple(clip) for clip in clips.tolist()}) == 3


def test_clips_of_segments_with_a_margin_are_the_published_ones():
    """UniFormerV2: datasets/sth.py and decoder.py, whose frames of a video count from 0."""
    for length in LENGTHS:
        for num_clips in (1, 4):
            part = (length - 1) / 8
            step = part / (num_clips + 1)
            expected = [[round(part * i) + int(step * (k + 1)) for i in range(8)] for k in range(num_clips)]
            sampler = SegmentClips(num_segments=8, num_clips=num_clips, margin=True)
            assert sampler(length).tolist() == expected
            assert sampler(length).max() < length
    rule = SegmentClips(num_segments=8, num_clips=4, margin=True).rule
    assert rule == ", clip k at (k+1)/5 of each segment"


def test_random_segments_stay_in_their_bins_and_reach_every_frame():
    sampler, rng = SegmentFrames(num_segments=8), np.random.default_rng(0)
    draws = np.concatenate([sampler(61, rng) for _ in range(2000)])
    edges = np.arange(9) * 61 / 8
    assert (draws >= np.floor(edges[:-1])).all()
    assert (draws < np.ceil(edges[1:])).all()
    assert np.unique(draws).tolist() == list(range(61))


def test_random_clips_reach_every_start_and_keep_their_interval():
    sampler, rng = DenseClips(clip_len=4, frame_interval=3, num_clips=2), np.random.default_rng(0)
    draws = np.stack([sampler(30, rng) for _ in range(1000)])
    assert (np.diff(draws, axis=2) == 3).all()
    assert np.unique(draws[:, :, 0]).tolist() == list(range(21))
    assert (draws[:, 0, 0] <= 10).all()
    assert (draws[:, 1, 0] >= 10).all()


@pytest.mark.parametrize(
    "sampler",
    [
        SegmentFrames(num_segments=8),
        DenseClips(clip_len=8, frame_interval=8, num_clips=3),
        SegmentWindows(window_len=8, frame_interval=3, num_segments=2),
        SegmentWindows(window_len=5, frame_interval=2),
    ],
)
def test_every_length_gives_valid_indices_and_the_generator_decides(sampler):
    for length in (1, 2, 3, 7, 8, 56, 57, 58, 300):
        first, again = (sampler(length, np.random.default_rng(length)) for _ in range(2))
        assert first.dtype == np.int64
        assert first.shape == sampler(length).shape
        assert (first == again).all()
        assert ((first >= 0) & (first < length)).all()


def test_windows_of_segments_are_those_of_the_published_evaluation():
    sampler = SegmentWindows(window_len=4, frame_interval=3, num_segments=2)
    assert (sampler.clip_len, sampler.num_clips, str(sampler)) == (8, 1, "4x3x2")
    # Parts of 20 frames; a span of 12 in the middle of each, its last frame in place of the one behind it.
    assert sampler(40).tolist() == [[4, 8, 12, 15, 24, 28, 32, 35]]
    draws = np.concatenate([sampler(41, np.random.default_rng(seed)) for seed in range(200)])
    assert np.unique(draws[:, 0]).tolist() == list(range(8))
    assert np.unique(draws[:, 4]).tolist() == list(range(20, 28))
    assert not (draws[:, 0] + 20 == draws[:, 4]).all()
    assert (draws[:, 3] - draws[:, 0] == 11).all()
    # Windows longer than a part overlap: three of the eleven frames are spread, and the last one is repeated.
    assert sampler(16).tolist() == [[0, 5, 10, 10, 4, 9, 14, 14]]
    assert sampler(16, np.random.default_rng(0)).tolist() == sampler(16).tolist()
    assert sampler(5).tolist() == [[0, 3, 3, 3] * 2]
    assert sampler(1).tolist() == [[0] * 8]


def test_a_sampler_without_frames_is_refused():
    with pytest.raises(UserError, match="num_segments is 0; expected an integer, at least 1"):
        SegmentFrames(num_segments=0)
    with pytest.raises(UserError, match="frame_interval"):
        DenseClips(clip_len=8, frame_interval=-1)


def test_short_videos_are_looped_held_or_stretched():
    def indices(short, length, clip_len=6, frame_interval=2):
        sampler = DenseClips(clip_len=clip_len, frame_interval=frame_interval, num_clips=2, short=short)
        first, second = sampler(length)
        assert (first == second).all() == (length <= (clip_len - 1) * frame_interval + 1)
        assert (sampler(length, np.random.default_rng(0))[0] == first).all()
        return first.tolist()

    assert indices("loop", 5) == [0, 2, 4, 1, 3, 0]
    assert indices("hold", 5) == [0, 2, 4, 4, 4, 4]
    assert indices("stretch", 5) == [0, 1, 2, 2, 3, 4]
    assert indices("stretch", 10) == [0, 2, 4, 5, 7, 9]
    assert indices("hold", 1) == indices("stretch", 1) == [0] * 6
    # The span fits exactly: nothing is short.
    for short in ("loop", "hold", "stretch"):
        assert indices(short, 11) == [0, 2, 4, 6, 8, 10]
    with pytest.raises(UserError, match="short is 'wrap'; expected one of 'loop', 'hold', 'stretch'"):
        DenseClips(clip_len=2, short="wrap")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("short", ["loop", "hold", "stretch"])
@pytest.mark.parametrize("fps", [15.0, 30.0, 60.0, 60000 / 1001])
def test_timed_clips_are_dense_clips_where_the_rate_divides(short, fps):
    step = round(fps / 15)
    timed = TimedClips(clip_len=16, target_fps=fps / step, num_clips=3, short=short)
    dense = DenseClips(clip_len=16, frame_interval=step, num_clips=3, short=short)
    for length in (1, 5, 16, 61, 62, 300):
        assert timed(length, fps=fps).tolist() == dense(length).tolist()
        draws = [
            sampler(length, np.random.default_rng(1), **options).tolist()
            for sampler, options in ((timed, {"fps": fps}), (dense, {}))
        ]
        assert draws[0] == draws[1]


def test_timed_clips_show_what_is_seen_at_their_moments():
    sampler = TimedClips(clip_len=10, target_fps=10)
    for fps in (4.0, 7.5, 24.0, 25.0, 29.97, 50.0):
        (frames,) = sampler(200, fps=fps)
        moments = (frames - frames[0]) / fps
        assert (moments <= np.arange(10) / 10 + 1e-6).all()
        assert (moments + 1 / fps > np.arange(10) / 10).all()
    # A video slower than the target repeats frames, and the last one can be reached.
    assert sampler(4, fps=4.0).tolist() == [[0, 0, 0, 1, 1, 2, 2, 2, 3, 3]]


def test_pyslowfast_clips_follow_its_rule():
    # Two spans of its training: 8x8 takes every ninth frame, 4x16 every 21st.
    assert np.diff(PySlowFastClips(clip_len=8, frame_interval=8)(300, fps=30)).tolist() == [[9] * 7]
    assert np.diff(PySlowFastClips(clip_len=4, frame_interval=16)(300, fps=30)).tolist() == [[21] * 3]
    # Test clip k of ten starts at k tenths of the room, here 300 - 64 frames.
    ten = PySlowFastClips(clip_len=8, frame_interval=8, num_clips=10)(300, fps=30)
    assert ten[:, 0].tolist() == [int(236 * k / 10) for k in range(10)]
    assert (ten[:, -1] - ten[:, 0] <= 64).all()
    # At 15 fps a span is half as many frames; a short video holds its last.
    assert PySlowFastClips(clip_len=4, frame_interval=16)(300, fps=15).tolist() == [[0, 10, 20, 31]]
    assert PySlowFastClips(clip_len=4, frame_interval=16)(50, fps=30).tolist() == [[0, 21, 42, 49]]


def test_pyslowfast_clips_with_even_starts():
    sampler = PySlowFastClips(clip_len=16, frame_interval=4, num_clips=5, starts="even")
    clips = sampler(303, fps=30)  # 239 possible starts
    assert clips[:, 0].tolist() == [0, 59, 118, 177, 236]
    assert clips[:, -1].tolist() == [63, 122, 181, 240, 299]
    one = PySlowFastClips(clip_len=16, frame_interval=4, starts="even")
    assert one(303, fps=30)[0, [0, -1]].tolist() == [119, 182]
    assert one(10, fps=30)[0, [0, -1]].tolist() == [0, 9]
    assert "clips up to the end" in sampler.rule


@pytest.mark.parametrize("fps", [12.5, 30, 59.94])
def test_random_pyslowfast_clips_lie_anywhere_in_the_video(fps):
    sampler, rng = PySlowFastClips(clip_len=8, frame_interval=2, num_clips=2), np.random.default_rng(0)
    draws = np.stack([sampler(80, rng, fps=fps) for _ in range(1000)])
    last_start = int(80 - 16 * fps / 30)
    assert set(range(last_start)) <= set(np.unique(draws[:, :, 0])) <= set(range(last_start + 1))
    assert draws.max() == 78  # rounded down: the very last frame is for short videos
    assert np.ptp(draws[:, 0, 0] - draws[:, 1, 0]) > 40  # every clip for itself


def test_clips_in_time_need_the_rate_of_the_video():
    with pytest.raises(UserError, match="TimedClips: the video's frame rate is nan; clips at 15 fps need it"):
        TimedClips(clip_len=8, target_fps=15)(100)
    with pytest.raises(UserError, match="PySlowFastClips: the video's frame rate is 0"):
        PySlowFastClips(clip_len=8, frame_interval=8)(100, fps=0)
    with pytest.raises(UserError, match="target_fps is -1"):
        TimedClips(clip_len=8, target_fps=-1)


def test_public_names_of_data_are_imported_on_first_use():
    code = (
        "import sys\nfrom mmaction_lite.data import DenseClips, SegmentFrames\n"
        "assert DenseClips(clip_len=2)(9).shape == (1, 2)\n"
        "assert SegmentFrames(num_segments=3)(9).shape == (1, 3)\n"
        "assert not {'torch', 'av'} & sys.modules.keys()\nfrom mmaction_lite.data import Video\n"
        "assert Video.__name__ == 'Video'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)

import math

import numpy as np
import pytest

from mmaction_lite.data.clips import DenseClips, SegmentFrames
from mmaction_lite.errors import UserError

LENGTHS = range(1, 301)


@pytest.mark.parametrize("num_segments", [1, 3, 8, 16, 25])
def test_segment_centres_are_the_published_ones(num_segments):
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
    "sampler", [SegmentFrames(num_segments=8), DenseClips(clip_len=8, frame_interval=8, num_clips=3)]
)
def test_every_length_gives_valid_indices_and_the_generator_decides(sampler):
    for length in (1, 2, 3, 7, 8, 56, 57, 58, 300):
        first, again = (sampler(length, np.random.default_rng(length)) for _ in range(2))
        assert first.dtype == np.int64
        assert first.shape == sampler(length).shape
        assert (first == again).all()
        assert ((first >= 0) & (first < length)).all()


def test_a_sampler_of_nothing_is_refused():
    with pytest.raises(UserError, match="num_segments is 0; it must be at least 1"):
        SegmentFrames(num_segments=0)
    with pytest.raises(UserError, match="frame_interval"):
        DenseClips(clip_len=8, frame_interval=-1)

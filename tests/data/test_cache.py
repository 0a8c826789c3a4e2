"""Clips in memory."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.cache import Caches, VideoCache, expected_bytes
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.errors import VideoError


@pytest.fixture
def damaged(tiny, tmp_path):
    """`tiny` with a broken training file."""
    shutil.copytree(tiny / "train", tmp_path / "train")
    (tmp_path / "train" / "up" / "0.mp4").write_text("not a video")
    return tmp_path


def test_cache_names_a_broken_file_and_keeps_within_its_budget(damaged, recipe):
    samples = read_split(damaged, "train")
    cache = Caches().of(samples, recipe.train)
    assert cache is not None
    broken = next(i for i in range(12) if samples.path(i).name == "0.mp4")
    with pytest.raises(VideoError, match=r"0\.mp4"):
        cache.open(broken)
    assert Caches(budget_bytes=1000).of(samples, recipe.train) is None
    assert Caches().of(samples, replace(recipe.train, short_side=None)) is None


def test_a_cached_clip_reads_like_its_file_at_the_reduced_size(tiny):
    samples = read_split(tiny, "train")
    cache = VideoCache(samples, 24, False, 1 << 30, interpolation="bicubic")
    assert cache.nbytes == expected_bytes(samples, 24) == 12 * 16 * 24 * 32 * 3
    for sample in (0, 11):
        with open_sample(samples, sample) as source:
            clip = cache.open(sample)
            assert (len(clip), clip.size, clip.fps) == (len(source), (24, 32), source.fps)
            frames = source.frames([3, 0], None, (24, 32), False, "bicubic")
        np.testing.assert_array_equal(clip.frames([3, 0]), frames)


def test_caches_are_shared_and_stay_within_one_budget(tiny, recipe):
    samples = read_split(tiny, "train")
    caches = Caches(budget_bytes=expected_bytes(samples, 24) + 1000)
    cache = caches.of(samples, recipe.train)
    assert cache is not None
    assert caches.of(samples, replace(recipe.train, flip=0.0)) is cache
    assert caches.of(samples, replace(recipe.train, interpolation="bicubic")) is None  # another filter
    assert caches.left_bytes == 1000
    assert caches.of(samples, replace(recipe.train, short_side=30)) is None  # another size does not fit
    with pytest.raises(MemoryError):
        VideoCache(samples, 24, True, 1000)

"""Readers of long videos in the decoding processes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmaction_lite.data.sources.source import ArrayVideo, open_source
from mmaction_lite.errors import VideoError
from mmaction_lite.serve.job_readers import AnnotationWriter, Caption, FramesReader, TimesReader
from mmaction_lite.serve.readers import VideoLimits
from tests.conftest import brightening

LIMITS = VideoLimits(max_seconds=60, max_frames=100, max_side=100)


def test_times_are_read_without_frames(tiny: Path):
    reader = pickle.loads(pickle.dumps(TimesReader(LIMITS)))
    with open_source(tiny / "val" / "up" / "12.mp4") as source:
        found = reader.read_described(source)
    assert found.pixels.size == 0
    np.testing.assert_allclose(found.details["times"], np.arange(16) / 25)
    assert (found.details["fps"], found.details["size"], found.details["note"]) == (25.0, [48, 64], "")
    with pytest.raises(VideoError, match="frames"):
        TimesReader(LIMITS).read_described(ArrayVideo(np.zeros((101, 8, 8, 3), np.uint8)))


def test_frames_are_those_of_the_source():
    source = ArrayVideo(brightening(0))
    indices = np.array([1, 5, 9])
    cubic = FramesReader(indices, (24, 32), True, "bicubic").read_described(source)
    np.testing.assert_array_equal(cubic.pixels, source.frames(indices, None, (24, 32), True, "bicubic"))
    found = FramesReader(indices, (24, 32), True).read_described(source)
    np.testing.assert_array_equal(found.pixels, source.frames(indices, None, (24, 32)))
    assert found.details == {"indices": [1, 5, 9], "faults": []}


def test_damaged_frames_are_left_out():
    class Failing(ArrayVideo):
        def frames(self, indices: Any, *arguments: Any, **options: Any) -> np.ndarray:
            if 5 in indices:
                raise VideoError("frame 5 is damaged")
            return super().frames(indices, *arguments, **options)

    found = FramesReader(np.array([1, 5, 9]), None, True).read_described(Failing(brightening(0)))
    assert found.details == {"indices": [1, 9], "faults": [(5, 6, "frame 5 is damaged")]}
    assert len(found.pixels) == 2


def test_an_annotated_copy_is_written(tmp_path):
    out = tmp_path / "out.mp4"
    writer = AnnotationWriter(out, (Caption(0.0, 0.2, "<b>up</b> 90%"), Caption(0.2, 0.4, "down")))
    writer.read_described(ArrayVideo(brightening(0)))
    with open_source(out) as copy:
        assert len(copy) == 16
        first, later = copy.frames([0, 12])
    assert first[:20, :100].max() > 235  # white letters
    assert later.max() < 235

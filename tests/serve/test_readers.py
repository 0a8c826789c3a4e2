"""Readers check the limits before they decode, and describe the video."""

from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite.data.sources.source import open_source
from mmaction_lite.serve.readers import ClipReader, LimitError, VideoLimits
from tests.exports import small_protocol

LIMITS = VideoLimits(max_seconds=10, max_frames=100, max_side=100)


def test_a_reader_returns_the_clips_of_the_protocol(clip):
    views = small_protocol().views
    with open_source(clip) as source:
        pixels, size, details = ClipReader(views=views, limits=LIMITS).read_described(source)
        np.testing.assert_array_equal(views.resize(pixels, size), views.read(source))
    assert (details["size"], details["num_frames"], details["duration_seconds"]) == ([48, 64], 16, 0.64)
    assert details["frame_seconds"] == pytest.approx([frame / 25 for frame in details["frames"]])


@pytest.mark.parametrize(
    ("limit", "kind"),
    [
        ({"max_seconds": 0.5}, "video-too-long"),
        ({"max_frames": 15}, "video-too-long"),
        ({"max_side": 63}, "frame-too-large"),
    ],
)
def test_limits(clip, limit, kind):
    with open_source(clip) as source, pytest.raises(LimitError, match=kind):
        replace(LIMITS, **limit).check(source)

"""One interface to videos, folders of frames, arrays and parts of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.cache import VideoCache
from mmaction_lite.data.loading.loader import VideoDataset
from mmaction_lite.data.sources.source import ArrayVideo, open_sample, open_source
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.errors import VideoError


def test_parts_of_a_video_read_like_videos_of_their_own(tiny, tmp_path, recipe):
    """16 frames at 25 per second: a part is half of them, from the file and from memory alike."""
    clip = next((tiny / "train" / "up").glob("*.mp4"))
    rows = [f"{clip},up,0,0.32", f"{clip},down,0.32,", f"{clip},up,0.6,9", f"{clip},up,0.64,9"]
    (tmp_path / "train.csv").write_text("\n".join(["path,label,start_seconds,end_seconds", *rows]))
    samples = read_split(tmp_path, "train")
    with open_source(clip) as source:
        whole = source.frames(range(16))
    for sample, frames in enumerate((whole[:8], whole[8:], whole[15:])):
        with open_sample(samples, sample) as part:
            assert len(part) == len(frames)
            assert (part.frames(range(len(part))) == frames).all()
            with pytest.raises(IndexError):
                part.frames([len(part)])
    with pytest.raises(
        VideoError,
        match=r"mp4#t=0\.64,9: the segment contains no frame; the video has 16 frames at 25 frames",
    ):
        open_sample(samples, 3)
    views = replace(recipe.val, clips=SegmentFrames(num_segments=8))
    cache = VideoCache(samples, 24, True, 1 << 30)
    for sample in range(3):
        direct, cached = VideoDataset(samples, views)[sample], VideoDataset(samples, views, cache)[sample]
        assert direct.pixels is not None
        assert cached.pixels is not None
        assert torch.equal(direct.pixels, cached.pixels)
    assert VideoDataset(samples, views)[3].faults[0].path == samples.name(3)


def test_an_array_reads_like_a_video():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
    with ArrayVideo(pixels, fps=10.0) as video:
        assert (len(video), video.size, video.fps, video.codec) == (5, (8, 12), 10.0, "raw")
        assert (video.frames([4, 0, 0]) == pixels[[4, 0, 0]]).all()
        assert (video.frames([1], (2, 3, 4, 5)) == pixels[[1], 2:6, 3:8]).all()
        assert video.frames([1], None, (4, 6)).shape == (1, 4, 6, 3)
        assert [video.index_at(seconds) for seconds in (0.0, 0.15, 0.2, 9.0)] == [0, 2, 2, 5]


def test_a_path_is_a_video_or_a_folder_of_frames(tiny, tmp_path):
    clip = next((tiny / "train" / "up").glob("*.mp4"))
    with open_source(clip) as video:
        assert (len(video), video.codec) == (16, "h264")
    (tmp_path / "frames").mkdir()
    for number in range(3):
        Image.new("RGB", (12, 8), (number, 0, 0)).save(tmp_path / "frames" / f"{number}.png")
    with open_source(tmp_path / "frames") as frames:
        assert (len(frames), frames.size) == (3, (8, 12))
        assert frames.frames([2])[0, 0, 0].tolist() == [2, 0, 0]
    for missing in (tmp_path / "gone.mp4", tmp_path / "gone"):
        with pytest.raises(VideoError, match="gone"):
            open_source(missing)

"""One interface to videos, folders of frames, arrays and parts of them."""

import tarfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmaction_lite.data.annotations.samples import Segment
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.cache import VideoCache
from mmaction_lite.data.loading.loader import VideoDataset
from mmaction_lite.data.sources.resample import crop_and_resize
from mmaction_lite.data.sources.sequential import read_in_order
from mmaction_lite.data.sources.source import ArrayVideo, SegmentOf, open_sample, open_source, read_frames
from mmaction_lite.data.sources.write_shards import index_shards
from mmaction_lite.data.views.crops import RandomResizedCrop, ThreeCrop
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
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


@pytest.mark.parametrize("antialias", [True, False])
def test_every_source_resizes_bicubically(tiny, tmp_path, antialias):
    """Videos, images (JPEG at full scale, in folders and tar files), parts, arrays and reading in order."""
    clip = next((tiny / "train" / "up").glob("*.mp4"))
    (tmp_path / "frames").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        image = Image.fromarray(pixels).resize((64, 48))
        image.save(tmp_path / "frames" / f"{number}.jpg", quality=90)
    with tarfile.open(tmp_path / "packed.tar", "w") as file:
        file.add(tmp_path / "frames", "up/frames")
    index_shards([tmp_path / "packed.tar"], frozenset({".mp4"}))
    for path in (clip, tmp_path / "frames", tmp_path / "packed.tar" / "up" / "frames"):
        with open_source(path) as source:
            whole = source.frames(range(3))
            for box, size in ((None, (20, 24)), ((1, 2, 12, 14), (9, 15))):
                expected = crop_and_resize(whole, box, size, antialias=antialias, interpolation="bicubic")
                found = source.frames(range(3), box, size, antialias, "bicubic")
                np.testing.assert_array_equal(found, expected)
                assert (found != source.frames(range(3), box, size, antialias)).any()
                array = ArrayVideo(whole).frames(range(3), box, size, antialias, "bicubic")
                np.testing.assert_array_equal(array, expected)
            part = SegmentOf(source, Segment(1, 3, in_frames=True), "part")
            expected = crop_and_resize(whole, None, (20, 24), antialias=antialias, interpolation="bicubic")
            found = part.frames([0, 1], None, (20, 24), antialias, "bicubic")
            np.testing.assert_array_equal(found, expected[1:])
            for video, first in ((source, 0), (part, 1)):
                indices = np.arange(3 - first)
                in_order = read_in_order(
                    video, indices, (20, 24), antialias=antialias, interpolation="bicubic"
                )
                read = np.stack([pixels for _, pixels in in_order if pixels is not None])
                np.testing.assert_array_equal(read, expected[first:])


class FourArguments(ArrayVideo):
    """Source that was written before frames could be resized bicubically."""

    def frames(self, indices, box=None, size=None, antialias=True):  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().frames(indices, box, size, antialias)


def test_sources_without_interpolation_are_read_with_any_filter():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 24, 32, 3), np.uint8)
    old: Any = FourArguments(pixels)
    new = ArrayVideo(pixels)
    for name in ("bilinear", "bicubic"):
        for box, size in ((None, (10, 14)), ((2, 3, 12, 16), (20, 28)), ((2, 3, 12, 16), None)):
            expected = new.frames([4, 1], box, size, False, name)
            found = read_frames(old, [4, 1], box, size, antialias=False, interpolation=name)
            np.testing.assert_array_equal(found, expected)
        test = TestViews(
            clips=SegmentFrames(num_segments=2),
            crop=ThreeCrop(size=(8, 8)),
            short_side=12,
            interpolation=name,
        )
        train = TrainViews(clips=test.clips, crop=RandomResizedCrop(size=(8, 8)), interpolation=name)
        drawn = [train.draw_views(video, *map(np.random.default_rng, (1, 2))).pixels for video in (old, new)]
        np.testing.assert_array_equal(drawn[0], drawn[1])
        for source in (old, SegmentOf(old, Segment(0, 6, in_frames=True), "part")):
            np.testing.assert_array_equal(test.read(source), test.read(new))
            in_order = read_in_order(source, np.arange(6), (12, 16), antialias=True, interpolation=name)
            read = np.stack([frame for _, frame in in_order if frame is not None])
            np.testing.assert_array_equal(read, new.frames(range(6), None, (12, 16), True, name))

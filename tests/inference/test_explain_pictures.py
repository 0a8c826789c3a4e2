import json
import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmaction_lite.data.sources.sequential import frame_times
from mmaction_lite.data.sources.source import ArrayVideo, open_source
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.inference.explain import Explanation
from mmaction_lite.inference.explain_pictures import (
    blend,
    file_name_part,
    map_at,
    write_files,
    write_overlay_video,
    write_strip,
)

VIEWS = TestViews(clips=SegmentFrames(num_segments=3), crop=CenterCrop(size=(30, 30)))


def explanation(label: str = "open", has_times: bool = True) -> Explanation:
    """The middle frame of three has a map, in the upper left corner of the view."""
    maps = np.zeros((3, 30, 30), np.float32)
    maps[1, :10, :10] = 1
    frames = np.array([2, 6, 10])
    return Explanation(
        label=label,
        score=0.9,
        top_label=label,
        top_score=0.9,
        method="gradcam",
        layers=("backbone.layer4",),
        maps=maps,
        frames=frames,
        seconds=frames / 25 if has_times else np.full(3, math.nan),
        drops=np.array([0.1, 1.0, -0.2], np.float32) if has_times else None,
        frame_size=(41, 61),
        box=(5.5, 15.5, 30.0, 30.0),
        protocol=Protocol(views=VIEWS),
    )


@pytest.fixture
def source() -> ArrayVideo:
    return ArrayVideo(np.full((13, 41, 61, 3), 100, np.uint8))


@pytest.mark.parametrize(("label", "has_times"), [("打开 $x_1", True), ("a" * 300, False)])
def test_a_strip_is_a_png(tmp_path, source, label, has_times):
    write_strip(tmp_path / "strip.png", explanation(label, has_times), source, "clip [b]{.mp4")
    with Image.open(tmp_path / "strip.png") as image:
        assert image.width > 200
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_a_video_shows_the_map_where_and_when_it_is(tmp_path, source):
    write_overlay_video(tmp_path / "maps.mp4", explanation(), source)
    with open_source(tmp_path / "maps.mp4") as video:
        assert len(video) == 9  # frames 2 to 10
        assert video.size == (40, 60)
        assert video.fps == pytest.approx(25)
        frames = video.frames(range(9)).astype(int)
    changed = np.abs(frames - 100).max(3)
    assert changed[4, 8:13, 18:23].min() > 60
    assert changed[4, 25:, 35:].max() < 15
    assert changed[0].max() < 15
    strength = changed[:, 8:13, 18:23].mean((1, 2))
    assert (np.diff(strength[:5]) > 0).all()


def test_times_of_a_video_with_a_variable_frame_rate_are_kept(tmp_path):
    times = [0, 40, 80, 120, 500, 540, 580, 620, 660, 700, 1500, 1540, 1580]  # milliseconds
    with av.open(str(tmp_path / "varied.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.codec_context.time_base = 62, 42, Fraction(1, 1000)
        for time in times:
            frame = av.VideoFrame.from_ndarray(np.full((42, 62, 3), 100, np.uint8), "rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_source(tmp_path / "varied.mp4") as source:
        write_overlay_video(tmp_path / "maps.mp4", explanation()._replace(frame_size=(42, 62)), source)
    with open_source(tmp_path / "maps.mp4") as video:
        expected = (np.array(times[2:11]) - times[2]) / 1000
        np.testing.assert_allclose(frame_times(video), expected, atol=2e-3)


def test_maps_between_seen_frames_are_interpolated():
    found = explanation()
    np.testing.assert_allclose(map_at(found, 6), found.map_in_frame(1))
    np.testing.assert_allclose(map_at(found, 5), 0.75 * found.map_in_frame(1))
    assert not map_at(found, 12).any()


def test_blending_keeps_pixels_without_a_map():
    frame = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    map_ = np.zeros((4, 4))
    map_[0] = 1
    blended = blend(frame, map_)
    assert (blended[1:] == frame[1:]).all()
    assert (blended[0] != frame[0]).any()


def test_files_of_an_earlier_call_are_replaced_and_others_kept(tmp_path, source):
    both = [explanation("verb: open"), explanation("noun: door/handle")]
    files = write_files(tmp_path, "clip", both, source, "clip.mp4", has_video=True, has_maps=True)
    names = [
        f"clip.{label}.{suffix}"
        for label in ("verb_open", "noun_door_handle")
        for suffix in ("png", "mp4", "npz")
    ]
    assert [path.name for paths in files for path in paths] == names
    with np.load(tmp_path / "clip.verb_open.npz") as stored:
        np.testing.assert_array_equal(stored["maps"], both[0].maps)
        assert stored["frames"].tolist() == [2, 6, 10]
        assert json.loads(str(stored["about"]))["protocol"] == str(both[0].protocol)
    write_files(tmp_path, "clip", both, source, "clip.mp4")
    Path(tmp_path / "clip.verb_open.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"clip\.verb_open\.png: was changed since it was written"):
        write_files(tmp_path, "clip", both, source, "clip.mp4")
    assert (tmp_path / "clip.verb_open.png").read_bytes() == b"mine"
    assert not list(tmp_path.glob(".clip*"))


def test_names_of_files():
    assert file_name_part("verb: open the door") == "verb_open_the_door"
    assert file_name_part("../..") == "class"
    assert file_name_part("打开") == "打开"
    assert len(file_name_part("x" * 999)) == 60

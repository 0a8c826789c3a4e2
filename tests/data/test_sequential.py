"""Frames read in order equal those of `Video.frames`, also behind damaged places."""

import av
import numpy as np
import pytest

from mmaction_lite.data.annotations.samples import Segment
from mmaction_lite.data.sources import sequential
from mmaction_lite.data.sources.sequential import frame_times, read_in_order
from mmaction_lite.data.sources.source import ArrayVideo, SegmentOf
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import VideoError
from tests import barcode
from tests.data.conftest import GENERATED

EVERY = ["default.mp4", "open_gop.mp4", "no_pts.h264", "guessed_pts.avi", "mpeg4_b.avi", "motion_jpeg.avi",
         "vp8_hidden_packets.webm", "interlaced.mp4", "transport.ts", "one_frame.mp4"]  # fmt: skip


def damage(path, frame):
    """Overwrite the packet of a frame."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets]
    content = bytearray(path.read_bytes())
    place, size = places[frame]
    assert place is not None
    content[place + 5 : place + size] = b"\xa5" * (size - 5)
    path.write_bytes(content)


def collect(faults):
    return lambda *fault: faults.append(fault)


@pytest.mark.parametrize("name", EVERY)
def test_frames_in_order_equal_requested_frames(name, clips, monkeypatch):
    monkeypatch.setattr(sequential, "PASS_FRAMES", 16)
    assert name in GENERATED
    with Video(clips / name) as video:
        for wanted in (np.arange(len(video)), np.arange(0, len(video), 5)):
            expected = video.frames(wanted, None, (20, 30))
            with Video(clips / name) as other:
                found = list(read_in_order(other, wanted, (20, 30)))
            assert [index for index, _ in found] == wanted.tolist()
            np.testing.assert_array_equal(
                np.stack([pixels for _, pixels in found if pixels is not None]), expected
            )


def test_reading_continues_behind_damage(tmp_path, monkeypatch):
    path = barcode.write(tmp_path / "damaged.mp4", range(100), options={"g": "20", "bf": "0"})
    sound = dict(read_in_order(Video(path), np.arange(100)))
    damage(path, 45)
    for size in (16, 2048):
        monkeypatch.setattr(sequential, "PASS_FRAMES", size)
        faults = []
        with Video(path) as video:
            found = dict(read_in_order(video, np.arange(100), on_fault=collect(faults)))
        assert list(found) == list(range(100))
        lost = [index for index, pixels in found.items() if pixels is None]
        assert lost == list(range(45, 60))
        assert [(first, end) for _, first, end in faults] == [(45, 60)]
        assert "frame 45 does not decode" in str(faults[0][0])
        for index in set(range(100)) - set(lost):
            np.testing.assert_array_equal(found[index], sound[index])
        with Video(path) as video, pytest.raises(VideoError, match="frame 45 does not decode"):
            list(read_in_order(video, np.arange(100)))


def test_damage_with_reordered_frames(tmp_path):
    path = barcode.write(tmp_path / "damaged.mp4", range(100), options={"g": "20", "bf": "3"})
    sound = dict(read_in_order(Video(path), np.arange(100)))
    damage(path, 43)
    faults = []
    with Video(path) as video:
        found = dict(read_in_order(video, np.arange(100), on_fault=collect(faults)))
    lost = [index for index, pixels in found.items() if pixels is None]
    assert lost
    assert 40 <= min(lost) <= max(lost) < 60
    assert faults
    assert (faults[0][1], faults[-1][2]) == (lost[0], lost[-1] + 1)
    for index in set(range(100)) - set(lost):
        np.testing.assert_array_equal(found[index], sound[index])


def test_many_faults_end_the_reading(tmp_path, monkeypatch):
    path = barcode.write(tmp_path / "damaged.mp4", range(100), options={"g": "10", "bf": "0"})
    for frame in range(5, 100, 10):
        damage(path, frame)
    monkeypatch.setattr(sequential, "MOST_FAULTS", 4)
    faults = []
    with Video(path) as video:
        found = list(read_in_order(video, np.arange(100), on_fault=collect(faults)))
    assert [index for index, _ in found] == list(range(100))
    assert [(first, end) for _, first, end in faults] == [(5, 10), (15, 20), (25, 30), (35, 100)]


def test_segments_and_arrays(tmp_path):
    path = barcode.write(tmp_path / "video.mp4", range(100), options={"g": "20", "bf": "0"})
    damage(path, 46)
    faults = []
    with Video(path) as video:
        segment = SegmentOf(video, Segment(30, 80, True), "segment")
        assert frame_times(segment)[[0, -1]] == pytest.approx([0, 49 / 30])
        found = list(read_in_order(segment, np.arange(0, 50, 2), on_fault=collect(faults)))
    assert [barcode.read(pixels) for _, pixels in found[:7] if pixels is not None] == list(range(30, 44, 2))
    assert [index for index, pixels in found if pixels is None] == list(range(16, 30, 2))
    assert [(first, end) for _, first, end in faults] == [(16, 29)]
    pixels = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 4, 4, 3), np.uint8)
    read = list(read_in_order(ArrayVideo(pixels), np.array([1, 4])))
    assert [(index, frame[0, 0, 0]) for index, frame in read if frame is not None] == [(1, 1), (4, 4)]


@pytest.mark.parametrize(("left_out", "end"), [([3, 4], 5), ([8, 9], 10)])
def test_frames_that_a_decoder_leaves_out_are_a_fault(monkeypatch, left_out, end):
    video = ArrayVideo(np.zeros((10, 4, 4, 3), np.uint8))
    read = sequential._pixels
    monkeypatch.setattr(
        sequential, "_pixels", lambda *a: (item for item in read(*a) if item[0] not in left_out)
    )
    faults = []
    found = dict(read_in_order(video, np.arange(10), on_fault=collect(faults)))
    assert list(found) == list(range(10))
    assert [index for index, pixels in found.items() if pixels is None] == left_out
    assert faults[0][1] == left_out[0]
    assert faults[-1][2] == end
    with pytest.raises(VideoError, match=f"frames {left_out[0]} to 4|frames 8 to 9"):
        list(read_in_order(video, np.arange(10)))

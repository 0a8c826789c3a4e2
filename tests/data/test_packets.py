"""Packet indexes, which locate the frames of a file, and their cache."""

import os
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmaction_lite.data.sources import index_cache
from mmaction_lite.data.sources.container import demux, open_stream
from mmaction_lite.data.sources.index_cache import IndexCache
from mmaction_lite.data.sources.packets import MAX_BOX_BYTES, PacketIndex, listed_index, scanned_index
from mmaction_lite.data.sources.video import Video
from tests import barcode


@pytest.fixture(autouse=True)
def empty_index_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "index_cache", IndexCache(2**20))


def test_a_second_opening_does_not_scan(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes((clips / "three_frames.mp4").read_bytes())
    made: list[Video] = []
    make = Video._make_index

    def watch(self: Video) -> PacketIndex:
        made.append(self)
        return make(self)

    monkeypatch.setattr(Video, "_make_index", watch)
    for _ in range(3):
        with Video(path) as video:
            assert len(video) == 3
    assert len(made) == 1
    path.write_bytes((clips / "one_frame.mp4").read_bytes())
    with Video(path) as video:
        assert len(video) == 1
    assert len(made) == 2


def test_only_closed_gops_are_found_without_scanning(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[str] = []
    scan = Video._scan

    def watch(self: Video) -> PacketIndex:
        scanned.append(Path(self.path).name)
        return scan(self)

    monkeypatch.setattr(Video, "_scan", watch)
    for name in ("default.mp4", "keyframes.mp4", "variable_rate.mp4", "open_gop.mp4"):
        with Video(clips / name) as video:
            assert [barcode.read(frame) for frame in video.frames([40, 23, 24])] == [40, 23, 24]
    assert scanned == ["open_gop.mp4"]


def test_frames_have_a_rank_when_their_order_is_known(clips: Path) -> None:
    """Threads that read one file share its index: a frame without a rank makes them decode the whole file."""
    known: list[bool] = []

    class Order(np.ndarray):
        def __setitem__(self, key: Any, value: Any) -> None:
            known.append(bool((index.rank[value] >= 0).all()))
            super().__setitem__(key, value)

    with Video(clips / "keyframes.mp4") as video:
        index = replace(
            video._index, order=np.full(60, -1, np.int32).view(Order), rank=np.full(60, -1, np.int32)
        )
        video._index = index
        assert barcode.read(video.frames([23])[0]) == 23
    assert known == [True]


def test_index_cache_stays_within_its_bytes(clips: Path) -> None:
    with Video(clips / "default.mp4") as video:
        index = video._index
    cache = IndexCache(3 * index.nbytes)
    for key in range(3):
        cache.put((key,), index)
    assert cache.get((0,)) is index
    cache.put((3,), index)
    assert [cache.get((key,)) is index for key in range(4)] == [True, False, True, True]


@pytest.mark.parametrize("name", ["default.mp4", "keyframes.mp4", "variable_rate.mp4"])
def test_the_containers_list_and_a_scan_give_the_same_index(clips: Path, name: str) -> None:
    path = str(clips / name)
    with open_stream(path) as opened:
        listed = listed_index(opened)
    with open_stream(path) as opened:
        scanned = scanned_index(demux(opened.container, opened.stream), opened)
    assert listed is not None
    assert scanned is not None
    complete, is_known = scanned
    assert is_known
    assert (listed.promised, listed.skippable) == (complete.promised, complete.skippable) == (60, True)
    assert listed.fps == pytest.approx(complete.fps, rel=0.1)  # times of decoding and of showing differ
    np.testing.assert_array_equal(listed.keys, complete.keys)
    np.testing.assert_array_equal(listed.marks, complete.marks)
    assert (listed.order == -1).all()  # read when frames are asked for
    with open_stream(path) as opened:
        assert listed.read_run(0, 60, enumerate(demux(opened.container, opened.stream)))
    np.testing.assert_array_equal(listed.order, complete.order)
    assert listed.unread(np.arange(60)) == []


def test_padding_after_the_boxes_of_a_file_takes_no_memory(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    content = (clips / "three_frames.mp4").read_bytes()
    padding = 10 * MAX_BOX_BYTES
    path.write_bytes(content + struct.pack(">I4sQ", 1, b"free", padding))
    os.truncate(path, len(content) + padding)
    tracemalloc.start()
    with Video(path) as video, Video(clips / "three_frames.mp4") as plain:
        assert tracemalloc.get_traced_memory()[1] < MAX_BOX_BYTES
        assert np.array_equal(video.frames(range(3)), plain.frames(range(3)))
    tracemalloc.stop()

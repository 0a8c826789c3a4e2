"""The packet indexes of long files are stored on disk, and give the same frames as indexes made new."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.data.sources import index_cache
from mmaction_lite.data.sources.index_cache import IndexCache, load_index, store_index
from mmaction_lite.data.sources.packets import PacketIndex
from mmaction_lite.data.sources.video import Video
from tests import barcode

SUFFIXES = (".mp4", ".mkv", ".ts", ".avi")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Store the index of every file, and none in memory."""
    monkeypatch.setenv("MMACTION_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index_cache, "index_cache", IndexCache(0))
    monkeypatch.setattr(index_cache, "DISK_FILE_BYTES", 0)
    monkeypatch.setattr(index_cache, "DISK_PACKETS", 0)
    return tmp_path / "cache" / "indexes"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files whose index was made new."""
    names: list[str] = []
    make = Video._make_index

    def watch(self: Video) -> PacketIndex:
        names.append(Path(self.path).name)
        return make(self)

    monkeypatch.setattr(Video, "_make_index", watch)
    return names


def read(path: Path) -> tuple[int, list[int], np.ndarray]:
    with Video(path) as video:
        frames = video.frames([50, 3, 27])
        return len(video), [barcode.read(frame) for frame in frames], frames


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_index_from_disk_gives_the_same_frames(tmp_path: Path, made: list[str], suffix: str) -> None:
    path = barcode.write(tmp_path / f"clip{suffix}", options={"g": "12"})
    fresh = read(path)
    assert fresh[:2] == (60, [50, 3, 27])
    stored = read(path)
    assert made == [path.name]
    assert stored[:2] == fresh[:2]
    assert np.array_equal(stored[2], fresh[2])


def test_a_changed_file_gets_a_new_index(tmp_path: Path, made: list[str]) -> None:
    path = barcode.write(tmp_path / "clip.mkv")
    read(path)
    barcode.write(path, range(55))
    assert read(path)[0] == 55
    os.utime(path, ns=(1, 1))
    read(path)
    assert len(made) == 3


def test_a_file_that_changed_unnoticed_is_read_correctly(tmp_path: Path) -> None:
    """With the old time and size, the packets still differ from the stored index."""
    path = barcode.write(tmp_path / "clip.mkv", options={"g": "12"})
    read(path)
    other = barcode.write(tmp_path / "other.mkv", [*range(100, 160)], options={"g": "7"}).read_bytes()
    status = path.stat()
    longest = max(status.st_size, len(other))
    path.write_bytes(other + bytes(longest - len(other)))
    key = (str(path), status.st_mtime_ns, longest)
    with Video(tmp_path / "other.mkv") as video:
        right = video.frames([50, 3])
        wrong_index = load_index((str(path), status.st_mtime_ns, status.st_size))
    assert wrong_index is not None
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    store_index(key, wrong_index)
    with Video(path) as video:
        assert np.array_equal(video.frames([50, 3]), right)


def test_damaged_entries_are_ignored(tmp_path: Path, folder: Path, made: list[str]) -> None:
    path = barcode.write(tmp_path / "clip.mkv")
    fresh = read(path)
    (entry,) = folder.iterdir()
    content = entry.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(24):
        bad = bytearray(content)
        if number % 3 == 0:
            bad = bad[: rng.integers(len(bad))]
        else:
            bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        entry.write_bytes(bad)
        assert np.array_equal(read(path)[2], fresh[2])
    assert len(made) == 25


def test_entries_of_other_files_and_impossible_ones_are_ignored(tmp_path: Path, folder: Path) -> None:
    path = barcode.write(tmp_path / "clip.mkv")
    read(path)
    status = path.stat()
    key = (str(path), status.st_mtime_ns, status.st_size)
    index = load_index(key)
    assert index is not None
    (entry,) = folder.iterdir()
    entry.rename(folder / index_cache._name(("elsewhere", 1, 1)))
    assert load_index(("elsewhere", 1, 1)) is None
    index.order[7] = 1000
    store_index(key, index)
    assert load_index(key) is None


def test_every_field_is_stored(tmp_path: Path) -> None:
    index = PacketIndex(
        order=np.array([0, 2, 1], np.int32),
        rank=np.array([0, 2, 1], np.int32),
        keys=np.array([0, 2], np.int32),
        stamps=np.array([[1, 2], [-(2**63), 5]]),
        marks=np.array([7, 8, 9]),
        skippable=True,
        fps=12.5,
        promised=4,
        size=(6, 8),
        times=np.array([0.0, 1.5, 2.0]),
        is_measured=True,
        is_learned=True,
        fault="é",
        joins=np.array([1], np.int32),
    )
    key = ("é\udcff", 5, 6)
    store_index(key, index)
    loaded = load_index(key)
    assert loaded is not None
    for field in fields(PacketIndex):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(index, field.name))


def test_short_files_and_unwritable_folders_store_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = barcode.write(tmp_path / "clip.mkv")
    monkeypatch.setattr(index_cache, "DISK_FILE_BYTES", 2**20)
    read(path)
    assert not folder.exists()
    monkeypatch.setattr(index_cache, "DISK_FILE_BYTES", 0)
    monkeypatch.setenv("MMACTION_LITE_CACHE", str(path))  # a file
    assert read(path)[0] == 60
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.mkv"]


def test_the_folder_stays_within_its_bytes(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    paths = [barcode.write(tmp_path / f"{number}.mkv") for number in range(4)]
    for number, path in enumerate(paths[:3]):
        read(path)
        for entry in folder.iterdir():
            os.utime(entry, (number, number)) if entry.stat().st_mtime > 10 else None
    read(paths[0])  # the entry used last
    (folder / "killed.part").write_bytes(b"")
    os.utime(folder / "killed.part", (1, 1))
    monkeypatch.setattr(index_cache, "DISK_CACHE_BYTES", 3 * max(e.stat().st_size for e in folder.iterdir()))
    read(paths[3])
    assert len(list(folder.iterdir())) == 3
    made.clear()
    for number in (0, 2, 3, 1):
        read(paths[number])
    assert made == ["1.mkv"]


def test_memory_keeps_the_indexes_used_last(tmp_path: Path) -> None:
    with Video(barcode.write(tmp_path / "clip.mp4", range(3))) as video:
        index = video._index
    cache = IndexCache(2 * index.nbytes)
    for key in range(3):
        cache.put((key,), index)
    assert [cache.get((key,)) is index for key in range(3)] == [False, True, True]

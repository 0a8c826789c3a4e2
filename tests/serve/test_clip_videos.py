"""Videos of a data set: served as they are, or converted once."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmaction_lite.serve import clip_videos
from mmaction_lite.serve.clip_videos import ClipVideos
from mmaction_lite.serve.decoding import Reading
from mmaction_lite.serve.job_readers import AnnotationWriter
from mmaction_lite.serve.problems import Problem


class Pool:
    """Writes files without content."""

    def __init__(self) -> None:
        self.read_paths: list[Path] = []

    async def read(self, path: Path, reader: AnnotationWriter, hang_seconds: float) -> Reading:
        self.read_paths.append(path)
        await asyncio.sleep(0.01)
        if path.name == "broken.avi":
            raise Problem("unreadable-video")
        reader.out.write_bytes(path.name.encode())
        return Reading(np.empty(0, np.uint8), None, {}, 0.0, 0.0)


@pytest.fixture
def pool() -> Any:
    return Pool()


def test_playable_files_are_not_converted(pool, tmp_path):
    videos = ClipVideos(tmp_path, pool, 5.0)
    for name in ("a.mp4", "b.WEBM"):
        (tmp_path / name).touch()
        assert asyncio.run(videos.playable(tmp_path / name, name, must_convert=False)) == tmp_path / name
    assert pool.read_paths == []


def test_others_are_converted_once(pool, tmp_path):
    videos = ClipVideos(tmp_path, pool, 5.0)

    async def ask() -> list[Path]:
        paths = [videos.playable(Path("a.avi"), "id", must_convert=False) for _ in range(3)]
        return [*await asyncio.gather(*paths), await videos.playable(Path("a.avi"), "id", must_convert=False)]

    assert asyncio.run(ask()) == [tmp_path / "clip-id.mp4"] * 4
    assert pool.read_paths == [Path("a.avi")]


def test_failures_are_not_kept(pool, tmp_path):
    videos = ClipVideos(tmp_path, pool, 5.0)

    async def ask() -> None:
        for _ in range(2):
            with pytest.raises(Problem):
                await videos.playable(Path("broken.avi"), "id", must_convert=False)

    asyncio.run(ask())
    assert len(pool.read_paths) == 2


def test_the_number_of_converted_files_is_limited(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_videos, "MOST_CONVERTED", 2)
    videos = ClipVideos(tmp_path, pool, 5.0)

    async def ask() -> None:
        for name in ("a", "b", "a", "c"):
            await videos.playable(Path(f"{name}.avi"), name, must_convert=True)
        await asyncio.sleep(0.01)

    asyncio.run(ask())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip-a.mp4", "clip-c.mp4"]


def test_pipes_and_missing_files_are_converted_in_the_process(pool, tmp_path):
    videos = ClipVideos(tmp_path, pool, 5.0)
    asyncio.run(videos.playable(tmp_path / "missing.mp4", "x", must_convert=False))
    assert pool.read_paths == [tmp_path / "missing.mp4"]

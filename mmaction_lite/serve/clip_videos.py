"""Videos of a data set as files that browsers play: most as they are, the others converted once."""

import asyncio
import stat
from collections import OrderedDict
from pathlib import Path

from mmaction_lite.serve.decoding import DecodingPool, has_failed
from mmaction_lite.serve.job_readers import AnnotationWriter
from mmaction_lite.serve.problems import Problem

# Containers that browsers play.
VIDEO_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
MOST_CONVERTED = 64  # files in the private folder; the least recently used one is deleted first


class ClipVideos:
    """Finds or makes the file of a clip that a browser plays.

    Args:
        folder: private folder of converted videos.
        pool: decoding processes.
        seconds: time limit of a conversion.
    """

    def __init__(self, folder: Path, pool: DecodingPool, seconds: float) -> None:
        self._folder, self._pool, self._seconds = folder, pool, seconds
        self._converted: OrderedDict[str, asyncio.Task[Path]] = OrderedDict()

    async def playable(self, path: Path, clip: str, *, must_convert: bool) -> Path:
        """Return the video file of a clip, converted to H.264 in MP4 if it is in another container.

        Args:
            path: video file, folder of frames, or whatever else the data set lists.
            clip: identifier of the clip.
            must_convert: whether a file is converted whatever its container.

        Raises:
            Problem: the video does not exist or cannot be read.
        """
        if (
            not must_convert
            and path.suffix.lower() in VIDEO_TYPES
            and await asyncio.to_thread(_is_file, path)
        ):
            return path
        task = self._converted.pop(clip, None)
        if task is None or has_failed(task):
            task = asyncio.get_running_loop().create_task(self._convert(path, clip))
        self._converted[clip] = task  # now the most recently used one
        while len(self._converted) > MOST_CONVERTED:
            _, old = self._converted.popitem(last=False)
            old.add_done_callback(_delete)
        return await asyncio.shield(task)

    async def _convert(self, path: Path, clip: str) -> Path:
        out = self._folder / f"clip-{clip}.mp4"
        await self._pool.read(path, AnnotationWriter(out), hang_seconds=self._seconds)
        if not out.exists():
            raise Problem("unreadable-video")
        return out


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _delete(task: "asyncio.Task[Path]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().unlink(missing_ok=True)

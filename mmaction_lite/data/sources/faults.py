"""Errors of video files: the one that users see, and those that make `Video` learn more about a file."""

from collections.abc import Iterator
from contextlib import contextmanager

from av.error import FFmpegError

from mmaction_lite.data.sources.container import unreadable
from mmaction_lite.errors import VideoError, reading


class MispredictedError(VideoError):
    """The decoder returned other frames than the packet index predicts."""


class StaleIndexError(MispredictedError):
    """The file holds other packets than the packet index, which belongs to an earlier content."""


class UnknownSizeError(VideoError):
    """The size of frame 0 is needed and not known yet."""


@contextmanager
def reading_video(name: str) -> Iterator[None]:
    """Convert exceptions as `errors.reading` does; state what the operating system reports."""
    with reading(name, VideoError):
        try:
            yield
        except OSError as error:
            if isinstance(error, FFmpegError):
                raise
            raise unreadable(name, error) from None

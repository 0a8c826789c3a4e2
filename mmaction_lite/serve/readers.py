"""Read the clips of an uploaded video within limits; runs in the decoding processes.

Imports no PyTorch and no web framework.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmaction_lite.data.loading.decoder_process import SMALL_BYTES
from mmaction_lite.data.sources.resample import Size
from mmaction_lite.data.sources.sequential import frame_seconds
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import VideoError
from mmaction_lite.settings import PositiveFloat, PositiveInt, check_fields


class Described(NamedTuple):
    """What a reader returns to the server.

    Args:
        pixels: uint8 array of any shape.
        size: arguments of `TestViews.resize` that complete the pixels; None if they are complete.
        details: values about the video that can be pickled.
    """

    pixels: np.ndarray
    size: Size | None
    details: dict[str, Any]


class Reader(Protocol):
    """Picklable object that a decoding process reads a video with."""

    def read_described(self, source: Source) -> Described:
        """Read a video."""
        ...


class LimitError(VideoError):
    """A video exceeds a limit of the server.

    Args:
        kind: kind of the problem; see `problems.KINDS`.
        detail: the limit and the value.
    """

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind}|{detail}")


@dataclass(frozen=True, kw_only=True)
class VideoLimits:
    """Limits of a video, which are checked before a frame is decoded.

    Args:
        max_seconds: longest duration, in seconds.
        max_frames: largest number of frames.
        max_side: longest side of a frame, in pixels.
    """

    max_seconds: PositiveFloat
    max_frames: PositiveInt
    max_side: PositiveInt

    def __post_init__(self):
        check_fields(self)

    def check(self, source: Source) -> None:
        """Check a video.

        Raises:
            LimitError: it exceeds a limit.
        """
        height, width = source.size
        if max(height, width) > self.max_side:
            detail = f"frames of {width}x{height} pixels; expected at most {self.max_side} on each side"
            raise LimitError("frame-too-large", detail)
        if len(source) > self.max_frames:
            raise LimitError(
                "video-too-long", f"{len(source)} frames; expected at most {self.max_frames} frames"
            )
        seconds = duration_seconds(source)
        if seconds > self.max_seconds:
            raise LimitError("video-too-long", f"{seconds:.1f} s; expected at most {self.max_seconds:g} s")


def duration_seconds(source: Source) -> float:
    """Return the duration of a video, in seconds; 0 if the frame rate is unknown."""
    return len(source) / source.fps if source.fps > 0 else 0.0


def describe_video(source: Source) -> dict[str, Any]:
    """Return `duration_seconds`, `fps` (None if unknown), `num_frames` and `size` [height, width]."""
    fps = source.fps if source.fps > 0 else None
    known = {"duration_seconds": duration_seconds(source), "fps": fps, "num_frames": len(source)}
    return known | {"size": list(source.size)}


@dataclass(frozen=True, kw_only=True)
class ClipReader:
    """Read the clips of a test protocol.

    Args:
        views: views of the protocol.
        limits: limits of the video.

    `details` holds `describe_video`; `frames`, the indices of the frames of all clips, in the order of the
    pixels, int64 (n,); and `frame_seconds`, their times, see there.
    """

    views: TestViews
    limits: VideoLimits

    def __post_init__(self):
        check_fields(self)

    def read_described(self, source: Source) -> Described:
        """See `Reader`."""
        self.limits.check(source)
        pixels, size = self.views.read_small(source, SMALL_BYTES)
        frames = self.views.indices(source).reshape(-1)
        times = {"frames": frames, "frame_seconds": frame_seconds(source, frames)}
        return Described(pixels, size, describe_video(source) | times)

"""What clips are read from: video files, folders of JPEG frames, arrays; one interface for all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mmaction_lite.data.annotations.samples import Samples, Segment
from mmaction_lite.data.sources.frames import IMAGES, Frames
from mmaction_lite.data.sources.packets import unreadable
from mmaction_lite.data.sources.resample import Box, Size, crop_and_resize
from mmaction_lite.data.sources.shards import is_packed, read_packed
from mmaction_lite.data.sources.video import Video, first_at
from mmaction_lite.errors import VideoError


class Source(Protocol):
    """A video, whatever it is stored in. A context manager: closed at the end of its block."""

    @property
    def fps(self) -> float:
        """Frames per second."""
        ...

    @property
    def size(self) -> Size:
        """(height, width) of an upright frame."""
        ...

    @property
    def codec(self) -> str:
        """What the frames are compressed with."""
        ...

    def __len__(self) -> int: ...

    def index_at(self, seconds: float) -> int:
        """The first frame that is shown at this time or later; the length where there is none."""
        ...

    def __enter__(self) -> "Source": ...

    def __exit__(self, *exception: object) -> None: ...

    def frames(
        self,
        indices: Sequence[int] | np.ndarray,
        box: Box | None = None,
        size: Size | None = None,
        antialias: bool = True,
    ) -> np.ndarray:
        """uint8 (n, h, w, 3) RGB: the frames asked for, in that order, cut to `box`, resized to `size`."""
        ...


@dataclass(frozen=True)
class ArrayVideo:
    """A video that is already decoded: uint8 pixels (length, height, width, 3), RGB."""

    pixels: np.ndarray
    fps: float = 25.0

    @property
    def codec(self) -> str:
        """None."""
        return "raw"

    @property
    def size(self) -> Size:
        """(height, width) of a frame."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def __len__(self) -> int:
        return len(self.pixels)

    def index_at(self, seconds: float) -> int:
        """See `Source`."""
        return first_at(seconds, self.fps, len(self))

    def __enter__(self) -> "ArrayVideo":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def frames(
        self,
        indices: Sequence[int] | np.ndarray,
        box: Box | None = None,
        size: Size | None = None,
        antialias: bool = True,
    ) -> np.ndarray:
        """uint8 (n, h, w, 3): the frames asked for, in that order, cut to `box`, resized to `size`."""
        return crop_and_resize(self.pixels[np.asarray(indices)], box, size, antialias=antialias)


class SegmentOf:
    """A part of a video, read like a video of its own.

    Args:
        source: the whole; closed with the part.
        segment: where it begins and ends; an end behind the video's is the video's.
        name: for messages.

    Raises:
        VideoError: nothing of the video lies within the part.
    """

    def __init__(self, source: Source, segment: Segment, name: str):
        self._source = source
        whole = len(source)
        first, end = (
            segment[:2]
            if segment.in_frames
            else (source.index_at(segment.start), source.index_at(segment.end))
        )
        self._first, self._end = int(first), int(min(end, whole))
        if self._first >= self._end:
            unit = "" if segment.in_frames else f" at {source.fps:g} frames per second"
            raise VideoError(f"{name}: holds no frame; the video has {whole}{unit}")
        self.fps, self.size, self.codec = source.fps, source.size, source.codec
        # A list may say how many frames there are; one more or less is the field's classic mistake.
        is_short = segment.in_frames and math.isfinite(end) and end > whole
        self.note = f"lists frames up to {end:g}, there are {whole}" if is_short else ""

    def __len__(self) -> int:
        return self._end - self._first

    def index_at(self, seconds: float) -> int:
        """See `Source`; the part begins at 0."""
        return first_at(seconds, self.fps, len(self))

    def __enter__(self) -> "SegmentOf":
        return self

    def __exit__(self, *exception: object) -> None:
        self._source.__exit__(*exception)

    def frames(
        self,
        indices: Sequence[int] | np.ndarray,
        box: Box | None = None,
        size: Size | None = None,
        antialias: bool = True,
    ) -> np.ndarray:
        """uint8 (n, h, w, 3): the frames asked for, counted from the part's first."""
        wanted = np.asarray(indices)
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise IndexError(f"frames {wanted.min()} to {wanted.max()} of a part with {len(self)}")
        return self._source.frames(wanted + self._first, box, size, antialias)


def open_sample(samples: Samples, sample: int) -> Source:
    """The video of a sample, or the part of it that the sample is.

    Raises:
        VideoError: it cannot be read.
    """
    source, segment = open_source(samples.path(sample)), samples.segment(sample)
    if segment is None:
        return source
    try:
        return SegmentOf(source, segment, samples.name(sample))
    except BaseException:
        source.__exit__()
        raise


def open_source(path: Path) -> Source:
    """A video file, or a folder or .zip file of JPEG frames; also one in a tar file or on a server.

    Raises:
        VideoError: the path is missing or cannot be read as either.
    """
    try:
        if is_packed(path):
            (name, data), *others = read_packed(path)
            if others or Path(name).suffix.lower() in IMAGES:
                return Frames(path, images=[(name, data), *others])
            return Video(path, data)
        if path.exists() and not path.is_file() and not path.is_dir():
            # Opening a pipe would wait for ever.
            raise VideoError(f"{path}: is neither a file nor a folder")
        return Frames(path) if path.is_dir() or path.suffix.lower() == ".zip" else Video(path)
    except OSError as error:  # a file may vanish, or its disk fail, between two looks at it
        raise unreadable(str(path), error) from None

"""Video sources: video files, frame directories, arrays and segments of them behind one interface."""

import inspect
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Protocol

import numpy as np

from mmaction_lite.data.annotations.samples import Samples, Segment, absolute, is_remote
from mmaction_lite.data.sources.frames import Frames, is_image, split_pattern
from mmaction_lite.data.sources.packets import first_at
from mmaction_lite.data.sources.resample import Box, Interpolation, Size, crop_and_resize
from mmaction_lite.data.sources.shards import has_member, is_packed, read_packed
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import UserError, VideoError, reading

PathInput = str | PathLike[str]


class Source(Protocol):
    """Interface of all video sources; a context manager, which closes the source at its end."""

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
        """Name of the codec."""
        ...

    def __len__(self) -> int: ...

    def index_at(self, seconds: float) -> int:
        """Return the first frame presented at this time or later; the length if there is none."""
        ...

    def __enter__(self) -> "Source": ...

    def __exit__(self, *exception: object) -> None: ...

    def frames(
        self,
        indices: Sequence[int] | np.ndarray,
        box: Box | None = None,
        size: Size | None = None,
        antialias: bool = True,
        interpolation: Interpolation = "bilinear",
    ) -> np.ndarray:
        """Return the requested frames, cropped to `box` and resized to `size`; see `Video.frames`.

        Sources without the argument `interpolation` work as well: `read_frames` resizes their frames itself
        if it is not "bilinear".

        Returns:
            uint8 (n, h, w, 3) RGB, in the order of `indices`.
        """
        ...


def read_frames(
    source: Source,
    indices: Sequence[int] | np.ndarray,
    box: Box | None,
    size: Size | None,
    *,
    antialias: bool,
    interpolation: Interpolation,
) -> np.ndarray:
    """Return `source.frames`, also of a source without the argument `interpolation`."""
    if interpolation == "bilinear":
        return source.frames(indices, box, size, antialias)
    if "interpolation" in inspect.signature(source.frames).parameters:
        return source.frames(indices, box, size, antialias, interpolation)
    cropped = source.frames(indices, box, None, antialias)
    return crop_and_resize(cropped, None, size, antialias=antialias, interpolation=interpolation)


@dataclass(frozen=True)
class ArrayVideo:
    """A decoded video.

    Args:
        pixels: uint8 (length, height, width, 3) RGB.
        fps: frames per second.
    """

    pixels: np.ndarray
    fps: float = 25.0

    @property
    def codec(self) -> str:
        """ "raw": the pixels are not compressed."""
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
        interpolation: Interpolation = "bilinear",
    ) -> np.ndarray:
        """See `Source`."""
        pixels = self.pixels[np.asarray(indices)]
        return crop_and_resize(pixels, box, size, antialias=antialias, interpolation=interpolation)


class SegmentOf:
    """A segment of a video, with the interface of a video.

    Args:
        source: the whole video, which is closed with the segment.
        segment: its start and end; an end after the end of the video is moved there.
        name: for messages.

    Attributes:
        whole: the whole video.
        first: number of the first frame of the segment in the whole video.
        note: the warning of the source, if any, and one if the segment ends after the end of the video.

    Raises:
        VideoError: no frame of the video lies in the segment.
    """

    def __init__(self, source: Source, segment: Segment, name: str):
        self.whole = source
        whole = len(source)
        first, end = (
            segment[:2]
            if segment.in_frames
            else (source.index_at(segment.start), source.index_at(segment.end))
        )
        self.first, self._end = int(first), int(min(end, whole))
        if self.first >= self._end:
            unit = "" if segment.in_frames else f" at {source.fps:g} frames per second"
            raise VideoError(f"{name}: the segment contains no frame; the video has {whole} frames{unit}")
        self.fps, self.size, self.codec = source.fps, source.size, source.codec
        # Annotation files that list one frame too many are a common error in this field.
        is_short = segment.in_frames and math.isfinite(end) and end > whole
        short = f"lists frames up to {end:g}, but the video has {whole}" if is_short else ""
        self.note = "; ".join(filter(None, [getattr(source, "note", ""), short]))

    def __len__(self) -> int:
        return self._end - self.first

    def index_at(self, seconds: float) -> int:
        """See `Source`; time 0 is the start of the segment."""
        return first_at(seconds, self.fps, len(self))

    def __enter__(self) -> "SegmentOf":
        return self

    def __exit__(self, *exception: object) -> None:
        self.whole.__exit__(*exception)

    def frames(
        self,
        indices: Sequence[int] | np.ndarray,
        box: Box | None = None,
        size: Size | None = None,
        antialias: bool = True,
        interpolation: Interpolation = "bilinear",
    ) -> np.ndarray:
        """See `Source`; index 0 is the first frame of the segment."""
        wanted = np.asarray(indices)
        if wanted.min() < 0 or wanted.max() >= len(self):
            found = f"{wanted.min()} to {wanted.max()}"
            raise IndexError(f"frames {found} of a segment: out of range; expected 0 to {len(self) - 1}")
        return read_frames(
            self.whole, wanted + self.first, box, size, antialias=antialias, interpolation=interpolation
        )


def open_sample(samples: Samples, sample: int) -> Source:
    """Open the video of a sample, or the segment of it that the sample names.

    Raises:
        VideoError: the video cannot be read, or contains no frame of the segment.
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
    """Open a video file, or a directory or .zip file of images; also in a tar file or on a server.

    Args:
        path: the file or directory. A pattern of the frames, such as `left_*.jpg`, may follow a directory or
            .zip file; see `frame_names.select_frames`.

    Raises:
        VideoError: the path does not exist, or cannot be read as any of these.
    """
    with reading(path, VideoError):
        folder, pattern = split_pattern(path)
        if pattern and is_packed(path) and has_member(path):
            folder, pattern = path, None
        if is_packed(folder):
            (name, data), *others = read_packed(folder)
            if others or is_image(name):
                return Frames(folder, images=[(name, data), *others], pattern=pattern)
            return Video(path, data)
        if folder.exists() and not folder.is_file() and not folder.is_dir():
            # Opening a named pipe would block forever.
            raise VideoError(f"{path}: is neither a file nor a directory")
        if pattern or folder.is_dir() or folder.suffix.lower() == ".zip":
            return Frames(folder, pattern=pattern)
        return Video(path)


def as_path(video: PathInput) -> Path:
    """Return a path, with a leading `~` replaced by the home folder.

    Raises:
        UserError: the path is empty, or is given as bytes.
    """
    text = os.fspath(video)
    if not isinstance(text, str):
        raise UserError(f"a path is {type(text).__name__}; expected str or pathlib.Path")
    if not text:
        raise UserError("a path is empty; expected the path of a video")
    if text.startswith("~") and not os.path.lexists(text):
        return Path(os.path.expanduser(text))  # noqa: PTH111  Path.expanduser raises for unknown users
    return Path(text)


def path_name(path: PathInput) -> str:
    """Return the name of a path or an address for results and messages."""
    text = os.fspath(path)
    return absolute(text) if is_remote(text) else str(as_path(path))

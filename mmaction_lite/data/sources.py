"""What clips are read from: video files, folders of JPEG frames, arrays; one interface for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mmaction_lite.data.frames import Frames
from mmaction_lite.data.transforms import Box, Size, crop_and_resize
from mmaction_lite.data.video import Video
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

    def __len__(self) -> int: ...

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
    def size(self) -> Size:
        """(height, width) of a frame."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def __len__(self) -> int:
        return len(self.pixels)

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


def open_source(path: Path) -> Source:
    """A video file or a folder of JPEG frames.

    Raises:
        VideoError: the path is missing or cannot be read as either.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise VideoError(f"{path}: is neither a file nor a folder")  # opening a pipe would wait for ever
    return Frames(path) if path.is_dir() else Video(path)

"""A directory or a zip file of JPEG frames, read like a video file."""

import io
import math
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from PIL import Image

from mmaction_lite.data.sources.resample import Box, Size
from mmaction_lite.data.sources.video import collect, first_at
from mmaction_lite.errors import VideoError

try:
    import simplejpeg
except ImportError:  # the extra `jpeg`: the same pixels in half the time
    simplejpeg = None

JPEG = (".jpg", ".jpeg")
IMAGES = (*JPEG, ".png", ".bmp", ".webp")
DIGITS = str.maketrans("123456789", "0" * 9)


class Frames:
    """A directory or a .zip file whose images are the frames of one video; the interface of `Video`.

    Frames are in natural order of their names (`2.jpg` before `10.jpg`) and all of one size. Names that begin
    with a dot do not count.

    Args:
        path: the directory or zip file; files in it that are no images do not count.
        fps: frames per second; image files do not tell it.
        images: names and bytes of the images, where they are in memory already; `path` is then a name only.

    Raises:
        VideoError: no such directory, not a zip file, or no image in it.
    """

    codec = "image"

    def __init__(
        self,
        path: str | PathLike[str],
        fps: float = math.nan,
        images: Sequence[tuple[str, bytes]] | None = None,
    ) -> None:
        self.path = str(path)
        self.fps = fps
        self._zip = None
        self._images = {Path(name).name: data for name, data in images or ()}
        if images:
            names = list(self._images)
        elif Path(path).suffix.lower() == ".zip" and Path(path).is_file():
            try:
                self._zip = ZipFile(path)
            except (BadZipFile, OSError) as error:
                raise VideoError(f"{path}: is not a zip file ({error})") from None
            names = self._zip.namelist()
        elif Path(path).is_dir():
            names = os.listdir(path)  # noqa: PTH208  paths would take twice as long
        else:
            raise VideoError(f"{path}: is not a directory of frames")
        self._names = in_natural_order(name for name in names if is_image(name))
        if not self._names:
            self.close()
            raise VideoError(f"{path}: no image in it ({', '.join(sorted(IMAGES))})")

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the zip file; of a directory nothing stays open between reads."""
        if self._zip:
            self._zip.close()

    def __len__(self) -> int:
        return len(self._names)

    def index_at(self, seconds: float) -> int:
        """See `Source`; VideoError where no frame rate was given."""
        if math.isnan(self.fps):
            raise VideoError(f"{self.path}: frames have no times of their own; give parts of it in frames")
        return first_at(seconds, self.fps, len(self))

    @property
    def size(self) -> Size:
        """(height, width) of the frames, from the header of the first."""
        try:
            with Image.open(io.BytesIO(self._load(0))) as image:
                return image.height, image.width
        except OSError as error:
            raise VideoError(f"{self._name(0)}: is no image ({error})") from None

    def frames(
        self, indices: Iterable[int], box: Box | None = None, size: Size | None = None, antialias: bool = True
    ) -> np.ndarray:
        """Exactly the frames asked for, each file read once; see `Video.frames`.

        Whole frames that are at least twice as large as `size` are decoded at a reduced scale, which is an
        antialiased reduction by itself; not when `antialias` is off, for then other pixels are wanted.
        """
        wanted = np.asarray(list(indices), dtype=np.int64)
        least = size if antialias and box is None else None
        return collect(self._decode(wanted, least), wanted, box, size, antialias)

    def _decode(self, wanted: np.ndarray, least: Size | None) -> Iterator[tuple[int, np.ndarray]]:
        shape = None
        for index in np.unique(wanted).tolist():
            if not 0 <= index < len(self):
                raise IndexError(
                    f"{self.path}: frame {index} was asked for; the video has frames 0 to {len(self) - 1}"
                )
            pixels = decode_image(self._load(index), self._name(index), least)
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise VideoError(
                    f"{self._name(index)}: is {pixels.shape[0]}x{pixels.shape[1]}, "
                    f"the frames before it are {shape[0]}x{shape[1]}"
                )
            yield index, pixels

    def _name(self, index: int) -> str:
        return f"{self.path}/{self._names[index]}"

    def _load(self, index: int) -> bytes:
        if self._images:
            return self._images[self._names[index]]
        try:
            return self._zip.read(self._names[index]) if self._zip else Path(self._name(index)).read_bytes()
        except (OSError, BadZipFile, zlib.error) as error:
            raise VideoError(f"{self._name(index)}: cannot be read ({error})") from None


def decode_image(data: bytes, name: str, least: Size | None = None) -> np.ndarray:
    """uint8 (height, width, 3) RGB; JPEG at the smallest scale that is no smaller than `least`, if given.

    Raises:
        VideoError: it is no sound image.
    """
    try:
        if simplejpeg and name.lower().endswith(JPEG):
            # The smallest of TurboJPEG's scales is 1/8.
            height, width = least or (0, 0)
            return simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
        with Image.open(io.BytesIO(data)) as image:
            if least:
                image.draft("RGB", (least[1], least[0]))
            return np.array(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise VideoError(f"{name}: is no sound image ({error})") from None


def is_image(name: str) -> bool:
    """Whether a name is that of an image, and not that of a hidden file."""
    return name.lower().endswith(IMAGES) and not name.rpartition("/")[2].startswith(".")


def in_natural_order(names: Iterable[str]) -> list[str]:
    """The names, their numbers ordered by value.

    Those of a video mostly differ in digits alone; they are in order without taking each apart, which would
    take longer than decoding two frames.
    """
    names = list(names)
    alike = len({name.translate(DIGITS) for name in names}) <= 1
    return sorted(names) if alike else sorted(names, key=natural_key)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts the numbers in names by value."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

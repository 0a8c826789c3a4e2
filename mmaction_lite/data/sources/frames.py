"""Frame directories and zip files of images, with the interface of a video file."""

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

from mmaction_lite.data.sources.resample import Box, Size, collect
from mmaction_lite.data.sources.video import first_at
from mmaction_lite.errors import VideoError

try:
    import simplejpeg
except ImportError:  # optional (extra `jpeg`): decodes the same pixels in half the time
    simplejpeg = None

JPEG = (".jpg", ".jpeg")
IMAGES = (*JPEG, ".png", ".bmp", ".webp")
DIGITS = str.maketrans("123456789", "0" * 9)


class Frames:
    """A directory or .zip file whose images are the frames of one video, with the interface of `Video`.

    Frames are in natural order of their names (`2.jpg` before `10.jpg`) and must have the same size. Files
    with other suffixes, and names that begin with a dot, are ignored.

    Args:
        path: the directory or zip file.
        fps: frames per second, which image files do not contain; NaN if unknown.
        images: names and bytes of images that are in memory already; `path` is then used in messages only.

    Raises:
        VideoError: the directory does not exist, the file is not a zip file, or there is no image in it.
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
            names = os.listdir(path)  # noqa: PTH208  Path.iterdir takes twice as long
        else:
            raise VideoError(f"{path}: is not a directory of frames; expected a directory or a .zip file")
        self._names = in_natural_order(name for name in names if is_image(name))
        if not self._names:
            self.close()
            raise VideoError(f"{path}: contains no image; expected files named {', '.join(sorted(IMAGES))}")

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the zip file. For a directory, no file stays open between reads."""
        if self._zip:
            self._zip.close()

    def __len__(self) -> int:
        return len(self._names)

    def index_at(self, seconds: float) -> int:
        """See `Source`.

        Raises:
            VideoError: the frame rate is unknown.
        """
        if math.isnan(self.fps):
            raise VideoError(f"{self.path}: image files have no times; give segments in frames, not seconds")
        return first_at(seconds, self.fps, len(self))

    @property
    def size(self) -> Size:
        """(height, width) of the frames, from the header of the first image."""
        try:
            with Image.open(io.BytesIO(self._load(0))) as image:
                return image.height, image.width
        except OSError as error:
            raise VideoError(f"{self._name(0)}: is not an image ({error})") from None

    def frames(
        self, indices: Iterable[int], box: Box | None = None, size: Size | None = None, antialias: bool = True
    ) -> np.ndarray:
        """Decode exactly the requested frames, each file once; see `Video.frames`.

        Without a `box` and with `antialias`, JPEG frames that are at least twice as large as `size` are
        decoded at a reduced scale, which is an antialiased reduction.
        """
        wanted = np.asarray(list(indices), dtype=np.int64)
        least = size if antialias and box is None else None
        return collect(self._decode(wanted, least), wanted, box, size, antialias)

    def _decode(self, wanted: np.ndarray, least: Size | None) -> Iterator[tuple[int, np.ndarray]]:
        shape = None
        for index in np.unique(wanted).tolist():
            if not 0 <= index < len(self):
                raise IndexError(f"{self.path}: frame {index} is out of range; expected 0 to {len(self) - 1}")
            pixels = decode_image(self._load(index), self._name(index), least)
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise VideoError(
                    f"{self._name(index)}: size {pixels.shape[0]}x{pixels.shape[1]}; "
                    f"expected {shape[0]}x{shape[1]} as in the other frames"
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
    """Decode an image.

    Args:
        data: the bytes of the file.
        name: for messages, and to recognize JPEG by its suffix.
        least: decode JPEG at its smallest scale that is not smaller than this size; None for full size.

    Returns:
        uint8 (height, width, 3) RGB.

    Raises:
        VideoError: the data is not an image, or is damaged.
    """
    try:
        if simplejpeg and name.lower().endswith(JPEG):
            # The smallest scale of libjpeg-turbo is 1/8.
            height, width = least or (0, 0)
            return simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
        with Image.open(io.BytesIO(data)) as image:
            if least:
                image.draft("RGB", (least[1], least[0]))
            return np.array(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise VideoError(f"{name}: is not an image or is damaged ({error})") from None


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image and does not begin with a dot."""
    return name.lower().endswith(IMAGES) and not name.rpartition("/")[2].startswith(".")


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort names, with the numbers in them compared by value.

    If names differ in digits only and have the same length, as those of most videos, plain sorting gives the
    same order. Splitting every name takes longer than decoding two frames.
    """
    names = list(names)
    alike = len({name.translate(DIGITS) for name in names}) <= 1
    return sorted(names) if alike else sorted(names, key=natural_key)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key of a name in which numbers compare by value."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

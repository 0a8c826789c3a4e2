"""A directory of JPEG frames, read like a video file."""

import math
import re
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from mmaction_lite.data.transforms import Box, Size
from mmaction_lite.data.video import collect, first_at
from mmaction_lite.errors import VideoError

try:
    import simplejpeg
except ImportError:  # the extra `jpeg`: the same pixels in half the time
    simplejpeg = None

JPEG = {".jpg", ".jpeg"}
IMAGES = JPEG | {".png", ".bmp", ".webp"}


class Frames:
    """A directory whose images are the frames of one video; the interface of `Video`.

    Frames are in natural order of their names (`2.jpg` before `10.jpg`) and all of one size.

    Args:
        path: the directory; files in it that are no images do not count.
        fps: frames per second; image files do not tell it.

    Raises:
        VideoError: no such directory, or no image in it.
    """

    codec = "image"

    def __init__(self, path: str | PathLike[str], fps: float = math.nan) -> None:
        self.path = str(path)
        self.fps = fps
        if not Path(path).is_dir():
            raise VideoError(f"{path}: is not a directory of frames")
        self._files = sorted(
            (file for file in Path(path).iterdir() if file.suffix.lower() in IMAGES), key=natural_key
        )
        if not self._files:
            raise VideoError(f"{path}: no image in this directory ({', '.join(sorted(IMAGES))})")

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing stays open between reads."""

    def __len__(self) -> int:
        return len(self._files)

    def index_at(self, seconds: float) -> int:
        """See `Source`; VideoError where no frame rate was given."""
        if math.isnan(self.fps):
            raise VideoError(f"{self.path}: frames have no times of their own; give parts of it in frames")
        return first_at(seconds, self.fps, len(self))

    @property
    def size(self) -> Size:
        """(height, width) of the frames, from the header of the first."""
        try:
            with Image.open(self._files[0]) as image:
                return image.height, image.width
        except OSError as error:
            raise VideoError(f"{self._files[0]}: is no image ({error})") from None

    def frames(
        self, indices: Iterable[int], box: Box | None = None, size: Size | None = None, antialias: bool = True
    ) -> np.ndarray:
        """Exactly the frames asked for, each file read once; see `Video.frames`."""
        wanted = np.asarray(list(indices), dtype=np.int64)
        return collect(self._decode(wanted), wanted, box, size, antialias)

    def _decode(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        shape = None
        for index in np.unique(wanted).tolist():
            if not 0 <= index < len(self):
                raise IndexError(
                    f"{self.path}: frame {index} was asked for; the video has frames 0 to {len(self) - 1}"
                )
            pixels = read_image(self._files[index])
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise VideoError(
                    f"{self._files[index]}: is {pixels.shape[0]}x{pixels.shape[1]}, "
                    f"the frames before it are {shape[0]}x{shape[1]}"
                )
            yield index, pixels


def read_image(file: Path) -> np.ndarray:
    """uint8 (height, width, 3) RGB; VideoError when the file is no sound image."""
    try:
        if simplejpeg and file.suffix.lower() in JPEG:
            return simplejpeg.decode_jpeg(file.read_bytes(), "RGB")
        with Image.open(file) as image:
            return np.array(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise VideoError(f"{file}: is no sound image ({error})") from None


def natural_key(file: Path) -> list[tuple[int, str]]:
    """Sorts the numbers in names by value."""
    parts = re.split(r"(\d+)", file.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]

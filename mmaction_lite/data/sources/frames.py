"""Frame directories and zip files of images, with the interface of a video file."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

from mmaction_lite.data.annotations.class_folders import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from mmaction_lite.data.sources.frame_names import Selection, select_frames
from mmaction_lite.data.sources.images import MAX_BYTES, decode_image, image_size
from mmaction_lite.data.sources.packets import first_at
from mmaction_lite.data.sources.resample import Box, Interpolation, Size, collect
from mmaction_lite.errors import VideoError, describe, reading
from mmaction_lite.files import open_regular

IMAGES = tuple(sorted(IMAGE_SUFFIXES))
STEP_BYTES = 2**12  # of compressed data
ENCRYPTED = 1  # bit of ZipInfo.flag_bits


class Frames:
    """A directory or .zip file whose images are the frames of one video, with the interface of `Video`.

    Frames are in natural order of their names (`2.jpg` before `10.jpg`) and must have the same size. Files
    with other suffixes, and names that begin with a dot, are ignored. If the images are of several kinds,
    such as `img_00001.jpg` and `flow_x_00001.jpg`, the frames are chosen as `select_frames` describes.

    Args:
        path: the directory or zip file.
        fps: frames per second, which image files do not contain; NaN if unknown.
        images: names and bytes of images that are in memory already; `path` is then used in messages only.
        pattern: names of the frames, see `select_frames`.

    Raises:
        VideoError: the directory does not exist, the file is not a zip file, there is no image in it, or it
            is ambiguous which images are the frames or whether the videos in it are the clips.
    """

    codec = "image"

    def __init__(
        self,
        path: str | PathLike[str],
        fps: float = math.nan,
        images: Sequence[tuple[str, bytes]] | None = None,
        pattern: str | None = None,
    ) -> None:
        self.path = str(path)
        self.fps = fps
        self._zip = None
        self._size = None
        self._images = dict(images or ())
        try:
            with reading(path, VideoError):
                self._selection = self._select(pattern)
        except BaseException:
            self.close()
            raise
        self._names = self._selection.names

    def _select(self, pattern: str | None) -> Selection:
        path = Path(self.path)
        if self._images:
            names = list(self._images)
        elif path.suffix.lower() == ".zip" and path.is_file():
            try:
                self._zip = ZipFile(path)
            except Exception as error:
                raise VideoError(f"{path}: is not a zip file ({describe(error)})") from None
            names = self._zip.namelist()
        elif path.is_dir():
            names = os.listdir(path)  # noqa: PTH208  Path.iterdir takes twice as long
        else:
            raise VideoError(f"{path}: is not a directory of frames; expected a directory or a .zip file")
        images = [name for name in names if is_image(name)]
        if not images:
            raise VideoError(f"{path}: contains no image; expected files named {', '.join(IMAGES)}")
        if pattern is None and len(images) < len(names):
            _check_videos(names, len(images), self.path)
        if self._zip and len(set(images)) < len(images):
            raise VideoError(f"{path}: contains two files of one name; expected one image per frame")
        return select_frames(images, self.path, pattern)

    @property
    def note(self) -> str:
        """A warning about images that are not read and about missing frame numbers, or an empty string."""
        return self._selection.note

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
        """(height, width) of the frames, which is that of the first image."""
        if self._size is None:
            self._size = image_size(self._load(0), self._name(0))
        return self._size

    def frames(
        self,
        indices: Iterable[int],
        box: Box | None = None,
        size: Size | None = None,
        antialias: bool = True,
        interpolation: Interpolation = "bilinear",
    ) -> np.ndarray:
        """Decode exactly the requested frames, each file once; see `Video.frames`.

        Without a `box`, with `antialias` and bilinear interpolation, JPEG frames that are at least twice as
        large as `size` are decoded at a reduced scale, which is an antialiased reduction.
        """
        wanted = np.asarray(list(indices), dtype=np.int64)
        least = size if antialias and interpolation == "bilinear" and box is None else None
        decoded = self._decode(wanted, least)
        return collect(decoded, wanted, box, size, antialias=antialias, interpolation=interpolation)

    def _decode(self, wanted: np.ndarray, least: Size | None) -> Iterator[tuple[int, np.ndarray]]:
        for index in np.unique(wanted).tolist():
            if not 0 <= index < len(self):
                raise IndexError(f"{self.path}: frame {index} is out of range; expected 0 to {len(self) - 1}")
            name, data = self._name(index), self._load(index)
            size = self._size = self._size or image_size(data if index == 0 else self._load(0), self._name(0))
            pixels = decode_image(data, name, least)
            # A JPEG may have been decoded at a reduced scale; its header holds its size.
            found = image_size(data, name) if least and data.startswith(b"\xff\xd8") else pixels.shape[:2]
            if found != size:
                raise VideoError(
                    f"{name}: size {found[0]}x{found[1]}; expected {size[0]}x{size[1]} as in the other frames"
                )
            yield index, pixels

    def _name(self, index: int) -> str:
        name = self._names[index]
        return name if self._images else f"{self.path}/{name}"

    def _load(self, index: int) -> bytes:
        name = self._names[index]
        if self._images:
            return self._images[name]
        with reading(self._name(index), VideoError):
            if not self._zip:
                return read_image_file(self._name(index))
            info = self._zip.getinfo(name)
            if info.flag_bits & ENCRYPTED:
                raise VideoError(f"{self.path}: is encrypted; expected a zip file without a password")
            if info.file_size > MAX_BYTES:
                size = f"{info.file_size} bytes"
                raise VideoError(f"{self._name(index)}: has {size}; expected an image of at most {MAX_BYTES}")
            # With another compression, zipfile does not limit how much it decompresses at once.
            step = max(1, info.file_size) if info.compress_type in (ZIP_STORED, ZIP_DEFLATED) else STEP_BYTES
            with self._zip.open(info) as member:
                return b"".join(iter(lambda: member.read(step), b""))


def _check_videos(names: Sequence[str], num_images: int, path: str) -> None:
    """Check that a directory with images is not one of videos, with thumbnails beside them.

    Raises:
        VideoError: it contains at least as many videos as images.
    """
    visible = (name for name in names if not os.path.basename(name).startswith("."))  # noqa: PTH119
    num_videos = sum(os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES for name in visible)  # noqa: PTH122
    if num_videos >= num_images:
        raise VideoError(
            f"{path}: contains {num_videos} videos and {num_images} images; expected the frames of one "
            f"video. Move the videos, or append the pattern of the frames to the path: {path}/*.jpg"
        )


def read_image_file(path: str) -> bytes:
    """Read a regular file of at most `MAX_BYTES`; opening a named pipe or a device could block.

    Raises:
        OSError: the file cannot be opened or read.
        VideoError: it is not a regular file, or is too large.
    """
    with open_regular(path, VideoError(f"{path}: is not a file; expected an image")) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise VideoError(f"{path}: has {size} bytes; expected an image of at most {MAX_BYTES}")
        return file.read()


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of an image, and no part of the name is hidden."""
    if not name.lower().endswith(IMAGES):
        return False
    # Archives made on macOS contain a folder __MACOSX of files that are not images.
    return not (name.startswith((".", "__MACOSX/")) or "/." in name)


def split_pattern(path: Path) -> tuple[Path, str | None]:
    """Split the pattern of the frames, such as `left_*.jpg`, from the path of a directory or .zip file.

    Returns:
        the path, and the pattern; None if the path has none, or if a file has this name.
    """
    if "*" not in path.name or path.exists():
        return path, None
    archive = next((folder for folder in path.parents if folder.suffix.lower() == ".zip"), path.parent)
    if not archive.is_file():
        archive = path.parent
    return archive, path.relative_to(archive).as_posix()

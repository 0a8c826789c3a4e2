"""Everything that a user may pass as a video, opened as a source.

A video is the path or the address of a file, a folder of frames, a pattern of frames, a NumPy array, a torch
tensor, the contents of a file (`bytes`), or a file object opened in binary mode.
"""

import io
from collections.abc import Iterable, Iterator
from os import PathLike
from typing import IO, Any, TypeGuard

import numpy as np
from torch import Tensor

from mmaction_lite.data.sources.source import ArrayVideo, PathInput, Source, as_path, open_source, path_name
from mmaction_lite.data.sources.video import Video
from mmaction_lite.data.tools.find import find_clips
from mmaction_lite.errors import UserError, VideoError, printable, reading

Contents = bytes | bytearray | memoryview
OneVideo = PathInput | np.ndarray | Tensor | Contents | IO[bytes] | Source
LAYOUT = "expected uint8 (length, height, width, 3) in RGB"


def is_path(video: Any) -> TypeGuard[PathInput]:
    """Whether an input is a path, an address or a pattern."""
    return isinstance(video, str | PathLike)


def is_one(videos: Any) -> bool:
    """Whether an argument is one input, not an iterable of inputs. A path may still stand for several."""
    is_source = hasattr(videos, "frames") and hasattr(videos, "index_at")
    return (
        is_path(videos) or isinstance(videos, np.ndarray | Tensor | Contents) or _is_file(videos) or is_source
    )


def expand(videos: Iterable[OneVideo]) -> Iterator[OneVideo]:
    """Yield the videos that inputs stand for.

    A folder of clips, or a pattern that matches several, is replaced by its clips in alphabetical order; see
    `find_clips`. All other inputs are yielded unchanged. Unlike `find_clips`, a path that is given twice is
    yielded twice, so that results correspond to inputs.

    Raises:
        UserError: see `find_clips`.
    """
    for video in videos:
        if is_path(video):
            yield from find_clips([as_path(video)])
        else:
            yield video


def name_of(video: OneVideo, number: int) -> str:
    """Return the name of an input for results and messages.

    Args:
        video: the input.
        number: its position among the inputs, from 0, which identifies inputs without a name.
    """
    if is_path(video):
        return path_name(video)
    if isinstance(video, np.ndarray):
        return f"array {number}"
    if isinstance(video, Tensor):
        return f"tensor {number}"
    if isinstance(video, Contents):
        return f"bytes {number}"
    name = getattr(video, "path", getattr(video, "name", None))
    return name if isinstance(name, str) and name else f"video {number}"


def open_input(video: OneVideo, name: str) -> Source:
    """Open an input as a source.

    Args:
        video: the input: one video, as `expand` yields them. A file object is read from its position to its
            end, and its position is restored. A source is returned unchanged.
        name: see `name_of`.

    Raises:
        VideoError: the video cannot be read.
        UserError: the input has another type, dtype or shape.
    """
    if is_path(video):
        return open_source(as_path(video))
    if isinstance(video, np.ndarray | Tensor):
        return ArrayVideo(_frames(video, name))
    if isinstance(video, Contents):
        return Video(name, bytes(video))
    if _is_file(video):
        return Video(name, _contents(video, name))
    if _is_source(video):
        return video
    raise UserError(
        f"{name}: is of type {type(video).__name__}; expected a path, an address, an array or a tensor of "
        "frames, bytes, or a file opened in binary mode"
    )


def _is_source(video: Any) -> TypeGuard[Source]:
    return hasattr(video, "frames") and hasattr(video, "index_at")


def _is_file(video: Any) -> TypeGuard[IO[bytes]]:
    return callable(getattr(video, "read", None)) and not _is_source(video)


def _contents(file: IO[bytes], name: str) -> bytes:
    """Return what a file object holds from its position on."""
    shown = printable(name)
    if isinstance(file, io.TextIOBase):
        raise UserError(f"{shown}: the file is open in text mode; expected binary mode, open(path, 'rb')")
    with reading(shown, VideoError, "expected a readable file object in binary mode"):
        position = file.tell() if file.seekable() else None
        data = file.read()
        if position is not None:
            file.seek(position)
    if not isinstance(data, bytes):
        raise UserError(f"{shown}: read() returned {type(data).__name__}; expected bytes of a video file")
    if not data and position:
        raise VideoError(f"{shown}: the file object is at its end; call seek(0) before")
    return data


def _frames(video: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Return the frames of an array or a tensor, uint8 (length, height, width, 3).

    Raises:
        UserError: the dtype or the shape is another, or the position of the channels is ambiguous.
    """
    shape, dtype = tuple(video.shape), str(video.dtype).removeprefix("torch.")
    problem = f"{name}: pixels are {dtype} {shape}; {LAYOUT}"
    if dtype != "uint8":
        raise UserError(f"{problem}. Pass the values 0 to 255 of the frames; the model normalizes them")
    pixels = video.detach().cpu().numpy() if isinstance(video, Tensor) else video
    if pixels.ndim == 5:
        raise UserError(f"{problem}. Pass several videos as a list of arrays")
    if pixels.ndim == 3:
        raise UserError(f"{problem}. Join the frames of a video with numpy.stack")
    if pixels.ndim != 4 or 0 in shape or 3 not in (shape[1], shape[3]):
        raise UserError(problem)
    if shape[1] == shape[3]:
        raise UserError(f"{problem}, and both dimension 1 and dimension 3 may be the channels")
    return pixels if shape[3] == 3 else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))

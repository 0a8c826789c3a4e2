"""Read many frames of a video in order, each decoded once, in constant memory.

`Video.frames` begins at the keyframe before its first frame. Consecutive calls for a few frames each would
decode the beginning of every GOP again and again. `read_in_order` decodes from keyframe to keyframe instead.
It also continues behind damaged frames. This module is the part of `Video` for long videos, and uses its
internals.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from mmaction_lite.data.sources.faults import MispredictedError, UnknownSizeError
from mmaction_lite.data.sources.resample import Interpolation, Size, crop_and_resize
from mmaction_lite.data.sources.source import SegmentOf, Source, read_frames
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import VideoError

# Frames of a video file that are decoded by one pass, rounded up to whole GOPs; bounds the memory.
PASS_FRAMES = 2048
# Damaged places after which the rest of a video counts as unreadable.
MOST_FAULTS = 100

OnFault = Callable[[VideoError, int, int], None]
"""Called with an error, the first of the frames that cannot be read, and the frame after the last one."""
Pixels = Iterator[tuple[int, np.ndarray]]


def frame_times(source: Source) -> np.ndarray:
    """Return the presentation times of all frames in seconds after frame 0, float64 (len(source),).

    They are the times in the file if its frame rate varies, and multiples of 1 / fps otherwise.

    Raises:
        VideoError: the frame rate is unknown.
    """
    if isinstance(source, SegmentOf):
        times = frame_times(source.whole)[source.first : source.first + len(source)]
        return times - times[0]
    times = source.times() if isinstance(source, Video) else None
    if times is None:
        if not source.fps > 0:
            name = getattr(source, "path", "the video")
            raise VideoError(f"{name}: has no times and no frame rate; pass its frames per second")
        times = np.arange(len(source)) / source.fps
    return times


def frame_seconds(source: Source, frames: np.ndarray) -> np.ndarray:
    """Return the times of frames in seconds after frame 0, float64 (n,); NaN without a frame rate."""
    try:
        return frame_times(source)[frames]
    except VideoError:  # pictures have no times
        return np.full(len(frames), np.nan)


def read_in_order(
    source: Source,
    indices: np.ndarray,
    size: Size | None = None,
    *,
    antialias: bool = True,
    interpolation: Interpolation = "bilinear",
    on_fault: OnFault | None = None,
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yield the requested frames in order; they equal those of `source.frames`.

    Memory holds one frame and the packet index, whatever the length of the video. Frames that are not
    requested are skipped where the codec permits it.

    Args:
        source: the video.
        indices: ascending frame numbers without repeats, int64 (n,).
        size: (height, width) to resize whole frames to; None keeps their size.
        antialias, interpolation: see `crop_and_resize`.
        on_fault: called for each run of frames that cannot be read. These frames are yielded as None, and
            reading continues behind them. None: the error is raised.

    Yields:
        the number of a frame, and its pixels, uint8 (h, w, 3).

    Raises:
        VideoError: a frame cannot be read, and `on_fault` is None.
    """
    if isinstance(source, SegmentOf):
        first = source.first
        report = None if on_fault is None else _shifted(on_fault, -first)
        whole = read_in_order(
            source.whole,
            indices + first,
            size,
            antialias=antialias,
            interpolation=interpolation,
            on_fault=report,
        )
        yield from ((index - first, pixels) for index, pixels in whole)
        return
    keys = _keyframes(source)
    faults, waiting = 0, indices
    while len(waiting):
        part, waiting = _split(waiting, keys)
        while len(part):
            done, lost = 0, []
            try:
                for index, pixels in _pixels(source, part, size, antialias, interpolation):
                    passed = part[done : np.searchsorted(part, index)].tolist()
                    done += len(passed) + 1
                    # Frames decode in order: a frame that was passed over does not decode.
                    if passed and on_fault is None:
                        raise _undecodable(source, passed)
                    yield from ((frame, None) for frame in passed)
                    lost += passed
                    yield index, pixels
                if lost or done < len(part):  # the decoder left out frames without an error
                    raise _undecodable(source, [*lost, *part[done:].tolist()])
                part = part[:0]
            except VideoError as error:
                if on_fault is None:
                    raise
                faults, part = faults + 1, part[done:]
                if faults >= MOST_FAULTS:
                    part, waiting = np.concatenate([part, waiting]), waiting[:0]
                if not lost or faults >= MOST_FAULTS:
                    number = len(part) if faults >= MOST_FAULTS else _until_keyframe(part, keys)
                    yield from ((frame, None) for frame in part[:number].tolist())
                    lost, part = lost + part[:number].tolist(), part[number:]
                on_fault(error, lost[0], lost[-1] + 1)


def _undecodable(source: Source, frames: list[int]) -> VideoError:
    name = getattr(source, "name", getattr(source, "path", "the video"))
    return VideoError(f"{name}: frames {frames[0]} to {frames[-1]} do not decode")


def _keyframes(source: Source) -> np.ndarray | None:
    """Return the frames, about, at which decoding may begin; None for sources other than video files."""
    if not isinstance(source, Video):
        return None
    return source._index.keys[:1] if source._index.is_learned else source._index.keys


def _shifted(on_fault: OnFault, offset: int) -> OnFault:
    return lambda error, first, end: on_fault(error, first + offset, end + offset)


def _split(indices: np.ndarray, keys: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Split frame numbers after about `PASS_FRAMES`, before the first frame of a GOP."""
    if keys is None or len(indices) <= PASS_FRAMES:
        return indices, indices[:0]
    after = keys[np.searchsorted(keys, indices[PASS_FRAMES]) :]
    end = np.searchsorted(indices, after[0]) if len(after) else len(indices)
    return indices[:end], indices[end:]


def _until_keyframe(indices: np.ndarray, keys: np.ndarray | None) -> int:
    """Return how many of `indices` are in the GOP of the first one, at least 1."""
    if keys is None:
        return 1
    after = keys[np.searchsorted(keys, indices[0], side="right") :]
    return int(np.searchsorted(indices, after[0])) if len(after) else len(indices)


def _pixels(
    source: Source, indices: np.ndarray, size: Size | None, antialias: bool, interpolation: Interpolation
) -> Pixels:
    """Read frames until one cannot be read."""
    if isinstance(source, Video):
        yield from _decoded(source, indices, size, antialias, interpolation)
        return
    for index in indices.tolist():
        yield (
            index,
            read_frames(source, [index], None, size, antialias=antialias, interpolation=interpolation)[0],
        )


def _decoded(
    video: Video, indices: np.ndarray, size: Size | None, antialias: bool, interpolation: Interpolation
) -> Pixels:
    """Decode frames of a video file in one pass; learn about the file and begin again where necessary."""
    done = 0
    resized_to = partial(crop_and_resize, size=size, antialias=antialias, interpolation=interpolation)
    for _ in range(3):
        try:
            with video._reading():
                if video._index.fault:
                    raise VideoError(f"{video.name}: {video._index.fault}")
                for index, pixels in video._fitted(video._decode(indices[done:]), antialias):
                    done = int(np.searchsorted(indices, index)) + 1
                    resized = resized_to(pixels[None])[0]
                    yield index, resized.copy() if np.may_share_memory(resized, pixels) else resized
            return
        except (MispredictedError, UnknownSizeError) as error:
            video.learn_from(error)
    raise video._unsteady()

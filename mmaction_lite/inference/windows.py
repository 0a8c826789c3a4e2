"""Sliding windows over long videos, files and live streams.

A window is a segment of a video, `seconds` long; windows start every `stride` seconds. Its answer is what the
model predicts for this segment, with one clip:

    frames      │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │ │
    window 0    ├───────────────┤
    window 1          ├───────────────┤
    window 2                ├───────────────┤              times are presentation times, not frame numbers

`read_windows` reads the windows of a file, `WindowBuffer` makes them from the frames of a stream. Both give
the same windows for the same frames and times, and decode or keep every frame once.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Annotated, NamedTuple

import numpy as np

from mmaction_lite.data.sources.packets import EARLY_SECONDS
from mmaction_lite.data.sources.resample import Size, crop_and_resize, short_side_size
from mmaction_lite.data.sources.sequential import OnFault, frame_times, read_in_order
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import (
    DenseClips,
    PySlowFastClips,
    SegmentFrames,
    SegmentWindows,
    TimedClips,
)
from mmaction_lite.errors import UserError
from mmaction_lite.settings import at_least, check_fields

# Window length of samplers that spread their frames over the whole video, such as SegmentFrames.
SEGMENT_SECONDS = 2.5

Seconds = Annotated[float, at_least(0.01)]


class Window(NamedTuple):
    """A window of a video and its pixels.

    Args:
        number: windows are numbered from 0; window `number` starts `number * stride` seconds after frame 0.
            Windows in which no frame begins are left out.
        start_seconds: start of the window.
        end_seconds: its end. The last window of a video may end earlier, after the last frame.
        first_frame: first frame presented in the window.
        end_frame: frame after the last one.
        clips: uint8 (1, T, H, W, 3), equal to `protocol.read` of the segment of these frames.
    """

    number: int
    start_seconds: float
    end_seconds: float
    first_frame: int
    end_frame: int
    clips: np.ndarray


class Span(NamedTuple):
    """Number and frames of a window; see `Window`."""

    number: int
    first_frame: int
    end_frame: int


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Length and stride of sliding windows.

    Args:
        seconds: length of a window. None: the length of one clip of the protocol; for `SegmentFrames`
            and `SegmentWindows`, whose clips have no fixed length, 2.5 s.
        stride: distance between the starts of consecutive windows in seconds.

    Raises:
        UserError: a value is below 0.01 s.
    """

    seconds: Seconds | None = None
    stride: Seconds = 0.5

    def __post_init__(self):
        check_fields(self)

    def plan(self, protocol: Protocol, fps: float) -> "WindowPlan":
        """Return the windows of a video under a protocol, which is reduced to one clip per window.

        Args:
            protocol: views of a video; its crops, normalization and averaging are kept.
            fps: frames per second of the video; NaN if unknown.

        Raises:
            UserError: the length of a clip or its frames depend on the frame rate, which is unknown.
        """
        clips = protocol.views.clips
        if not isinstance(clips, SegmentFrames | SegmentWindows):
            clips = replace(clips, num_clips=1)
        views = replace(protocol.views, clips=clips)
        seconds = self.seconds
        if seconds is None:
            match clips:
                case DenseClips():
                    seconds = clips.clip_len * clips.frame_interval / _known(fps)
                case TimedClips():
                    seconds = clips.clip_len / clips.target_fps
                case PySlowFastClips():
                    seconds = clips.clip_len * clips.frame_interval / clips.target_fps
                case _:
                    seconds = SEGMENT_SECONDS
        return WindowPlan(
            protocol=replace(protocol, views=views), seconds=seconds, stride=self.stride, fps=fps
        )


def _known(fps: float) -> float:
    if not 0 < fps < math.inf:
        raise UserError(
            f"windows: the length of a clip in seconds is not known, because the frame rate of the video is "
            f"{fps}; pass the length of a window in seconds, or the frames per second"
        )
    return fps


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """The windows of one video; made by `Windows.plan`.

    Args:
        protocol: the protocol with one clip per window.
        seconds: length of a window.
        stride: distance between the starts of consecutive windows in seconds.
        fps: frames per second of the video; NaN if unknown.
    """

    protocol: Protocol
    seconds: float
    stride: float
    fps: float

    def __str__(self) -> str:
        """Return the protocol line with length and stride of the windows."""
        return f"{self.protocol}; windows of {self.seconds:g} s every {self.stride:g} s"

    def start(self, number: int) -> float:
        """Return the start of window `number` in seconds after frame 0."""
        return number * self.stride

    def end(self, number: int) -> float:
        """Return the end of window `number` in seconds after frame 0."""
        return number * self.stride + self.seconds

    def frame_indices(self, length: int) -> np.ndarray:
        """Return the frames of the clip of a window with `length` frames, int64 (T,), in [0, length)."""
        clips = self.protocol.views.clips
        if isinstance(clips, TimedClips | PySlowFastClips):
            return clips(length, fps=self.fps)[0]
        return clips(length)[0]

    def spans(self, times: np.ndarray, first_number: int = 0) -> Iterator[Span]:
        """Yield number and frames of every window of a video whose frames have these `times`.

        A frame belongs to a window if it is presented at its start or later, and before its end. The last
        window is the first one that contains the last frame.

        Args:
            times: presentation times in seconds after frame 0, ascending, float64 (n,).
            first_number: windows before this one are left out.
        """
        number = first_number
        if number and np.searchsorted(times, self.end(number - 1) - EARLY_SECONDS) == len(times):
            return  # an earlier window contains the last frame
        while True:
            bounds = np.array([self.start(number), self.end(number)]) - EARLY_SECONDS
            first, end = np.searchsorted(times, bounds).tolist()
            if first < end:
                yield Span(number, first, end)
            if max(first, end) == len(times):
                return
            number = number + 1 if first < end else max(number + 1, self.first_open(float(times[first])))

    def first_open(self, seconds: float) -> int:
        """Return the window from which on to search for the first one that ends after `seconds`.

        The search from there skips the empty windows of a gap between frames, of which there may be many.
        """
        return max(0, math.floor((seconds - self.seconds) / self.stride))

    def end_seconds(self, number: int, last_time: float) -> float:
        """Return the end of a window; for the last window, no later than the end of the last frame.

        Args:
            number: of the window.
            last_time: presentation time of the last frame of the video in seconds.
        """
        return min(self.end(number), self.duration(last_time))

    def duration(self, last_time: float) -> float:
        """Return the end of the last frame, which is presented at `last_time`, in seconds."""
        return last_time + (1 / self.fps if 0 < self.fps < math.inf else 0.0)


class WindowBuffer:
    """Makes the windows of a stream from its frames. Memory holds the frames of one window.

    Frames are kept resized to the short side of the protocol. Frames of another size than the first one are
    resized to its size, as `Video` does.

    Args:
        plan: the windows.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self.plan = plan
        self._frames: deque[tuple[float, np.ndarray]] = deque()  # times and pixels from frame `_first` on
        self._first = 0
        self._number = 0  # of the next window
        self._size: tuple[int, ...] | None = None  # of the first frame

    def push(self, frame: np.ndarray, seconds: float) -> list[Window]:
        """Add a frame and return the windows that end before it.

        Args:
            frame: uint8 (H, W, 3) RGB. It is copied.
            seconds: its presentation time after the first frame, at least that of the previous frame.

        Raises:
            ValueError: the time is before that of the previous frame, or not finite.
        """
        last = self._frames[-1][0] if self._frames else -EARLY_SECONDS
        if not last <= seconds < math.inf:
            raise ValueError(f"frame at {seconds} s: expected a time of at least {last} s")
        done = []
        while seconds >= self.plan.end(self._number) - EARLY_SECONDS:
            window = self._cut(seconds)
            if window:
                done.append(window)
                self._number += 1
            else:
                self._number = max(self._number + 1, self.plan.first_open(seconds))
        self._drop()
        self._frames.append((seconds, self._resized(frame)))
        return done

    def finish(self) -> list[Window]:
        """Return the last window, which may be shorter than the others; empty if no frame is left for it."""
        window = self._cut(math.inf)
        self._number += 1
        self._drop()
        return [window] if window else []

    def _cut(self, now: float) -> Window | None:
        """Return window `_number`; None if it has no frame."""
        start, end = self.plan.start(self._number), self.plan.end(self._number)
        times = np.array([time for time, _ in self._frames])
        skipped, after = np.searchsorted(times, np.array([start, end]) - EARLY_SECONDS).tolist()
        if skipped == after:
            return None
        frames = [self._frames[skipped + i][1] for i in self.plan.frame_indices(after - skipped).tolist()]
        last = max(float(times[-1]), 0.0)
        end = end if now < math.inf else self.plan.end_seconds(self._number, last)
        first = self._first + skipped
        return Window(self._number, start, end, first, first + after - skipped, np.stack(frames)[None])

    def _drop(self) -> None:
        """Drop the frames before the start of window `_number`."""
        start = self.plan.start(self._number) - EARLY_SECONDS
        while self._frames and self._frames[0][0] < start:
            self._frames.popleft()
            self._first += 1

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        views = self.plan.protocol.views
        self._size = self._size or frame.shape[:2]
        height, width = self._size
        pixels = crop_and_resize(frame[None], None, (height, width), antialias=views.antialias)
        size = frame_size(self.plan, (height, width))
        if size is not None:
            pixels = crop_and_resize(
                pixels, None, size, antialias=views.antialias, interpolation=views.interpolation
            )
        return pixels[0].copy() if np.may_share_memory(pixels, frame) else pixels[0]


def read_windows(
    source: Source,
    plan: WindowPlan,
    *,
    first_number: int = 0,
    end_number: int | None = None,
    on_fault: OnFault | None = None,
) -> Iterator[Window]:
    """Yield the windows of a video from `first_number` on, decoding every needed frame once, in order.

    Memory holds the sampled frames of one window, the packet index and the frame times of the video.

    Args:
        source: the video.
        plan: the windows.
        first_number: windows before this one are not read.
        end_number: windows from this one on are not read; None: all windows to the end of the video.
        on_fault: called for each run of frames that cannot be read; see `read_in_order`. Windows that need
            such a frame are left out. None: the error is raised.

    Raises:
        VideoError: a frame cannot be read, and `on_fault` is None; or the frame rate is unknown.
    """
    times = frame_times(source)
    size = frame_size(plan, source.size)
    spans = list(_between(plan.spans(times, first_number), end_number))
    wanted = needed_frames(plan, spans, len(times))
    views = plan.protocol.views
    reader = read_in_order(
        source,
        wanted,
        size,
        antialias=views.antialias,
        interpolation=views.interpolation,
        on_fault=on_fault,
    )
    yield from assemble_windows(plan, spans, float(times[-1]), reader)


def assemble_windows(
    plan: WindowPlan, spans: Iterable[Span], last_time: float, frames: Iterator[tuple[int, np.ndarray | None]]
) -> Iterator[Window]:
    """Yield the windows that the frames of a video fill. Windows with an unreadable frame are left out.

    Args:
        plan: the windows.
        spans: numbers and frames of the windows, ascending.
        last_time: presentation time of the last frame in seconds.
        frames: number and pixels, uint8 (h, w, 3), of each of `needed_frames`, in order; None in place of the
            pixels of a frame that cannot be read.
    """
    kept: dict[int, np.ndarray | None] = {}
    newest = -1
    for number, first, end in spans:
        indices = (first + plan.frame_indices(end - first)).tolist()
        for old in [index for index in kept if index < first]:
            del kept[old]
        last = max(indices)
        while newest < last:
            newest, pixels = next(frames)
            kept[newest] = pixels
        found = [kept[index] for index in indices]
        present = [frame for frame in found if frame is not None]
        if len(present) == len(found):
            end_seconds = plan.end_seconds(number, last_time)
            yield Window(number, plan.start(number), end_seconds, first, end, np.stack(present)[None])


def frame_size(plan: WindowPlan, size: Size) -> Size | None:
    """Return the size to which whole frames of `size` (height, width) are resized; None keeps their size."""
    short_side = plan.protocol.views.short_side
    return None if short_side is None else short_side_size(size, short_side)


def _between(spans: Iterator[Span], end_number: int | None) -> Iterator[Span]:
    return spans if end_number is None else takewhile(lambda span: span.number < end_number, spans)


def needed_frames(plan: WindowPlan, spans: Iterable[Span], length: int) -> np.ndarray:
    """Return the frames that any window needs, ascending, int64 (n,)."""
    is_needed = np.zeros(length, bool)
    for _, first, end in spans:
        is_needed[first + plan.frame_indices(end - first)] = True
    return np.flatnonzero(is_needed)

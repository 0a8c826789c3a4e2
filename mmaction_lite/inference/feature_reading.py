"""Read the clips of feature rows in worker processes: whole videos, or sliding windows of videos."""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.data.loading.parallel import run_tasks
from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.data.sources.resample import short_side_size
from mmaction_lite.data.sources.sequential import frame_times
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.errors import UserError, VideoError, printable
from mmaction_lite.inference.windows import Window, Windows, read_windows

PART_BYTES = 64 << 20


class Part(NamedTuple):
    """A part of a video that a worker reads at once: the whole video, or consecutive windows of it.

    Args:
        video: number of the video.
        num_rows: rows of the part.
        first_window: number of the first window.
        end_window: number after the last window.
        is_last: whether it is the last part of its video.
        reason: why the video cannot be read; empty if it can.
    """

    video: int
    num_rows: int
    first_window: int = 0
    end_window: int = 0
    is_last: bool = True
    reason: str = ""


class Spans(NamedTuple):
    """The parts of a video that rows cover.

    Args:
        start_seconds: float64 (N,); NaN if the frame rate is unknown.
        end_seconds: float64 (N,), exclusive.
        first_frame: int64 (N,).
        end_frame: int64 (N,), exclusive.
    """

    start_seconds: np.ndarray
    end_seconds: np.ndarray
    first_frame: np.ndarray
    end_frame: np.ndarray


class Read(NamedTuple):
    """Clips of a part of a video.

    Args:
        part: the part.
        clips: uint8 (n, num_clips, T, H, W, C) before cropping: the video, or n windows. None if it cannot be
            read.
        spans: spans of the rows that the clips give.
        problem: why the part, or some of its windows, cannot be read; empty if there is no problem.
    """

    part: Part
    clips: Tensor | None
    spans: Spans | None
    problem: str = ""


@dataclass(kw_only=True)
class Reading:
    """What is read of videos.

    Args:
        names: names of the videos, for messages.
        open_video: picklable function of a number, which returns the source.
        protocol: views of a video, or of a window.
        windows: sliding windows; None: whole videos.
        per_view: whether each view is a row. Otherwise each video or window is one row.
        part_bytes: size of the pixels of the windows that a worker returns at once, about.
    """

    names: Sequence[str]
    open_video: Callable[[int], Source]
    protocol: Protocol
    windows: Windows | None = None
    per_view: bool = False
    part_bytes: int = PART_BYTES

    def reason(self, video: int, text: str) -> str:
        """Return a message that begins with the name of the video."""
        name = self.names[video]
        return text if text.startswith((name, printable(name))) else f"{printable(name)}: {text}"


def plan_parts(reading: Reading, videos: Iterable[int], workers: WorkerSettings = IN_PROCESS) -> list[Part]:
    """Return the parts of videos. Sliding windows require to open every video, in the workers."""
    videos = list(videos)
    if reading.windows is None:
        num_rows = reading.protocol.num_views if reading.per_view else 1
        return [Part(video, num_rows) for video in videos]
    return [part for parts in run_tasks(_Planner(reading), videos, workers) for part in parts]


def read_parts(reading: Reading, parts: list[Part], workers: WorkerSettings = IN_PROCESS) -> Iterable[Read]:
    """Yield the clips of the parts in order; for hanging videos see `FaultTolerantLoader`.

    One process decodes every frame of a video once. Several processes share the parts of a video, and decode
    the frames that windows of two parts contain, and those from the keyframe before a part, once for each.
    """
    reader = _Reader(reading, parts, is_alone=workers.num_workers in (0, 1))
    return run_tasks(reader, list(range(len(parts))), workers)


@dataclass
class _Planner:
    """Divides the windows of a video into parts; runs in the workers."""

    reading: Reading

    def __call__(self, number: int) -> list[Part]:
        assert self.reading.windows is not None
        try:
            with self.reading.open_video(number) as source:
                plan = self.reading.windows.plan(self.reading.protocol, source.fps)
                windows = [span.number for span in plan.spans(frame_times(source))]
                views = plan.protocol.views
                side = views.short_side
                size = source.size if side is None else short_side_size(source.size, side)
        except UserError as error:
            return self.failed(number, str(error))
        size_bytes = 3 * views.clips.clip_len * math.prod(size)
        step = max(1, self.reading.part_bytes // size_bytes)
        groups = [windows[i : i + step] for i in range(0, len(windows), step)]
        return [
            Part(number, len(group), group[0], group[-1] + 1, is_last=group is groups[-1]) for group in groups
        ]

    def failed(self, number: int, reason: str) -> list[Part]:
        return [Part(number, 0, reason=self.reading.reason(number, reason))]


class _WindowReader:
    """Reads the windows of a video, part after part, and decodes every frame once.

    Args:
        stack: closes the video; it is closed with the reader.
        source: the video.
        reading: what is read.
        first_window: number of the first window.
        end_window: number after the last window; None: to the end of the video.
    """

    def __init__(
        self, stack: ExitStack, source: Source, reading: Reading, first_window: int, end_window: int | None
    ) -> None:
        assert reading.windows is not None
        self._problem = ""
        plan = reading.windows.plan(reading.protocol, source.fps)
        self._windows = read_windows(
            source, plan, first_number=first_window, end_number=end_window, on_fault=self._report
        )
        self._next: Window | None = None  # read, but of a later part
        self.close = stack.close

    def _report(self, error: VideoError, first: int, end: int) -> None:
        self._problem = self._problem or f"frames {first} to {end - 1} cannot be read: {error}"

    def read(self, part: Part) -> tuple[list[Window], str]:
        """Return the windows of a part, and why some of them cannot be read."""
        found: list[Window] = []
        while self._next is not None or len(found) < part.num_rows:
            window = self._next or next(self._windows, None)
            self._next = None
            if window is None or window.number >= part.end_window:
                self._next = window
                break
            found.append(window)
        if len(found) == part.num_rows:
            return found, ""
        # A decoder that skips damaged frames raises no error.
        return found, self._problem or "frames are damaged"


@dataclass
class _Reader:
    """Reads the clips of parts; runs in the workers.

    Args:
        reading: what is read.
        parts: all parts.
        is_alone: whether it gets all parts in order. It then keeps a video open from one part to the next.
    """

    reading: Reading
    parts: list[Part]
    is_alone: bool
    _open: tuple[int, _WindowReader] | None = field(default=None, init=False)  # number of the next part

    def __call__(self, number: int) -> Read:
        part = self.parts[number]
        if part.reason:
            return Read(part, None, None, part.reason)
        try:
            if self.reading.windows is not None:
                return self._windows(number, part)
            with self.reading.open_video(part.video) as source:
                return self._whole(source, part)
        except UserError as error:
            return self.failed(number, str(error))

    def failed(self, number: int, reason: str) -> Read:
        part = self.parts[number]
        return Read(part, None, None, self.reading.reason(part.video, reason))

    def _whole(self, source: Source, part: Part) -> Read:
        protocol = self.reading.protocol
        clips = torch.from_numpy(protocol.read(source))[None]
        first, end = np.array([0]), np.array([len(source)])
        if self.reading.per_view:
            indices = protocol.views.indices(source)
            crops = protocol.num_views // len(indices)
            first, end = indices.min(1).repeat(crops), indices.max(1).repeat(crops) + 1
        return Read(part, clips, _spans(source, first, end))

    def _windows(self, number: int, part: Part) -> Read:
        reader = self._reader_of(number, part)
        try:
            found, problem = reader.read(part)
        except BaseException:
            self._close()
            raise
        self._open = (number + 1, reader)
        if part.is_last or not self.is_alone:
            self._close()
        if not found:
            return self.failed(number, problem)
        columns = zip(
            *[(w.start_seconds, w.end_seconds, w.first_frame, w.end_frame) for w in found], strict=True
        )
        start_seconds, end_seconds, first, end = map(np.array, columns)
        clips = torch.from_numpy(np.stack([window.clips for window in found]))
        return Read(part, clips, Spans(start_seconds, end_seconds, first, end), problem)

    def _reader_of(self, number: int, part: Part) -> _WindowReader:
        """Return the reader of the part before, if it continues there, or a new one."""
        if self._open is not None and self._open[0] == number:
            return self._open[1]
        self._close()
        with ExitStack() as stack:
            source = stack.enter_context(self.reading.open_video(part.video))
            end = None if self.is_alone else part.end_window
            reader = _WindowReader(stack.pop_all(), source, self.reading, part.first_window, end)
            self._open = (number, reader)
        return reader

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


def _spans(source: Source, first: np.ndarray, end: np.ndarray) -> Spans:
    """Return the spans of the frames from `first` to `end`, exclusive."""
    try:
        times = frame_times(source)
    except VideoError:  # the frame rate is unknown
        times = np.full(len(source), np.nan)
    frame_seconds = 1 / source.fps if source.fps > 0 else math.nan
    return Spans(times[first], times[end - 1] + frame_seconds, first, end)

"""Classify the frames of a camera, a network stream or a file while they arrive.

Frames are captured in a thread (`Capture`) and collected in windows (`WindowBuffer`). The model classifies
each window as soon as it is complete:

    capture ──► queue, drops the oldest frames ──► windows ──► model ──► answers

Without dropped frames and interruptions, the answers equal those of the sliding windows of the recorded
video. While the model is slower than the stream, windows are skipped: answers are late by a bounded time.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from mmaction_lite.data.sources.capture import Capture, Counts, LiveFrame
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.errors import UserError
from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.inference.windows import Window, WindowBuffer, WindowPlan, Windows
from mmaction_lite.weights.card import ModelCard, card_of

# A window that waits longer than this, or than the stride, is skipped if there is a newer one.
LATE_SECONDS = 1.0
# Complete windows that wait for the model.
MOST_WAITING = 8
POLL_SECONDS = 0.1


class Answer(NamedTuple):
    """Classes of one window of a stream.

    Args:
        labels: all class names, the most probable first.
        scores: probabilities in the order of `labels`, float32 (K,).
        start_seconds: stream time of the start of the window; 0 is the first frame.
        end_seconds: stream time of its end.
        time: when the last frame of the window was captured.
        latency_seconds: from the capture of the last frame of the window to the answer.
        part: number of the uninterrupted part of the stream that the window lies in.
        counts: captured and dropped frames, reconnects and gaps since the start of the stream.
        skipped: windows since the start that were not classified, because the model was busy.
        protocol: the protocol line, with length and stride of the windows.
    """

    labels: tuple[str, ...]
    scores: np.ndarray
    start_seconds: float
    end_seconds: float
    time: datetime
    latency_seconds: float
    part: int
    counts: Counts
    skipped: int
    protocol: str


class _Waiting(NamedTuple):
    """A complete window that waits for the model.

    Args:
        window: the window.
        plan: its plan.
        begin: stream time at which the times of the window begin, in seconds.
        last: last frame of the window.
    """

    window: Window
    plan: WindowPlan
    begin: float
    last: LiveFrame


class _Collector:
    """Collect captured frames in windows.

    Frames that the queue dropped are replaced by copies of the frame before them, so that the other frames
    keep their places in the window. After more missing frames than `max_gap`, and with every part of the
    stream, the windows begin again.
    """

    def __init__(self, capture: Capture, windows: Windows, protocol: Protocol, seconds: float) -> None:
        self.capture, self.windows, self._protocol, self._seconds = capture, windows, protocol, seconds
        self._buffer: WindowBuffer | None = None
        self._begin = 0.0  # time in its part of the first frame in the buffer
        self._last: LiveFrame | None = None
        self._pixels = np.empty(0, np.uint8)  # of the last frame
        self.is_over = False
        self.error: UserError | None = None

    def collect(self, wait: float) -> list[_Waiting]:
        """Return the windows that the waiting frames complete; wait up to `wait` seconds for a frame."""
        done: list[_Waiting] = []
        for _ in range(self.capture.settings.queue_frames):
            if self.is_over:
                break
            try:
                frame = self.capture.next_frame(wait)
            except UserError as error:  # after the windows before it
                self.is_over, self.error = True, error
                break
            wait = 0
            if frame is not None:
                done += self._push(frame)
                self.is_over = frame.seconds >= self._seconds
            elif self.capture.is_over:
                self.is_over = True
                return done + self._finish()
            if frame is None or (done and self.capture.is_lossless):
                break
        return done

    def _push(self, frame: LiveFrame) -> list[_Waiting]:
        last = self._last
        done: list[_Waiting] = []
        if last is None or last.part != frame.part:
            done += self._finish() if frame.before == "end" else []
            self._begin_windows(frame)
        elif missing := frame.number - last.number - 1:
            if missing / frame.fps > self.capture.settings.max_gap:
                self._begin_windows(frame)
            else:
                copies = np.linspace(last.part_seconds, frame.part_seconds, missing + 2)[1:-1]
                for seconds in copies.tolist():
                    done += self._add(seconds)
        self._pixels = self.capture.pixels(frame)
        done += self._add(frame.part_seconds)
        self._last = frame
        return done

    def _begin_windows(self, frame: LiveFrame) -> None:
        self._buffer = WindowBuffer(self.windows.plan(self._protocol, frame.fps))
        self._begin = frame.part_seconds

    def _add(self, seconds: float) -> list[_Waiting]:
        assert self._buffer is not None
        return self._waiting(self._buffer.push(self._pixels, seconds - self._begin))

    def _finish(self) -> list[_Waiting]:
        done = [] if self._buffer is None else self._waiting(self._buffer.finish())
        self._buffer = None
        return done

    def _waiting(self, windows: list[Window]) -> list[_Waiting]:
        """Add to complete windows what the answer needs. `_last` is the last frame before their end."""
        if not windows:
            return []
        assert self._buffer is not None
        assert self._last is not None
        last = self._last
        begin = last.seconds - last.part_seconds + self._begin
        return [_Waiting(window, self._buffer.plan, begin, last) for window in windows]


def watch(
    model: nn.Module,
    source: str | int | Path | Capture,
    windows: Windows | None = None,
    *,
    seconds: float | None = None,
    stop: Event | None = None,
    note: Callable[[str], object] | None = None,
) -> Generator[Answer, None, None]:
    """Yield an answer for each window of a live source, until it ends.

    Close the iterator (`answers.close()`), or leave its loop, to end the capture.

    Args:
        model: a model with a card, as `load` or `load_for_inference` returns it, on the device to use.
        source: a camera, an address or a file as for `parse_address`; or a `Capture` with settings, which
            the caller closes.
        windows: length and stride of the windows. None: one clip of the protocol, every second.
        seconds: end after this time of the stream. None: at the end of the source.
        stop: ends the iterator when it is set.
        note: called with each line about a lost connection or an interruption.

    Raises:
        UserError: the source cannot be opened, or is lost and cannot be opened again.
    """
    card = card_of(model)
    windows = windows or Windows(stride=1.0)
    with nullcontext(source) if isinstance(source, Capture) else Capture(source) as capture:
        collector = _Collector(capture, windows, card.test, math.inf if seconds is None else seconds)
        yield from _answers(model.eval(), card, collector, stop or Event(), note)


def _answers(
    model: nn.Module,
    card: ModelCard,
    collector: "_Collector",
    stop: Event,
    note: Callable[[str], object] | None,
) -> Iterator[Answer]:
    capture = collector.capture
    latest = max(LATE_SECONDS, collector.windows.stride / (capture.settings.speed or 1.0))
    waiting: deque[_Waiting] = deque()
    skipped = 0
    while not stop.is_set():
        waiting.extend(collector.collect(0.0 if waiting else POLL_SECONDS))
        while note and not capture.notes.empty():
            note(capture.notes.get())
        while len(waiting) > 1 and not capture.is_lossless:
            is_late = time.monotonic() - waiting[0].last.arrival > latest
            if not is_late and len(waiting) <= MOST_WAITING:
                break
            waiting.popleft()
            skipped += 1
        if not waiting:
            if collector.error is not None:
                raise collector.error
            if collector.is_over:
                return
            continue
        window, plan, begin, last = waiting.popleft()
        with torch.no_grad():
            clips = [torch.from_numpy(window.clips)]
            scores = compute_scores(model, clips, plan.protocol, probabilities=card.task.probabilities)[0]
        labels, scores = card.task.ranked(scores, card.classes)
        yield Answer(
            labels=labels,
            scores=scores,
            start_seconds=begin + window.start_seconds,
            end_seconds=begin + window.end_seconds,
            time=datetime.fromtimestamp(last.wall_time, UTC).astimezone(),
            latency_seconds=time.monotonic() - last.arrival,
            part=last.part,
            counts=capture.counts,
            skipped=skipped,
            protocol=str(plan),
        )

"""Classify every frame of a camera, a stream or a file when it arrives, with an online TSM."""

import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from threading import Event

from torch import nn

from mmaction_lite.data.sources.capture import Capture, LiveFrame
from mmaction_lite.inference.live import POLL_SECONDS, Answer
from mmaction_lite.inference.scores import device_of
from mmaction_lite.inference.stream import Stream


def watch_frames(
    model: nn.Module,
    capture: Capture,
    *,
    every: float = 1.0,
    frame_interval: int | None = None,
    seconds: float | None = None,
    stop: Event | None = None,
    note: Callable[[str], object] | None = None,
) -> Iterator[Answer]:
    """Classify every frame of a live source, and yield an answer every `every` seconds of the stream.

    The features of earlier frames are forgotten at the end of each part of the stream, and after more than
    `max_gap` seconds of dropped frames. Fewer dropped frames are left out. An answer covers the stream from
    its `start_seconds`, at which the features begin, to its last frame.

    Args:
        model: an online TSM that `load` returned.
        capture: the source, which the caller closes.
        every: seconds between answers.
        frame_interval: classify every n-th frame; see `Stream`.
        seconds: end after this time of the stream. None: at the end of the source.
        stop: ends the iterator when it is set.
        note: called with each line about a lost connection or an interruption.

    Raises:
        UserError: the model is no online TSM, or the source is lost and cannot be opened again.
    """
    stream = Stream(model, frame_interval=frame_interval, device=str(device_of(model)))
    stop, end = stop or Event(), math.inf if seconds is None else seconds
    last: LiveFrame | None = None
    begin = due = 0.0
    while not stop.is_set():
        frame = capture.next_frame(POLL_SECONDS)
        while note and not capture.notes.empty():
            note(capture.notes.get())
        if frame is None:
            if capture.is_over:
                return
            continue
        if last is None or _is_interrupted(last, frame, capture.settings.max_gap):
            stream.reset()
            begin, due = frame.seconds, frame.seconds + every
        last = frame
        found = stream.push(capture.pixels(frame))
        if found is not None and frame.seconds >= due - 0.5 / frame.fps:
            due = max(due + every, frame.seconds)
            yield Answer(
                labels=found.labels,
                scores=found.scores,
                start_seconds=begin,
                end_seconds=frame.seconds,
                time=datetime.fromtimestamp(frame.wall_time, UTC).astimezone(),
                latency_seconds=time.monotonic() - frame.arrival,
                part=frame.part,
                counts=capture.counts,
                skipped=0,
                protocol=found.protocol,
            )
        if frame.seconds >= end:
            return


def _is_interrupted(last: LiveFrame, frame: LiveFrame, max_gap: float) -> bool:
    missing = frame.number - last.number - 1
    return frame.part != last.part or missing / frame.fps > max_gap

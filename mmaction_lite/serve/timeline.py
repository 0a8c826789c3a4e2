"""The timeline of a video: scores of its sliding windows, and the segments of actions, as the command does.

job thread            plan of the windows ──► frames in pieces ──► windows ──► scores ──► segments
decoding processes          TimesReader          FramesReader
network thread                                                    compute_scores
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.sources.resample import Size
from mmaction_lite.errors import UserError, VideoError, printable
from mmaction_lite.inference.long_video import TimedVideo, score_windows
from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.inference.segment_files import csv_text, srt_text, vtt_text
from mmaction_lite.inference.segments import Rule, Segment, WindowScores, find_segments
from mmaction_lite.inference.window_store import Fault
from mmaction_lite.inference.windows import (
    Window,
    WindowPlan,
    Windows,
    assemble_windows,
    frame_size,
    needed_frames,
)
from mmaction_lite.serve.decoding import VIDEO_NAME, DecodingPool, Reading, has_failed
from mmaction_lite.serve.job_readers import AnnotationWriter, Caption, FramesReader, TimesReader
from mmaction_lite.serve.jobs import Job
from mmaction_lite.serve.models import KnownModel
from mmaction_lite.serve.numbers import finite
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.readers import Reader, VideoLimits
from mmaction_lite.weights.card import card_of

POLL_SECONDS = 0.1  # after which a job that waits notices that it was cancelled
PIECE_BYTES = 64 << 20  # of the frames that are read at once
PIECE_PIXELS = 2_000_000_000  # that are decoded at once; a limit of time, about ten seconds
BATCH_SIZE = 4  # windows in one forward pass, so that predict requests wait for few of them
MOST_WINDOWS = 50_000
MOST_SCORES = 50_000_000  # windows times classes
FILES = ("result.json", "result.csv", "result.srt", "result.vtt")

T = TypeVar("T")


class Question(NamedTuple):
    """What a client asks about a video.

    Args:
        known: the model.
        windows: length and stride of the windows.
        rule: how segments are made.
        top: number of classes of a window.
    """

    known: KnownModel
    windows: Windows
    rule: Rule
    top: int


class Timeline:
    """Windows and segments of a video as far as they are known. The thread of the job adds to it.

    Args:
        plan: the windows.
        last_time: presentation time of the last frame in seconds.
        classes: class names.
        top: number of classes of a window.

    Attributes:
        count: number of windows that are known.
        segments: the segments, at the end.
        encoding: writes the annotated video; None: it was not requested yet.
    """

    def __init__(self, plan: WindowPlan, last_time: float, classes: tuple[str, ...], top: int) -> None:
        self.plan, self.segments = plan, list[Segment]()
        self.encoding: asyncio.Task[Path] | None = None
        self._last_time, self._classes, self._top = last_time, classes, top
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.count = 0

    def add(self, numbers: np.ndarray, scores: np.ndarray) -> None:
        """Add windows: their numbers, int64 (n,), and probabilities, float32 (n, K)."""
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._top]
        self._parts.append((numbers.copy(), order, np.take_along_axis(scores, order, 1)))
        self.count += len(numbers)

    def rows(self, first: int, count: int) -> list[dict[str, Any]]:
        """Return windows as values of JSON, from position `first` on."""
        found: list[dict[str, Any]] = []
        position = 0
        for numbers, order, scores in self._parts[:]:
            for row in range(max(0, first - position), len(numbers)):
                if len(found) == count:
                    return found
                found.append(self._row(int(numbers[row]), order[row], scores[row]))
            position += len(numbers)
        return found

    def _row(self, number: int, order: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
        top = [
            {"class": self._classes[index], "index": index, "probability": finite(probability)}
            for index, probability in zip(order.tolist(), scores.tolist(), strict=True)
        ]
        end = self.plan.end_seconds(number, self._last_time)
        return {"start": self.plan.start(number), "end": end, "top": top}


class Worker(NamedTuple):
    """The parts of the server that compute; they belong to its event loop.

    Args:
        loop: the event loop.
        video: the video.
        read: reads the video in a decoding process.
        compute: calls a function with the model in the network thread.
        limits: limits of the video.
    """

    loop: asyncio.AbstractEventLoop
    video: Path
    read: Callable[[Reader], Coroutine[Any, Any, Reading]]
    compute: Callable[[Callable[[nn.Module], np.ndarray]], Coroutine[Any, Any, np.ndarray]]
    limits: VideoLimits

    def wait(self, job: Job, future: "Future[T]") -> T:
        """Wait for the result of a coroutine, and cancel it with the job."""
        while True:
            try:
                return future.result(POLL_SECONDS)
            except TimeoutError:
                if future.done():
                    raise
            try:
                job.check()
            except BaseException:
                future.cancel()
                raise

    def hide(self, text: str) -> str:
        """Return a message without the path of the video."""
        return text.replace(str(self.video), VIDEO_NAME)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine in the event loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)


def run_timeline(job: Job, question: Question, worker: Worker) -> None:
    """Do the work of a job: score the windows, find the segments, and write the result files.

    `job.value` is a `Timeline` from the time on at which the first windows are known.

    Raises:
        CancelledJobError: the job was cancelled.
        Problem: the video cannot be read, has too many windows, or the job takes too long.
    """
    card = question.known.card
    try:
        details = worker.wait(job, worker.submit(worker.read(TimesReader(worker.limits)))).details
        times: np.ndarray = details["times"]
        plan = question.windows.plan(card.test, details["fps"] or float("nan"))
        total = sum(1 for _ in plan.spans(times))
        _check_total(total, len(card.classes))
        job.report(0, total)
        timeline = job.value = Timeline(plan, float(times[-1]), card.classes, question.top)
        windows = score_windows(
            card,
            TimedVideo(plan, times, note=worker.hide(details["note"])),
            lambda first: _read(job, worker, plan, times, details["size"], first),
            lambda clips: _compute(job, worker, plan, clips),
            batch_size=BATCH_SIZE,
            on_scores=timeline.add,
            progress=job.report,
        )
        timeline.segments = find_segments(windows, question.rule)
    except VideoError as error:
        raise Problem("unreadable-video", str(error)) from None
    except UserError as error:
        raise Problem("invalid-value", str(error)) from None
    _write_results(job.folder, question, timeline, windows)


def _check_total(total: int, num_classes: int) -> None:
    """Check the number of windows.

    Raises:
        Problem: there are too many.
    """
    most = min(MOST_WINDOWS, MOST_SCORES // max(1, num_classes))
    if total > most:
        raise Problem(
            "invalid-value", f"the video has {total} windows; expected at most {most}. Use a larger stride"
        )


def _read(
    job: Job, worker: Worker, plan: WindowPlan, times: np.ndarray, size: Size, first: int
) -> Generator[Window | Fault, None, None]:
    """Yield the windows from number `first` on, and the parts of the video that cannot be read."""
    spans = list(plan.spans(times, first))
    faults: deque[Fault] = deque()
    wanted = needed_frames(plan, spans, len(times))
    frames = _read_frames(job, worker, plan, wanted, (size[0], size[1]), faults)
    for window in assemble_windows(plan, spans, float(times[-1]), frames):
        while faults:
            yield faults.popleft()
        yield window
    yield from faults


def _read_frames(
    job: Job, worker: Worker, plan: WindowPlan, wanted: np.ndarray, size: Size, faults: deque[Fault]
) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yield the wanted frames in order, None in place of unreadable ones; one piece is read ahead."""
    small = frame_size(plan, size)
    views = plan.protocol.views
    filters = (views.antialias, views.interpolation)
    pieces = split_frames(wanted, size, small or size)
    following: Future[Reading] | None = None
    try:
        for position, piece in enumerate(pieces):
            current = following or worker.submit(worker.read(FramesReader(piece, small, *filters)))
            reading = worker.wait(job, current)
            following = None
            if position + 1 < len(pieces):
                following = worker.submit(worker.read(FramesReader(pieces[position + 1], small, *filters)))
            faults.extend(
                Fault(start, end, worker.hide(reason)) for start, end, reason in reading.details["faults"]
            )
            found = dict(zip(reading.details["indices"], reading.pixels, strict=True))
            for index in piece.tolist():
                yield index, found.pop(index, None)
    finally:
        if following is not None:
            following.cancel()


def split_frames(wanted: np.ndarray, size: Size, small: Size) -> list[np.ndarray]:
    """Split ascending frame numbers into pieces that are read in a few seconds each.

    Args:
        wanted: the frames, int64 (n,).
        size: (height, width) of the frames that are decoded.
        small: their size after resizing.
    """
    count = max(1, PIECE_BYTES // (3 * small[0] * small[1]))
    span = max(1, PIECE_PIXELS // (size[0] * size[1]))
    pieces, start = [], 0
    while start < len(wanted):
        last = int(np.searchsorted(wanted, wanted[start] + span))
        end = min(start + count, last)
        pieces.append(wanted[start:end])
        start = end
    return pieces


def _compute(job: Job, worker: Worker, plan: WindowPlan, clips: list[Tensor]) -> np.ndarray:
    """Return the probabilities of windows, float32 (n, K), from the network thread."""

    @torch.no_grad()
    def compute(model: nn.Module) -> np.ndarray:
        return compute_scores(model, clips, plan.protocol, probabilities=card_of(model).task.probabilities)

    return worker.wait(job, worker.submit(worker.compute(compute)))


def _write_results(folder: Path, question: Question, timeline: Timeline, windows: WindowScores) -> None:
    """Write the result files of a job.

    Raises:
        Problem: they cannot be stored.
    """
    segments = timeline.segments
    line = f"{windows.plan}; {question.rule}"
    content = {
        "model": question.known.name,
        "protocol": line,
        "duration_seconds": windows.duration,
        "windows": timeline.rows(0, timeline.count),
        "segments": [segment_row(segment) for segment in segments],
        "notes": [printable(note) for note in windows.notes],
    }
    texts = (json.dumps(content), csv_text([("video", segments)], line), srt_text(segments))
    try:
        for name, text in zip(FILES, (*texts, vtt_text(segments, line)), strict=True):
            (folder / name).write_bytes(text.encode("utf-8", "backslashreplace"))
    except OSError:
        raise Problem("storage-full", "the results cannot be stored") from None


def segment_row(segment: Segment) -> dict[str, Any]:
    """Return a segment as values of JSON."""
    return {
        "class": segment.label,
        "start": segment.start_seconds,
        "end": segment.end_seconds,
        "first_frame": segment.first_frame,
        "end_frame": segment.end_frame,
        "probability": finite(segment.score),
    }


async def annotated_file(job: Job, pool: DecodingPool, video: Path, seconds: float) -> Path:
    """Return the video with the segments drawn on it, and write it at the first call.

    Args:
        job: a job that is done.
        pool: decoding processes.
        video: the video of the job.
        seconds: time limit.

    Raises:
        Problem: a frame of the video cannot be read, or the video cannot be written in time.
    """
    timeline = job.value
    assert isinstance(timeline, Timeline)
    if timeline.encoding is None or has_failed(timeline.encoding):
        timeline.encoding = asyncio.get_running_loop().create_task(
            _annotate(job, timeline, pool, video, seconds)
        )
    return await asyncio.shield(timeline.encoding)


async def _annotate(job: Job, timeline: Timeline, pool: DecodingPool, video: Path, seconds: float) -> Path:
    captions = tuple(
        Caption(s.start_seconds, s.end_seconds, f"{printable(s.label, 100)} {s.score:.0%}")
        for s in timeline.segments
    )
    out = job.folder / "result.mp4"
    await pool.read(video, AnnotationWriter(out, captions), hang_seconds=seconds)
    return out

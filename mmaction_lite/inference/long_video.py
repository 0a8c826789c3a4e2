"""Score the sliding windows of a long video: decoding in a thread, several windows per forward pass.

`find_segments` makes segments of actions from the scores:

    model = load_for_inference("runs/demo/tsm")
    with open_source(Path("long.mp4")) as source:
        windows = score_video(model, source, Windows(stride=0.5))
    segments = find_segments(windows, SegmentRule(enter=0.6))
"""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.sources.sequential import frame_times
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.errors import VideoError, printable, reading
from mmaction_lite.inference.scores import chunk_views, compute_scores
from mmaction_lite.inference.segments import WindowScores
from mmaction_lite.inference.window_store import Fault, WindowStore
from mmaction_lite.inference.windows import Window, WindowPlan, Windows, read_windows
from mmaction_lite.weights.card import ModelCard, card_of

MOST_WINDOWS = 16  # in one forward pass
POLL_SECONDS = 0.1

Progress = Callable[[int, int], None]


class TimedVideo(NamedTuple):
    """Properties of a video that are known before its windows are read.

    Args:
        plan: the windows.
        times: presentation times of all frames in seconds after frame 0, float64 (frames,).
        name: for messages.
        note: what is unusual about the video; empty: nothing.
    """

    plan: WindowPlan
    times: np.ndarray
    name: str = "the video"
    note: str = ""


@torch.no_grad()
def score_video(
    model: nn.Module,
    source: Source,
    windows: Windows,
    *,
    protocol: Protocol | None = None,
    store: WindowStore | None = None,
    on_fault: Callable[[Fault], None] | None = None,
    progress: Progress | None = None,
) -> WindowScores:
    """Return the scores of all windows of a video. Memory holds the scores and the windows of two batches.

    A window that needs a frame that cannot be read is left out, and reading continues behind it.

    Args:
        model: a model with a card, in evaluation mode.
        source: the video.
        windows: length and stride of the windows.
        protocol: views of a window, reduced to one clip; None: the test protocol of the model.
        store: opened file to which the scores are written while the video is read. Windows that it holds
            are not computed again.
        on_fault: called for each part of the video that cannot be read.
        progress: called as `progress(done, total)` in windows.

    Raises:
        VideoError: no window of the video can be read, or its frame rate is unknown.
        UserError: the file of the store cannot be written.
    """
    card = card_of(model)
    plan = windows.plan(protocol or card.test, source.fps)
    name, note = getattr(source, "name", "the video"), getattr(source, "note", "")
    return score_windows(
        card,
        TimedVideo(plan, frame_times(source), name, note),
        lambda first_number: _read_ahead(source, plan, first_number, batch_size_of(plan)),
        lambda clips: compute_scores(model, clips, plan.protocol, probabilities=card.task.probabilities),
        store=store,
        on_fault=on_fault,
        progress=progress,
    )


def score_windows(
    card: ModelCard,
    video: TimedVideo,
    read: Callable[[int], Generator[Window | Fault, None, None]],
    compute: Callable[[list[Tensor]], np.ndarray],
    *,
    batch_size: int | None = None,
    store: WindowStore | None = None,
    on_fault: Callable[[Fault], None] | None = None,
    on_scores: Callable[[np.ndarray, np.ndarray], None] | None = None,
    progress: Progress | None = None,
) -> WindowScores:
    """Return the scores of the windows that a function reads; see `score_video`.

    Args:
        card: card of the model.
        video: windows and times of the video.
        read: returns the windows from a number on, and the parts that cannot be read, in order.
        compute: returns the probabilities, float32 (n, K), of the clips of n windows, uint8 (1, T, H, W, C).
        batch_size: number of windows that are computed together; None: see `batch_size_of`.
        store: see `score_video`.
        on_fault: see `score_video`.
        on_scores: called with the numbers, int64 (n,), and the scores, float32 (n, K), of new windows.
        progress: see `score_video`.

    Raises:
        VideoError: no window of the video can be read.
        UserError: the file of the store cannot be written.
    """
    plan, times = video.plan, video.times
    total = sum(1 for _ in plan.spans(times))
    numbers = np.empty(total, np.int64)
    scores = np.empty((total, card.task.num_logits(len(card.classes))), np.float32)
    faults = [] if store is None else list(store.faults)
    done = 0
    if store is not None and store.numbers:
        done = len(store.numbers)
        with reading(store.path, advice="delete the file"):
            numbers[:done], scores[:done] = store.numbers, store.scores
    if store is None or not store.is_complete:
        first_number = int(numbers[done - 1]) + 1 if done else 0
        for batch in _batches(read(first_number), batch_size or batch_size_of(plan)):
            if isinstance(batch, Fault):
                if _is_known(batch, faults):
                    continue
                faults.append(batch)
                if store is not None:
                    store.append_fault(batch)
                if on_fault is not None:
                    on_fault(batch)
                continue
            clips = [torch.from_numpy(window.clips) for window in batch]
            after = done + len(batch)
            numbers[done:after] = [window.number for window in batch]
            scores[done:after] = compute(clips)
            if store is not None:
                store.append(numbers[done:after].tolist(), scores[done:after])
            if on_scores is not None:
                on_scores(numbers[done:after], scores[done:after])
            done = after
            if progress is not None:
                progress(done, total)
        if store is not None:
            store.complete()
    if not done:
        raise VideoError(faults[0].reason if faults else f"{video.name}: no window has a frame")
    return WindowScores(
        plan=plan,
        classes=card.classes,
        task=card.task,
        times=times,
        numbers=numbers[:done],
        scores=scores[:done],
        notes=(
            *([printable(video.note)] if video.note else []),
            *(describe_fault(fault, times) for fault in faults),
        ),
    )


def batch_size_of(plan: WindowPlan) -> int:
    """Return the number of windows in one forward pass."""
    return max(1, min(MOST_WINDOWS, chunk_views(plan.protocol) // plan.protocol.num_views))


def describe_fault(fault: Fault, times: np.ndarray) -> str:
    """Return a line about frames that cannot be read, with their times."""
    start = float(times[fault.first_frame])
    end = float(times[min(fault.end_frame, len(times) - 1)])
    return f"{fault.reason}; windows from {start:.2f} s to {end:.2f} s are left out"


def _is_known(fault: Fault, faults: list[Fault]) -> bool:
    return any(
        known.first_frame <= fault.first_frame and fault.end_frame <= known.end_frame for known in faults
    )


def _batches(items: Generator[Window | Fault, None, None], size: int) -> Iterator[list[Window] | Fault]:
    """Yield the windows in batches, and the unreadable parts of the video between them."""
    batch: list[Window] = []
    with closing(items):
        for item in items:
            if isinstance(item, Fault):
                if batch:
                    yield batch
                yield item
                batch = []
                continue
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    if batch:
        yield batch


def _read_ahead(
    source: Source, plan: WindowPlan, first_number: int, most: int
) -> Generator[Window | Fault, None, None]:
    """Yield windows and faults that a thread reads, up to `most` ahead; errors of the thread are raised."""
    items: queue.Queue[Window | Fault | BaseException | None] = queue.Queue(most)
    stop = threading.Event()

    def put(item: Window | Fault | BaseException | None) -> None:
        while not stop.is_set():
            try:
                items.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return
        raise _StoppedError

    def on_fault(error: VideoError, first: int, end: int) -> None:
        put(Fault(first, end, str(error)))

    def read() -> None:
        try:
            for window in read_windows(source, plan, first_number=first_number, on_fault=on_fault):
                put(window)
            put(None)
        except _StoppedError:
            pass
        except BaseException as error:
            with suppress(_StoppedError):
                put(error)

    thread = threading.Thread(target=read, name="read windows", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


class _StoppedError(Exception):
    """The consumer of the windows has stopped."""

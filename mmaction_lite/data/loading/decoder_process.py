"""Program of a decoding process: it reads paths from standard input and writes their clips.

`Decoders` and the server start it.

The process imports no PyTorch unless it has to resize large frames, and therefore starts in a tenth of the
time of a worker of a `DataLoader`.
"""

import multiprocessing
import os
import pickle
import traceback
from contextlib import suppress
from multiprocessing import spawn
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from mmaction_lite.data.loading.lifetime import ignore_group_signals, set_death_signal
from mmaction_lite.data.loading.worker_faults import NICENESS
from mmaction_lite.data.sources.resample import Size
from mmaction_lite.data.sources.source import Source, open_source, path_name
from mmaction_lite.errors import UserError, describe, printable

# Clips up to this size are resized by the parent process.
SMALL_BYTES = 16 << 20
SIGKILL = 9
STARTED = -1  # number of the first result, which is sent before a video is read


class Setup(NamedTuple):
    """First message to a decoding process.

    Args:
        main: arguments of `multiprocessing.spawn.prepare`, which imports the main module of the parent
            process; None if `views` does not need it.
        views: pickled test views, which may need the main module; pickled None if all tasks have readers.
    """

    main: dict[str, Any] | None
    views: bytes


class Task(NamedTuple):
    """A video to read.

    Args:
        number: number of the video.
        path: its path or address.
        reader: pickled object to read it with, in place of the views of `Setup`. Its method `read_described`
            returns an array, the arguments of `TestViews.resize`, and a dictionary for the calling process.
    """

    number: int
    path: str
    reader: bytes | None = None


class ResultHeader(NamedTuple):
    """Result of a task, which the pixels follow.

    Args:
        number: number of the video.
        shape: shape of the pixels, uint8; None if the video cannot be read.
        size: see `TestViews.resize`.
        reason: one line that names the video, if it cannot be read.
        error: unexpected error with its traceback, which ends the whole run; empty if there is none.
        details: of a reader with the method `read_described`; otherwise None.
    """

    number: int
    shape: tuple[int, ...] | None
    size: Size | None = None
    reason: str = ""
    error: str = ""
    details: dict[str, Any] | None = None


def run(has_death_signal: bool) -> None:
    """Read tasks from standard input until it ends; write results to standard output.

    Args:
        has_death_signal: whether the process is killed when the thread that started it ends.
    """
    ignore_group_signals()
    if has_death_signal:
        set_death_signal(SIGKILL)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    source, results = _take_streams()
    tasks: SimpleQueue[Task] = SimpleQueue()
    try:
        setup: Setup = pickle.load(source)
    except EOFError:  # the process has no use
        return
    Thread(target=_receive, args=(source, tasks), name="tasks", daemon=True).start()
    views = _unpickle(setup)
    with suppress(BrokenPipeError):  # the parent has ended
        _write(results, ResultHeader(STARTED, None), None)
        while True:
            number, path, reader = tasks.get()
            try:
                header, pixels = _read(number, path, views if reader is None else pickle.loads(reader))
            except Exception as error:
                line = f"{printable(path_name(path))}: {describe(error)}"
                header, pixels = ResultHeader(number, None, error=f"{line}\n{traceback.format_exc()}"), None
            _write(results, header, pixels)


def _take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return the streams of tasks and results, and keep other code away from both.

    What other code prints goes to standard error, and its standard input is empty.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    while nothing <= 2:  # the parent has no standard error
        nothing = os.open(os.devnull, os.O_RDWR)
    source, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return source, results


def _write(results: BinaryIO, header: ResultHeader, pixels: np.ndarray | None) -> None:
    pickle.dump(header, results)
    if pixels is not None:
        results.write(cast(Any, pixels).data.cast("B"))
    results.flush()


def _receive(source: BinaryIO, tasks: "SimpleQueue[Task]") -> None:
    """Queue the tasks. End the process with its parent, even if it is blocked in a system call."""
    try:
        while True:
            tasks.put(pickle.load(source))
    except (EOFError, pickle.UnpicklingError, OSError):
        os._exit(0)


def _unpickle(setup: Setup) -> Any:
    if setup.main is not None:
        # `lifetime.require_main_guard` ends the process where the main module starts workers itself.
        multiprocessing.current_process()._inheriting = True  # pyright: ignore[reportAttributeAccessIssue]
        spawn.prepare(setup.main)
        del multiprocessing.current_process()._inheriting  # pyright: ignore[reportAttributeAccessIssue]
    views = pickle.loads(setup.views)
    if views is not None and not hasattr(views, "read_small"):
        import torch  # noqa: F401  they resize; the time limit of the first video does not include the import
    return views


def _read(number: int, path: str, views: Any) -> tuple[ResultHeader, np.ndarray | None]:
    try:
        with open_source(Path(path)) as source:
            if hasattr(views, "read_described"):
                pixels, size, details = views.read_described(source)
            else:
                (pixels, size), details = _read_views(views, source), None
    except UserError as error:
        return ResultHeader(number, None, reason=name_reason(path_name(path), str(error))), None
    return ResultHeader(number, pixels.shape, size, details=details), np.ascontiguousarray(pixels)


def _read_views(views: Any, source: Source) -> tuple[np.ndarray, Size | None]:
    """Read clips and leave out the resizing of small ones, if the views can do this."""
    read_small = getattr(views, "read_small", None)
    return (views.read(source), None) if read_small is None else read_small(source, SMALL_BYTES)


def name_reason(name: str, reason: str) -> str:
    """Return the reason why a video cannot be read, as one line that names the video."""
    shown = printable(name)
    return reason if shown in reason or name in reason else f"{shown}: {reason}"

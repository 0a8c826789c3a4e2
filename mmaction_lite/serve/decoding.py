"""Read uploaded videos in processes, so that a video that crashes or blocks a decoder fails alone.

    event loop        Task ──► standard input    decoder_process.run
    receiving thread  ResultHeader, pixels ◄── standard output

The processes are those of `data.loading.decoders`. In place of a fixed list of videos, each process receives
one task at a time, with the reader of that task.
"""

import asyncio
import os
import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Thread
from typing import IO, Any, NamedTuple, cast

import numpy as np

from mmaction_lite.data.loading.decoder_launch import Process, end, launch
from mmaction_lite.data.loading.decoder_process import ResultHeader, Setup, Task
from mmaction_lite.data.loading.decoders import FIRST_SECONDS, receive, send
from mmaction_lite.data.loading.worker_faults import MAX_CRASHES
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.data.sources.resample import Size
from mmaction_lite.files import CACHE
from mmaction_lite.serve.problems import KINDS, Problem
from mmaction_lite.serve.readers import Reader

# An index of an uploaded file is not stored: the cache folder of the processes cannot be created.
ENVIRONMENT = {CACHE: os.devnull}
LONGEST_PAUSE = 5.0  # before another process is started after failures, in seconds
VIDEO_NAME = "the video"  # in place of the path of the uploaded file


class Reading(NamedTuple):
    """A video that was read.

    Args:
        pixels: see `Described`, as `size` and `details`.
        size: arguments of `TestViews.resize`, or None.
        details: values about the video.
        queue_seconds: how long the video waited for a process.
        seconds: how long it took to read it.
    """

    pixels: np.ndarray
    size: Size | None
    details: dict[str, Any]
    queue_seconds: float
    seconds: float


class _DiedError(Exception):
    """A process ended while it read a video."""


class _Worker:
    """A process and the task that it reads."""

    def __init__(self, process: Process):
        self.process = process
        self.is_new = True  # the first video may import PyTorch
        self.result: asyncio.Future[tuple[ResultHeader, np.ndarray | None]] | None = None


class DecodingPool:
    """Processes that read videos for the server.

    A process that reads one video for longer than the time limit is killed, and so is one whose request is
    canceled. A video at which `MAX_CRASHES` processes died is given up. Another process replaces each that
    ended; the other requests continue.

    Args:
        workers: number of processes and time limit of one video.
        report: called with "crash" or "hang" when a process is replaced.
    """

    def __init__(self, workers: WorkerSettings, report: Callable[[str], None] = lambda event: None):
        self._settings, self._report = workers, report
        self._workers: set[_Worker] = set()
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_started, self._is_closed = False, asyncio.Event()
        self._failures = 0  # processes that ended since the last result

    @property
    def pids(self) -> list[int]:
        """Process ids of the running processes."""
        return [worker.process.pid for worker in self._workers]

    def start(self) -> None:
        """Start the processes. Call it in the event loop.

        Raises:
            UserError: a process cannot be started.
        """
        self._is_started = True
        for process in launch(max(1, self._settings.count()), ENVIRONMENT):
            self._add(process)

    async def close(self) -> None:
        """Kill the processes."""
        self._is_closed.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        processes = [worker.process for worker in self._workers]
        await asyncio.to_thread(end, processes)

    async def read(self, path: Path, reader: Reader, hang_seconds: float | None = None) -> Reading:
        """Read a video in one of the processes, which start at the first call.

        Args:
            path: the video.
            reader: how to read it.
            hang_seconds: time limit; None: that of the settings.

        Raises:
            Problem: the video cannot be read, exceeds a limit, takes too long, or crashes the processes.
        """
        if not self._is_started:
            self.start()
        pickled = pickle.dumps(reader)
        limit = hang_seconds or self._settings.hang_seconds
        queue_seconds = 0.0
        for _ in range(MAX_CRASHES):
            waited = time.perf_counter()
            worker = await self._next_idle()
            started = time.perf_counter()
            queue_seconds += started - waited
            try:
                header, pixels = await self._run(worker, Task(next(self._numbers), str(path), pickled), limit)
            except _DiedError:
                continue
            if pixels is None:
                raise _problem(header, path)
            seconds = time.perf_counter() - started
            return Reading(pixels, header.size, header.details or {}, queue_seconds, seconds)
        raise Problem("decoder-crashed")

    async def _next_idle(self) -> _Worker:
        while True:
            worker = await self._idle.get()
            if worker in self._workers:  # otherwise it ended while it was idle
                return worker

    async def _run(self, worker: _Worker, task: Task, limit: float) -> tuple[ResultHeader, np.ndarray | None]:
        """Give a task to an idle process and wait for its result."""
        worker.result = asyncio.get_running_loop().create_future()
        try:
            send(worker.process, task)
            async with asyncio.timeout(limit + (FIRST_SECONDS if worker.is_new else 0)):
                result = await worker.result
        except TimeoutError:
            self._discard(worker, "hang")
            raise Problem("decoding-timeout", f"reading the video takes more than {limit:g} s") from None
        except _DiedError:
            self._discard(worker, "crash")
            raise
        except BaseException:  # the request is canceled
            self._discard(worker, "")
            raise
        worker.is_new, worker.result, self._failures = False, None, 0
        self._idle.put_nowait(worker)
        return result

    def _add(self, process: Process) -> None:
        worker = _Worker(process)
        self._workers.add(worker)
        send(process, Setup(None, pickle.dumps(None)))
        loop = asyncio.get_running_loop()
        Thread(target=self._receive, args=(worker, loop), name="decoding", daemon=True).start()

    def _receive(self, worker: _Worker, loop: asyncio.AbstractEventLoop) -> None:
        """Receive the results of a process until it ends; runs in a thread."""
        stream = cast(IO[bytes], worker.process.stdout)
        while True:
            try:
                result = receive(stream)
            except Exception:  # a process that dies can end in the middle of a message
                result = None
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(self._take, worker, result)
            if result is None:
                return

    def _take(self, worker: _Worker, result: tuple[ResultHeader, np.ndarray | None] | None) -> None:
        """Take the next result of a process, or None at its end."""
        if worker not in self._workers:  # it was discarded
            return
        if worker.result is not None:
            if worker.result.done():
                return
            if result is None:
                worker.result.set_exception(_DiedError())
            else:
                worker.result.set_result(result)
        elif result is None:
            self._discard(worker, "crash")
        else:  # the first result only states that the process has started
            self._idle.put_nowait(worker)

    def _discard(self, worker: _Worker, event: str) -> None:
        """End a process and start another one in its place."""
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        worker.process.kill()
        if event:
            self._failures += 1
            self._report(event)
        if not self._is_closed.is_set():
            task = asyncio.get_running_loop().create_task(self._replace(worker.process))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _replace(self, ended: Process) -> None:
        await asyncio.to_thread(end, [ended])
        await self._pause(min(LONGEST_PAUSE, 0.05 * self._failures))
        while not self._is_closed.is_set():
            try:
                (process,) = await asyncio.to_thread(launch, 1, ENVIRONMENT)
            except Exception:  # out of memory or processes: wait for others to end
                await self._pause(LONGEST_PAUSE)
                continue
            return self._add(process)

    async def _pause(self, seconds: float) -> None:
        """Wait, at most until the pool closes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_closed.wait()


def has_failed(task: "asyncio.Task[Any]") -> bool:
    """Whether a task has ended without a result, so that its work must be started again."""
    return task.done() and (task.cancelled() or task.exception() is not None)


def _problem(header: ResultHeader, path: Path) -> Problem:
    """Return the problem for a video that cannot be read, without its path."""
    if header.error:  # with a traceback, which names files of the server
        return Problem("unreadable-video", "the decoder failed")
    reason = header.reason.replace(str(path), VIDEO_NAME).replace(path.name, VIDEO_NAME)
    reason = reason.removeprefix(f"{VIDEO_NAME}: ")
    kind, separator, detail = reason.partition("|")
    return Problem(kind, detail) if separator and kind in KINDS else Problem("unreadable-video", reason)

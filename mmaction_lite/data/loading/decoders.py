"""Processes that read the clips of many videos ahead, in the order of the videos.

They are separate programs, not workers of a `DataLoader`. They import no PyTorch, so they start in a tenth of
the time, and can start before the calling process imports it.

    calling process   (number, path) ──► standard input    decoder_process.run
    reading thread    ResultHeader, pixels ◄── standard output

One thread per process receives the results and hands over the next tasks, so that the processes also work
while the calling process does something else. The results in memory are limited by `AHEAD_BYTES`, or by
`NEXT_VIDEOS` results per process if those are larger.
"""

import os
import pickle
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import spawn
from typing import IO, Any, NamedTuple, cast

import numpy as np

from mmaction_lite.data.loading.decoder_launch import Process, end, launch
from mmaction_lite.data.loading.decoder_process import ResultHeader, Setup, Task
from mmaction_lite.data.loading.lifetime import require_main_guard
from mmaction_lite.data.loading.worker_faults import (
    CRASHED,
    MAX_CRASHES,
    check_restarts,
    check_start,
    hung,
    not_picklable,
)
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.data.sources.source import PathInput, as_path, path_name
from mmaction_lite.errors import printable

POLL_SECONDS = 1.0
START_SECONDS = 60.0  # a busy machine takes long to start a process
FIRST_SECONDS = 30.0  # added to the time limit of the first video, whose resizing may import PyTorch
END_SECONDS = 10.0  # for a process that has closed its results
TASKS_AHEAD = 4  # of a process: the one that it reads and the next ones
NEXT_VIDEOS = 2  # per process, which may be read whatever their size
AHEAD_BYTES = 128 << 20  # results that wait for the calling process


class Decoded(NamedTuple):
    """The clips of a video, or the reason why it cannot be read.

    Args:
        pixels: result of `TestViews.read_small`; None if the video cannot be read.
        size: see `TestViews.resize`.
        reason: one line that names the video; empty if it was read.
    """

    pixels: np.ndarray | None
    size: tuple[int, int] | None
    reason: str


class _Decoder:
    """A process and the tasks that it has not completed, the one that it reads first."""

    def __init__(self, process: Process):
        self.process = process
        self.tasks: deque[int] = deque()
        self.waited_seconds = 0.0  # for the first task, counted while the calling process waits
        self.has_started = False
        self.extra_seconds = FIRST_SECONDS
        self.trouble = ""  # why the calling process killed it
        self.thread: threading.Thread | None = None


class Decoders:
    """Iterate over the clips of videos in order, each exactly once, even if processes fail.

    A process that reads one video for longer than the time limit is killed, and the video is given up. A
    video at which `MAX_CRASHES` processes died is given up, too; the first death may have another cause.
    A context manager; its end kills the processes.

    Args:
        paths: paths or addresses of the videos.
        views: the `TestViews`, or an object with a method `read(source)`.
        workers: number of processes and time limit of one video.
        launched: processes of `launch`, which start to read at once, or are ended if there are more than
            necessary. The others start when the first clips are requested, if videos are left for them.
        report: called with a line when a process was replaced; None prints it to standard error.

    Raises:
        UserError: a process cannot be started, or the views cannot be sent to it.
    """

    def __init__(
        self,
        paths: Sequence[PathInput],
        views: Any,
        workers: WorkerSettings,
        *,
        launched: Sequence[Process] = (),
        report: Callable[[str], None] | None = None,
    ):
        require_main_guard()
        self.paths, self.views = [os.fspath(as_path(path)) for path in paths], views
        self._hang_seconds = workers.hang_seconds
        self._report = report or (lambda line: print(line, file=sys.stderr))
        self._setup = _setup(views)
        self._changed = threading.Condition()
        self._waiting: deque[int] = deque(range(len(self.paths)))
        self._done: dict[int, Decoded] = {}
        self._ahead_bytes = self._largest = 0
        self._yielded = 0
        self._error = ""
        self._crashes: Counter[int] = Counter()
        self._restarts = 0
        self._decoders: list[_Decoder] = []
        self._dead: list[_Decoder] = []
        self._is_closed = False
        count = min(workers.count(), len(self.paths))
        end(launched[count:])
        self._num_missing = count - len(launched[:count])
        for process in launched[:count]:
            self._start(process)

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Decoded]:
        for process in launch(min(self._num_missing, len(self._waiting))):
            self._start(process)
        self._num_missing = 0
        for number in range(len(self.paths)):
            yield self._take(number)

    def close(self) -> None:
        """Kill the processes. Further calls have no effect."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            decoders, self._decoders = [*self._decoders, *self._dead], []
        for decoder in decoders:
            decoder.process.kill()
        for decoder in decoders:
            if decoder.thread is not None:
                decoder.thread.join()  # it reads until the process has ended
        end([decoder.process for decoder in decoders])

    def _take(self, number: int) -> Decoded:
        """Wait for the clips of a video, and replace processes that end meanwhile."""
        while True:
            with self._changed:
                if self._error:
                    raise RuntimeError(f"a decoding worker failed at {self._error}")
                dead, self._dead = self._dead, []
                if not dead and number in self._done:
                    result = self._done.pop(number)
                    self._yielded = number + 1
                    self._ahead_bytes -= 0 if result.pixels is None else result.pixels.nbytes
                    for decoder in self._decoders:
                        self._assign(decoder)
                    return result
                if not dead and not self._changed.wait(POLL_SECONDS):
                    self._kill_hung()
            for decoder in dead:
                self._replace(decoder)

    def _kill_hung(self) -> None:
        """Kill processes whose video takes too long. The time counts while the calling process waits only.

        After all processes were suspended and resumed, they have a moment to finish what they read.
        """
        for decoder in self._decoders:
            decoder.waited_seconds += POLL_SECONDS
            if not decoder.has_started and decoder.waited_seconds > START_SECONDS:
                decoder.trouble = f"a decoding worker did not start within {START_SECONDS:g} s"
                decoder.process.kill()
            limit = self._hang_seconds + decoder.extra_seconds
            if decoder.has_started and decoder.tasks and decoder.waited_seconds > limit:
                decoder.trouble = self._give_up(decoder.tasks.popleft(), hung(self._hang_seconds))
                decoder.process.kill()

    def _give_up(self, number: int, reason: str) -> str:
        self._restarts = 0
        self._done[number] = Decoded(None, None, f"{printable(path_name(self.paths[number]))}: {reason}")
        return self._done[number].reason

    def _start(self, process: Process) -> None:
        decoder = _Decoder(process)
        send(process, self._setup)
        decoder.thread = threading.Thread(target=self._receive, args=(decoder,), name="clips", daemon=True)
        with self._changed:
            self._decoders.append(decoder)
            self._assign(decoder)
        decoder.thread.start()

    def _assign(self, decoder: _Decoder) -> None:
        """Send the next tasks to a process, within the limit of memory. Call it with the lock."""
        while self._waiting and len(decoder.tasks) < TASKS_AHEAD:
            in_flight = sum(len(each.tasks) for each in self._decoders)
            expected_bytes = self._ahead_bytes + (in_flight + 1) * self._largest
            is_small = self._largest > 0 and expected_bytes <= AHEAD_BYTES
            if not is_small and self._waiting[0] >= self._yielded + NEXT_VIDEOS * len(self._decoders):
                return
            number = self._waiting.popleft()
            decoder.tasks.append(number)
            send(decoder.process, Task(number, self.paths[number]))

    def _receive(self, decoder: _Decoder) -> None:
        """Receive the results of a process until it ends; runs in a thread."""
        stream = cast(IO[bytes], decoder.process.stdout)
        while True:
            try:
                header, pixels = receive(stream)
            except Exception:  # a process that dies can end in the middle of a message
                break
            with self._changed:
                if not decoder.has_started:
                    decoder.has_started, decoder.waited_seconds = True, 0.0
                if decoder.tasks and decoder.tasks[0] == header.number:  # otherwise it was given up
                    decoder.tasks.popleft()
                    decoder.waited_seconds = decoder.extra_seconds = 0.0
                    self._restarts = 0
                    self._done[header.number] = Decoded(pixels, header.size, header.reason)
                    self._error = self._error or header.error
                    num_bytes = 0 if pixels is None else pixels.nbytes
                    self._ahead_bytes += num_bytes
                    self._largest = max(self._largest, num_bytes)
                    self._assign(decoder)
                self._changed.notify_all()
        with self._changed:
            if not self._is_closed:
                self._decoders.remove(decoder)
                self._dead.append(decoder)
                self._changed.notify_all()

    def _replace(self, decoder: _Decoder) -> None:
        """Start a process in place of one that ended, and find out why it ended.

        Raises:
            UserError: processes end before they read anything.
        """
        with suppress(subprocess.TimeoutExpired):  # if this process could not receive a result
            decoder.process.wait(END_SECONDS)
        end([decoder.process])
        if not decoder.has_started and not decoder.trouble:
            check_start(decoder.process.returncode)
        with self._changed:
            trouble = decoder.trouble or "a decoding worker died"
            if decoder.tasks and not decoder.trouble:
                number = decoder.tasks[0]
                self._crashes[number] += 1
                if self._crashes[number] >= MAX_CRASHES:
                    decoder.tasks.popleft()
                    trouble = self._give_up(number, CRASHED)
            # In order: the next video that is needed must not wait behind one that exceeds the memory.
            self._waiting = deque(sorted([*decoder.tasks, *self._waiting]))
            self._restarts += 1
            restarts = self._restarts
        check_restarts(restarts, trouble)
        self._report(f"{trouble}; restarted a decoding worker, no video is lost")
        self._start(*launch(1))


def _setup(views: Any) -> Setup:
    """Return the first message to every process; the main module is imported only where the views need it.

    Raises:
        UserError: the views cannot be pickled.
    """
    try:
        pickled = pickle.dumps(views)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise not_picklable("the views", error) from None
    main = spawn.get_preparation_data("decoder") if b"__main__" in pickled else None
    if main is not None:
        del main["authkey"]  # the processes share no connections of `multiprocessing`, and it is a secret
    return Setup(main, pickled)


def send(process: Process, message: Any) -> None:
    """Send a message. A process that has ended is noticed where its results are received."""
    stream = cast(IO[bytes], process.stdin)
    with suppress(OSError):
        stream.write(pickle.dumps(message))
        stream.flush()


def receive(stream: IO[bytes]) -> tuple[ResultHeader, np.ndarray | None]:
    """Wait for the next result of a process; return it with its pixels.

    Raises:
        Exception: of any type. The process has ended, perhaps in the middle of a message.
    """
    header: ResultHeader = pickle.load(stream)
    return header, None if header.shape is None else _read_pixels(stream, header.shape)


def _read_pixels(stream: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
    pixels = np.empty(shape, np.uint8)
    left = memoryview(cast(Any, pixels)).cast("B")
    while len(left):
        count = cast(Any, stream).readinto(left)
        if not count:
            raise EOFError
        left = left[count:]
    return pixels

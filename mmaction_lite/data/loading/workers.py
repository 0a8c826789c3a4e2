"""Decoding processes: how they start, what each is reading, and what happens when one hangs or dies."""

import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, get_worker_info

from mmaction_lite.errors import UserError

T = TypeVar("T")
HANG_SECONDS = 120.0
POLL_SECONDS = 5.0
MOST_CRASHES = 2  # of processes while they read one and the same video
STUCK_SECONDS = 60.0  # without a batch and with nobody reading; starting on a busy machine takes a while, too
MOST_RESTARTS = 3  # without a batch in between
PREFETCH = 2
# Behind the process that feeds the device: with as many busy workers as cores, every wake-up of it took its
# turn, and steps of many short launches 40 % longer.
NICENESS = 10
SHARED_MEMORY = Path("/dev/shm")


class WorkerStatus:
    """What every worker is reading, in memory that all processes see, and what must not be read again.

    `table` has a row per worker: its process number, the sample or -1, and since when. `given_up` holds the
    reasons by sample; only the parent writes it, and workers get it when they start.
    """

    def __init__(self, num_workers: int = 0):
        self.table = torch.full((num_workers, 3), -1.0, dtype=torch.float64)
        self.given_up: dict[int, str] = {}
        if num_workers:
            self.table.share_memory_()

    @contextmanager
    def reading(self, sample: int) -> Iterator[None]:
        """Note that this worker reads `sample`, for as long as the block lasts."""
        info = get_worker_info()
        if info is None:
            yield
            return
        # The time comes first: the parent must not pair the sample with an old one.
        self.table[info.id, 2] = time.time()
        self.table[info.id, 1] = sample
        try:
            yield
        finally:
            self.table[info.id, 1] = -1

    def enter(self, worker: int) -> None:
        """Note the process number of a worker that starts."""
        self.table[worker] = torch.tensor([os.getpid(), -1, time.time()], dtype=torch.float64)

    def hung(self, seconds: float) -> list[int]:
        """The samples that have been read for longer than `seconds`."""
        now = time.time()
        return [int(s) for _, s, since in self.table.tolist() if s >= 0 and now - since > seconds]

    def read_by(self, pids: set[int]) -> list[int]:
        """The samples that these processes are, or were when they died, reading."""
        return [int(s) for pid, s, _ in self.table.tolist() if s >= 0 and int(pid) in pids]

    def kill(self) -> None:
        """End all workers at once: nothing less stops one that is blocked inside a system call."""
        for pid, _, _ in self.table.tolist():
            if pid > 0:
                try:
                    os.kill(int(pid), getattr(signal, "SIGKILL", signal.SIGTERM))
                except ProcessLookupError:
                    continue
        self.table.fill_(-1)


class HasWorkerStatus(Protocol):
    """A data set whose reading can be watched: it reads in `notes.reading` and heeds `notes.given_up`."""

    notes: WorkerStatus


class FaultTolerantLoader(Generic[T]):
    """The batches of a `DataLoader`, each exactly once and in order, whatever its processes do.

    When a worker reads one video for longer than `hang_seconds`, or dies, all workers are ended and new ones
    start at the first batch that was not delivered. A video that hung is not opened again; nor is one
    at which a worker died twice (the first time may have been somebody else's fault).

    Args:
        dataset: what is read.
        remaining: the arguments of the `DataLoader` that gives the batches from a given one on.
        length: number of batches.
        num_workers: processes.
        hang_seconds: how long reading one video may take.
        name: of a sample, for `report`.
        report: called with a line when workers were started again; None prints it to standard error.
        pin: whether batches come in page-locked memory.
    """

    def __init__(
        self,
        dataset: HasWorkerStatus,
        remaining: Callable[[int], dict[str, Any]],
        length: int,
        num_workers: int,
        hang_seconds: float,
        name: Callable[[int], str],
        report: Callable[[str], None] | None,
        pin: bool = False,
    ):
        self._dataset = dataset
        self._remaining = remaining
        self._length = length
        self._num_workers = num_workers
        self._hang_seconds = hang_seconds
        self._name = name
        self._report = report or (lambda line: print(line, file=sys.stderr))
        self._pin = pin
        self._notes = dataset.notes = WorkerStatus(num_workers)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        delivered, restarts, crashes = 0, 0, Counter()
        while delivered < self._length:
            batches = iter(self._start(delivered))
            trouble = ""
            while delivered < self._length and not trouble:
                waiting_since = time.time()
                batch = waiting = object()
                while batch is waiting and not trouble:
                    try:
                        batch = next(batches)
                    except RuntimeError as error:
                        trouble = self._trouble(error, time.time() - waiting_since, crashes)
                if batch is not waiting:
                    delivered, restarts = delivered + 1, 0
                    yield batch  # pyright: ignore[reportReturnType]
            if trouble:
                self._notes.kill()
                restarts += 1
                if restarts > MOST_RESTARTS:
                    raise UserError(
                        f"decoding processes ended {restarts} times without a batch in between, the last "
                        f"time because {trouble}; is memory short? try fewer --workers"
                    )
                self._report(f"{trouble}; started the decoding processes again, no draw is lost")
            del batches

    def _start(self, delivered: int) -> DataLoader[T]:
        """A loader of the remaining batches whose workers are safe to kill, and never forked from here."""
        options = self._remaining(delivered) | {"pin_memory": self._pin}
        if self._num_workers:
            options |= {
                "num_workers": self._num_workers,
                "multiprocessing_context": _worker_context(),
                "worker_init_fn": _enter,
                "timeout": min(POLL_SECONDS, self._hang_seconds / 2),
                "prefetch_factor": PREFETCH,
            }
        return DataLoader(self._dataset, **options)  # pyright: ignore[reportArgumentType]  by its shape

    def _give_up(self, sample: int, reason: str) -> str:
        self._notes.given_up[sample] = reason
        return f"{self._name(sample)}: {reason}"

    def _trouble(self, error: RuntimeError, waited: float, crashes: Counter[int]) -> str:
        """What keeps the workers from delivering, "" if they are only slow; raises what is not theirs."""
        message = str(error)
        if not self._num_workers or not message.startswith("DataLoader "):
            raise error
        dead = re.search(r"pid\(s\) ([\d, ]+)\) exited", message)
        if dead:
            pids = {int(pid) for pid in dead[1].split(",")}
            samples = self._notes.read_by(pids)
            crashes.update(samples)
            for sample in samples:
                if crashes[sample] >= MOST_CRASHES:
                    reason = f"{MOST_CRASHES} decoding processes died while they read it"
                    return self._give_up(sample, reason)
            return "a decoding process died"
        hung = self._notes.hung(self._hang_seconds)
        reason = f"reading it took more than {self._hang_seconds:g} s"
        if hung:
            return "; ".join([self._give_up(sample, reason) for sample in hung])
        is_stuck = waited > max(STUCK_SECONDS, 2 * self._hang_seconds)
        return "the decoding processes are stuck" if is_stuck else ""


def _worker_context() -> Any:
    """How workers start: never forked from here, which hangs when a decoder with threads is open here."""
    if "forkserver" not in torch.multiprocessing.get_all_start_methods():
        return torch.multiprocessing.get_context("spawn")
    context = torch.multiprocessing.get_context("forkserver")
    # The server imports PyTorch once; workers fork from it in milliseconds. They are born with Ctrl-C
    # blocked, until they can ignore it.
    context.set_forkserver_preload(["mmaction_lite.data.loading.loader"])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _leave_interrupts_to_the_parent() -> None:
    """Ignore Ctrl-C, which goes to every process: the parent stops between two steps and ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _enter(worker: int) -> None:
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    _leave_interrupts_to_the_parent()
    info = get_worker_info()
    assert info is not None
    notes: WorkerStatus = info.dataset.notes  # pyright: ignore[reportAttributeAccessIssue]
    notes.enter(worker)


def check_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """Workers hand batches over in shared memory; a container often has 64 MB of it, and then they die of it.

    Raises:
        UserError: what the workers may have in flight does not fit.
    """
    if not num_workers or not SHARED_MEMORY.is_dir():
        return
    free, needed = shutil.disk_usage(SHARED_MEMORY).free, batch_bytes * num_workers * PREFETCH
    if needed > free:
        fitting = free // (batch_bytes * PREFETCH)
        raise UserError(
            f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free, and {num_workers} workers with {PREFETCH} "
            f"batches of {batch_bytes / 2**20:.0f} MiB each need {needed / 2**20:.0f} MiB; give the "
            f"container more (docker run --shm-size=..., or --ipc=host), or use --workers {fitting}"
        )

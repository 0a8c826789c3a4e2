"""Decoding worker processes: start, the video that each one reads, recovery from hangs and deaths."""

import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, default_collate, get_worker_info

from mmaction_lite.data.loading.lifetime import (
    require_main_guard,
    start_worker,
)
from mmaction_lite.data.loading.processes import (
    Collate,
    Items,
    WorkerProcesses,
    worker_context,
)
from mmaction_lite.data.loading.worker_faults import (
    CRASHED,
    MAX_CRASHES,
    NICENESS,
    check_restarts,
    check_start,
    hung,
)
from mmaction_lite.data.loading.worker_settings import IN_PROCESS as IN_PROCESS
from mmaction_lite.data.loading.worker_settings import ONE_PER_CORE as ONE_PER_CORE
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.data.loading.worker_settings import worker_limit as worker_limit
from mmaction_lite.errors import UserError

T = TypeVar("T")
POLL_SECONDS = 5.0
STUCK_SECONDS = 60.0  # without a batch while no worker reads; starting workers on a busy machine is slow, too
PREFETCH = 2
SHARED_MEMORY = Path("/dev/shm")


class WorkerStatus:
    """Table in shared memory of the sample that each worker reads, and the samples to skip.

    `table` is float64 (num_workers, 3): process id, sample number or -1, and the time at which reading began.
    `given_up` maps samples to the reason for skipping them. Only the parent process writes it; workers
    receive a copy when they start.
    """

    def __init__(self, num_workers: int = 0):
        self.table = torch.full((num_workers, 3), -1.0, dtype=torch.float64)
        self.given_up: dict[int, str] = {}
        if num_workers:
            self.table.share_memory_()

    @contextmanager
    def reading(self, sample: int) -> Iterator[None]:
        """Record in the table that this worker reads `sample` while the block runs."""
        info = get_worker_info()
        if info is None:
            yield
            return
        # Write the time first, so that the parent never pairs the new sample with the old time.
        self.table[info.id, 2] = time.time()
        self.table[info.id, 1] = sample
        try:
            yield
        finally:
            self.table[info.id, 1] = -1

    def enter(self, worker: int) -> None:
        """Record the process id of a worker that starts."""
        self.table[worker] = torch.tensor([os.getpid(), -1, time.time()], dtype=torch.float64)

    def hung(self, seconds: float) -> list[int]:
        """Return the samples that workers have been reading for longer than `seconds`."""
        now = time.time()
        return [int(s) for _, s, since in self.table.tolist() if s >= 0 and now - since > seconds]

    def forget(self) -> None:
        """Remove all workers from the table, before others start."""
        self.table.fill_(-1)

    def has_entered(self, pids: Iterable[int]) -> bool:
        """Return whether any of the processes `pids` has started to read."""
        return not set(pids).isdisjoint(int(pid) for pid, _, _ in self.table.tolist())

    def read_by(self, pids: Iterable[int]) -> list[int]:
        """Return the samples that the processes `pids` read, now or at the time of their death."""
        return [int(s) for pid, s, _ in self.table.tolist() if s >= 0 and int(pid) in set(pids)]

    def kill(self) -> None:
        """Kill all workers. SIGKILL is the only signal that stops a process blocked in a system call."""
        for pid, _, _ in self.table.tolist():
            if pid > 0:
                try:
                    os.kill(int(pid), getattr(signal, "SIGKILL", signal.SIGTERM))
                except ProcessLookupError:
                    continue
        self.table.fill_(-1)


class HasWorkerStatus(Protocol):
    """A dataset that reads each sample inside `worker_status.reading` and skips `worker_status.given_up`."""

    worker_status: WorkerStatus


class _Watchdog:
    """Thread that kills the workers when one of them hangs. A context manager.

    `DataLoader` then raises the RuntimeError that it raises for every dead worker, so the parent handles both
    cases in the same place and needs no timeout of the `DataLoader`.

    Args:
        status: the table of the workers.
        hang_seconds: time limit for reading one video.
    """

    def __init__(self, status: WorkerStatus, hang_seconds: float):
        self.hung: list[int] = []
        self.is_stuck = False
        self._status = status
        self._hang_seconds = hang_seconds
        self._waiting_since: float | None = None
        self._done = Event()
        self._thread = Thread(target=self._watch, name="worker watchdog", daemon=True)

    def __enter__(self) -> "_Watchdog":
        if len(self._status.table):
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark that the parent waits for a batch while the block runs."""
        self._waiting_since = time.time()
        try:
            yield
        finally:
            self._waiting_since = None

    def _watch(self) -> None:
        poll_seconds = min(POLL_SECONDS, self._hang_seconds / 2)
        while not self._done.wait(poll_seconds):
            # Check only while the parent waits: after all processes were suspended and resumed, workers need
            # a moment to finish what they read.
            waiting_since = self._waiting_since
            waited = 0.0 if waiting_since is None else time.time() - waiting_since
            if waited < poll_seconds:
                continue
            self.hung = self._status.hung(self._hang_seconds)
            self.is_stuck = waited > max(STUCK_SECONDS, 2 * self._hang_seconds)
            if self.hung or self.is_stuck:
                self._status.kill()
                return


class FaultTolerantLoader(Generic[T]):
    """Iterate over the batches of a `DataLoader`, each exactly once and in order, even if workers fail.

    When a worker reads one video for longer than the time limit, or dies, all workers are killed and new ones
    start at the first batch that was not delivered. A video that hung is not opened again. Neither is a video
    at which `MAX_CRASHES` workers died; the first death may have another cause.

    Args:
        dataset: the dataset.
        remaining: returns the arguments of the `DataLoader` that yields the batches from a given one on.
        length: number of batches.
        workers: worker processes.
        name: returns the name of a sample, for `report`.
        report: called with a line when workers were restarted; None prints it to standard error.
        pin: whether batches are in pinned memory.
    """

    def __init__(
        self,
        dataset: HasWorkerStatus,
        remaining: Callable[[int], dict[str, Any]],
        length: int,
        workers: WorkerSettings,
        *,
        name: Callable[[int], str],
        report: Callable[[str], None] | None = None,
        pin: bool = False,
    ):
        self._dataset = dataset
        self._remaining = remaining
        self._length = length
        self._num_workers = min(workers.count(), length)  # a worker without a batch has no work
        self._hang_seconds = workers.hang_seconds
        self._name = name
        self._report = report or (lambda line: print(line, file=sys.stderr))
        self._pin = pin
        self._status = dataset.worker_status = WorkerStatus(self._num_workers)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        if self._num_workers:
            require_main_guard()
        delivered, restarts, crashes = 0, 0, Counter()
        while delivered < self._length:
            trouble = ""
            with (
                WorkerProcesses(self._num_workers, partial(self._start, delivered)) as workers,
                _Watchdog(self._status, self._hang_seconds) as watchdog,
            ):
                while delivered < self._length and not trouble:
                    try:
                        with watchdog.waiting():
                            batch = next(workers.batches)
                    except Exception:
                        # Without a dead worker the error comes from the dataset or from the `DataLoader`. A
                        # worker that dies can break any connection, in the middle of a message, too.
                        dead = workers.dead()
                        if not dead:
                            raise
                        trouble = self._trouble(watchdog, dead, crashes)
                        workers.kill()
                    else:
                        if isinstance(batch, UserError):
                            raise batch
                        delivered, restarts = delivered + 1, 0
                        yield batch
            if trouble:
                restarts += 1
                check_restarts(restarts, trouble)
                self._report(f"{trouble}; restarted the decoding workers, no batch is lost")

    def _start(self, delivered: int) -> DataLoader[Any]:
        """Return a loader of the remaining batches, whose workers are not forked from this process."""
        options: dict[str, Any] = self._remaining(delivered) | {"pin_memory": self._pin}
        if not self._num_workers:
            return DataLoader(self._dataset, **options)  # pyright: ignore[reportArgumentType]  by its shape
        self._status.forget()
        options |= {
            "num_workers": self._num_workers,
            "multiprocessing_context": worker_context(),
            "worker_init_fn": _enter,
            "prefetch_factor": PREFETCH,
            "collate_fn": Collate(options.get("collate_fn") or default_collate),
        }
        return DataLoader(Items(self._dataset), **options)  # pyright: ignore[reportArgumentType]

    def _give_up(self, sample: int, reason: str) -> str:
        self._status.given_up[sample] = reason
        return f"{self._name(sample)}: {reason}"

    def _trouble(self, watchdog: _Watchdog, dead: dict[int, int], crashes: Counter[int]) -> str:
        """Return the reason why the workers `dead` ended, and give up the videos at fault.

        Args:
            watchdog: whether it killed the workers.
            dead: exit codes of the workers by process id.
            crashes: number of deaths while reading a sample, which this function updates.

        Raises:
            UserError: the workers end before they read, with an error that they have printed.
        """
        if watchdog.hung:
            reason = hung(self._hang_seconds)
            return "; ".join([self._give_up(sample, reason) for sample in watchdog.hung])
        if watchdog.is_stuck:
            return "the decoding workers delivered no batch"
        if not self._status.has_entered(dead):
            for code in dead.values():
                check_start(code)
        samples = self._status.read_by(dead)
        crashes.update(samples)
        for sample in samples:
            if crashes[sample] >= MAX_CRASHES:
                return self._give_up(sample, CRASHED)
        return "a decoding worker died"


def _enter(worker: int) -> None:
    start_worker()
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    info = get_worker_info()
    assert info is not None
    status: WorkerStatus = info.dataset.dataset.worker_status  # pyright: ignore[reportAttributeAccessIssue]
    status.enter(worker)


def check_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """Check that the batches in flight fit into shared memory, through which workers return them.

    Containers often have only 64 MB of it, and workers die when it is full.

    Args:
        batch_bytes: size of one batch in bytes.
        num_workers: number of workers, each of which holds `PREFETCH` batches.

    Raises:
        UserError: shared memory is too small.
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

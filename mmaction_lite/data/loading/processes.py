"""Start of the worker processes of a `DataLoader`, their end, and errors of the user inside them."""

import multiprocessing
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.popen_fork import Popen
from multiprocessing.process import BaseProcess
from pickle import PicklingError
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from mmaction_lite.data.loading.lifetime import end_with_fork_server, start_fork_server
from mmaction_lite.data.loading.worker_faults import check_start, not_picklable, not_started
from mmaction_lite.errors import UserError


class Items:
    """Dataset in a worker. A `UserError` is an item: a `DataLoader` adds a traceback to exceptions."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker calls the function before it reads the dataset, which may import modules for a long time.
        return _new_items, (), self.__dict__

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: Any) -> Any:
        try:
            return self.dataset[number]
        except UserError as error:
            return error


def _new_items() -> Items:
    end_with_fork_server()
    return Items.__new__(Items)


class Collate(NamedTuple):
    """Collate function in a worker, for the items of `Items`; returns the first error instead of a batch."""

    collate: Callable[[list[Any]], Any]

    def __call__(self, items: list[Any]) -> Any:
        """Collate the items."""
        errors = [item for item in items if isinstance(item, UserError)]
        return errors[0] if errors else self.collate(items)


class WorkerProcesses:
    """Worker processes of a `DataLoader`. A context manager, which kills them when an exception leaves it.

    Args:
        number: number of processes.
        start: returns the loader.
    """

    def __init__(self, number: int, start: Callable[[], DataLoader[Any]]):
        self._number = number
        self._start = start
        self._processes: list[BaseProcess] = []

    def __enter__(self) -> "WorkerProcesses":
        others, error = multiprocessing.active_children(), None
        try:
            with warnings.catch_warnings():
                # More workers than cores are useful where files are remote. Errors are reported below.
                warnings.simplefilter("ignore", UserWarning)
                self.batches = iter(self._start())
        except BaseException as failure:
            error = failure
        self._processes = [each for each in multiprocessing.active_children() if each not in others]
        if error is None:
            return self
        code = _abandon(error)
        self.kill()
        if code is not None:
            check_start(code)
        # A fork server that has no memory left, or may start no more processes, ends and breaks connections.
        if self._number and isinstance(error, OSError | EOFError | MemoryError | RuntimeError):
            raise not_started(self._number, error) from None
        if self._number and isinstance(error, PicklingError | AttributeError | TypeError):
            raise not_picklable("the data set", error) from None
        raise error

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            self.kill()  # the end of what they read may be far
        del self.batches

    def kill(self) -> None:
        """Kill all processes."""
        for process in self._processes:
            process.kill()

    def dead(self) -> dict[int, int]:
        """Return the exit codes of the processes that have ended, by process id.

        While batches are missing, no worker ends normally.
        """
        if self._processes:
            # The connections of a killed process break shortly before the end of the process is known.
            wait([process.sentinel for process in self._processes], timeout=1.0)
        codes = {process.pid: process.exitcode for process in self._processes}
        return {pid: code for pid, code in codes.items() if pid is not None and code is not None}


def _abandon(error: BaseException) -> int | None:
    """Clean up after a start of workers that failed.

    The incomplete iterator of the `DataLoader` would print a traceback when it is deleted.

    Returns:
        The exit code of the worker whose start failed, if it ended while it received the dataset.
    """
    code = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, _MultiProcessingDataLoaderIter):
            owner._shutdown = True
        elif isinstance(owner, Popen) and isinstance(error, BrokenPipeError) and code is None:
            if getattr(owner, "pid", None) is None:  # the fork server sends the process id first
                owner.wait(timeout=5.0)
                owner.returncode = None
            code = owner.wait(timeout=5.0)
    return code


def worker_context() -> Any:
    """Return the start method of workers; a fork of a process with an open threaded decoder hangs."""
    if "forkserver" not in torch.multiprocessing.get_all_start_methods():
        return torch.multiprocessing.get_context("spawn")
    start_fork_server(["mmaction_lite.data.loading.fork_server"])
    return torch.multiprocessing.get_context("forkserver")

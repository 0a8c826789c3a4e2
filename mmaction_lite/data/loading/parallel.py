"""Parallel map over the files of a dataset, in worker processes or on a Ray cluster."""

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Generic, Literal, Protocol, TypeVar

from mmaction_lite.data.loading.workers import IN_PROCESS, FaultTolerantLoader, WorkerSettings, WorkerStatus
from mmaction_lite.errors import UserError

Engine = Literal["local", "ray"]
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[R_co]):
    """Picklable function of an item number. It returns faults, because an exception ends the whole map."""

    def __call__(self, number: int) -> R_co:
        """Process an item."""
        ...

    def failed(self, number: int, reason: str) -> R_co:
        """Return the result of an item that hung or whose process died."""
        ...


class _Tasks(Generic[R]):
    """Dataset whose items are the results; runs in the workers."""

    def __init__(self, work: Work[R]):
        self.work = work
        self.worker_status = WorkerStatus()

    def __getitem__(self, number: int) -> R:
        if number in self.worker_status.given_up:
            return self.work.failed(number, self.worker_status.given_up[number])
        with self.worker_status.reading(number):
            return self.work(number)


def run_tasks(
    work: Work[R],
    numbers: list[int],
    workers: WorkerSettings = IN_PROCESS,
    engine: Engine = "local",
) -> Iterable[R]:
    """Yield the results of the items `numbers` in order; for hanging items see `FaultTolerantLoader`.

    Args:
        work: function of an item number.
        numbers: item numbers.
        workers: worker processes on this machine, and the time limit of one item; a Ray cluster has its own
            number of processes.
        engine: "ray" uses the cluster of RAY_ADDRESS, or starts a local one.

    Raises:
        UserError: Ray is not installed.
    """
    if engine == "ray":
        return _on_ray(work, numbers, workers.hang_seconds)

    def remaining(done: int) -> dict[str, Any]:
        return {"sampler": numbers[done:], "batch_size": 1, "collate_fn": _only}

    def say_nothing(line: str) -> None:
        """Ignore the report: failed items are in the results."""

    return FaultTolerantLoader(_Tasks(work), remaining, len(numbers), workers, name=str, report=say_nothing)


def _only(results: list[R]) -> R:
    return results[0]


def _on_ray(work: Work[R], numbers: list[int], hang_seconds: float) -> Iterator[R]:
    try:
        import ray
        from ray.exceptions import OutOfMemoryError, WorkerCrashedError
    except ImportError:
        raise UserError("--engine ray needs Ray: pip install 'mmaction-lite[ray]'") from None
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        # An item whose process dies is retried once.
        run = ray.remote(max_retries=1)(_one)
        shared = ray.put(work)
        ahead = 4 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        left = iter(numbers)
        waiting = deque((number, run.remote(shared, number)) for number in islice(left, ahead))
        while waiting:
            number, result = waiting.popleft()
            waiting.extend((other, run.remote(shared, other)) for other in islice(left, 1))
            # The oldest item has started long ago, or only waited for older items, which are done or
            # canceled.
            done, _ = ray.wait([result], timeout=2 * hang_seconds)
            if not done:
                ray.cancel(result, force=True)
                yield work.failed(number, f"took more than {hang_seconds:g} s")
                continue
            try:
                yield ray.get(result)
            except (WorkerCrashedError, OutOfMemoryError) as error:
                yield work.failed(number, f"its process died ({type(error).__name__})")
    finally:
        if started:
            ray.shutdown()


def _one(work: Work[R], number: int) -> R:
    return work(number)

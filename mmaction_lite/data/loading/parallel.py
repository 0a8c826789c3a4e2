"""The same work on every file of a data set, in as many processes as there are cores."""

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
    """Numbered pieces of work. It must pickle, and return its faults, for what it raises ends everything."""

    def __call__(self, number: int) -> R_co:
        """Do a piece."""
        ...

    def failed(self, number: int, reason: str) -> R_co:
        """What stands for the result of a piece that hung or killed its process."""
        ...


class _Tasks(Generic[R]):
    """The part that runs in the processes."""

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
        work: what to do.
        numbers: of the items.
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
        """What hung is in the results."""

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
        # A piece is tried once more when its process dies, and given up after that.
        run = ray.remote(max_retries=1)(_one)
        shared = ray.put(work)
        ahead = 4 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        left = iter(numbers)
        waiting = deque((number, run.remote(shared, number)) for number in islice(left, ahead))
        while waiting:
            number, result = waiting.popleft()
            waiting.extend((other, run.remote(shared, other)) for other in islice(left, 1))
            # The oldest piece began long ago, or waits for older ones that were given up by now.
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

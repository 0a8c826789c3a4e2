"""The same work on every file of a data set, in as many processes as there are cores."""

from contextlib import nullcontext
from typing import Generic, Protocol, TypeVar

from torch.utils.data import DataLoader

from mmaction_lite.data.workers import HANG_SECONDS, Batches, Notes, start_loader

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
        self.notes: Notes | None = None
        self._given_up: dict[int, str] = {}

    def __getitem__(self, number: int) -> R:
        if number in self._given_up:
            return self.work.failed(number, self._given_up[number])
        with self.notes.reading(number) if self.notes else nullcontext():
            return self.work(number)

    def give_up(self, number: int, reason: str) -> str:
        """Do not try piece `number` again."""
        self._given_up[number] = reason
        return f"number {number}: {reason}"


def run_tasks(
    work: Work[R], numbers: list[int], num_workers: int, hang_seconds: float = HANG_SECONDS
) -> Batches[R]:
    """The results of the pieces `numbers`, in that order, as they come; for hanging ones see `Batches`."""
    tasks = _Tasks(work)
    tasks.notes = Notes(num_workers) if num_workers else None

    def make(done: int) -> DataLoader[R]:
        options = {"sampler": numbers[done:], "batch_size": 1, "collate_fn": _only}
        return start_loader(tasks, num_workers, False, hang_seconds, **options)

    def say_nothing(line: str) -> None:
        """What hung is in the results."""

    return Batches(make, len(numbers), num_workers, tasks.notes, tasks.give_up, hang_seconds, say_nothing)


def _only(results: list[R]) -> R:
    return results[0]

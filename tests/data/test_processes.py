"""Start of the worker processes of a loader, and errors of the user in them."""

import errno
import multiprocessing
import pickle
import sys

import pytest

from mmaction_lite.data.loading import processes
from mmaction_lite.data.loading.parallel import run_tasks
from mmaction_lite.data.loading.processes import Collate, Items
from mmaction_lite.data.loading.workers import WorkerSettings, worker_limit
from mmaction_lite.errors import UserError


class Refused:
    """Work that raises an error of the user at one number."""

    def __call__(self, number: int) -> int:
        if number == 3:
            raise UserError("clip 3: needs pyarrow: pip install it")
        return number

    def failed(self, number: int, reason: str) -> int:
        raise AssertionError(reason)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_of_the_user_arrives_as_its_one_line(num_workers):
    with pytest.raises(UserError) as caught:
        list(run_tasks(Refused(), [1, 2, 3, 4], WorkerSettings(num_workers=num_workers)))
    assert str(caught.value) == "clip 3: needs pyarrow: pip install it"


def test_items_and_errors_pass_through_pickles_and_the_collate_function():
    items = pickle.loads(pickle.dumps(Items([5, 6])))
    assert (len(items), items[1]) == (2, 6)
    error = UserError("wrong")
    assert Collate(sum)([1, 2]) == 3
    assert Collate(sum)([1, error]) is error


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "Too many open files"), EOFError("unexpected EOF"), RuntimeError("no thread")],
)
def test_workers_that_cannot_be_started_are_one_line(monkeypatch, error):
    """The process of the third of four workers fails; the others end."""
    context = processes.worker_context()
    start, others, number = context.Process.start, multiprocessing.active_children(), iter(range(4))

    def fail(process):
        if next(number) == 2:
            raise error
        start(process)

    monkeypatch.setattr(context.Process, "start", fail)
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(
        UserError, match=r"^4 decoding workers could not be started \(.*\); use fewer --workers"
    ):
        list(run_tasks(Refused(), [1, 2, 5, 4], WorkerSettings(num_workers=4)))
    started = [process for process in multiprocessing.active_children() if process not in others]
    for process in started:
        process.join(5)
    assert not any(process.is_alive() for process in started)
    assert not unraisable


def test_more_workers_than_the_machine_can_use_are_not_started():
    assert WorkerSettings(num_workers=9999).count() == worker_limit()
    assert WorkerSettings(num_workers=3).count() == 3


def test_a_data_set_that_cannot_be_pickled_is_one_line():
    work = Refused()
    work.function = lambda: 0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match=r"^the data set cannot be sent to decoding workers \(.*lambda"):
        list(run_tasks(work, [1, 2], WorkerSettings(num_workers=1)))


class Unknown:
    """Work that cannot be unpickled in a worker."""

    def __reduce__(self):
        return divmod, (1, 0)

    def __call__(self, number: int) -> int:
        return number

    def failed(self, number: int, reason: str) -> int:
        raise AssertionError(reason)


@pytest.mark.slow
def test_workers_that_end_while_they_start_are_one_error():
    with pytest.raises(UserError, match="the decoding workers end while they start, with the error above"):
        list(run_tasks(Unknown(), [1, 2], WorkerSettings(num_workers=1)))

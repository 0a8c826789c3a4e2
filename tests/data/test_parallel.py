"""Parallel map over items, in processes that may hang or die."""

import os
import time

import pytest

from mmaction_lite.data.loading.parallel import run_tasks
from mmaction_lite.data.loading.workers import WorkerSettings


class Square:
    """Squares numbers; `hang` and `die` are numbers that do not return."""

    def __init__(self, hang: int | None = None, die: int | None = None):
        self.hang = hang
        self.die = die

    def __call__(self, number: int) -> int | str:
        if number == self.hang:
            time.sleep(1000)
        if number == self.die:
            os._exit(1)
        return number**2

    def failed(self, number: int, reason: str) -> str:
        return f"{number}: {reason}"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_results_come_in_the_order_of_the_items(num_workers):
    assert list(run_tasks(Square(), [5, 3, 8], WorkerSettings(num_workers=num_workers))) == [25, 9, 64]


@pytest.mark.slow
def test_an_item_that_hangs_or_kills_its_process_is_given_up_and_no_other():
    hung = list(run_tasks(Square(hang=3), [1, 2, 3, 4], WorkerSettings(num_workers=2, hang_seconds=1.0)))
    assert [result for result in hung if isinstance(result, int)] == [1, 4, 16]
    assert "3: reading it took more than 1 s" in hung
    dead = list(run_tasks(Square(die=2), [1, 2, 3, 4], WorkerSettings(num_workers=2)))
    assert [result for result in dead if isinstance(result, int)] == [1, 9, 16]
    assert any(str(result).startswith("2: ") and "died" in str(result) for result in dead)

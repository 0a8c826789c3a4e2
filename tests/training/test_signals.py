"""Stop signals."""

import io
import os
import signal
import threading
from threading import Event

import pytest
from rich.console import Console

from mmaction_lite.training.signals import STOP_SIGNALS, stop_signals, until_stopped


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_sets_an_event_and_the_second_has_its_usual_effect(number):
    before, caught, printed = signal.getsignal(number), [], io.StringIO()
    signal.signal(number, lambda *_: caught.append(number))
    try:
        with stop_signals(Console(file=printed)) as stop:
            assert not stop.is_set()
            os.kill(os.getpid(), number)
            assert stop.is_set()
            assert not caught
            os.kill(os.getpid(), number)
            assert caught == [number]
        os.kill(os.getpid(), number)
        assert caught == [number, number]
    finally:
        signal.signal(number, before)
    assert "stopping after this step" in printed.getvalue()


def test_other_threads_get_an_event_without_handlers():
    found = []

    def enter():
        with stop_signals() as stop:
            found.append(stop.is_set())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [False]


def test_batches_end_when_the_event_is_set():
    stop = Event()

    def batches(error):
        yield 1
        if error:
            raise error
        yield 2

    assert list(until_stopped(batches(None), stop)) == [1, 2]
    with pytest.raises(RuntimeError):
        list(until_stopped(batches(RuntimeError("a worker died")), stop))
    stopped = until_stopped(batches(RuntimeError("a worker died of the signal, too")), stop)
    assert next(stopped) == 1
    stop.set()
    assert list(stopped) == []

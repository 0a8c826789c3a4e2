"""Stop signals."""

import io
import os
import pty
import signal
import sys
import threading
import time
from threading import Event

import pytest
from rich.console import Console

from mmaction_lite.training.signals import (
    EXIT_SIGNALS,
    STOP_SIGNALS,
    exit_signals,
    stop_signals,
    until_stopped,
)


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


def test_a_closed_terminal_stops_too_unless_nohup_ignores_it():
    assert signal.SIGHUP in STOP_SIGNALS
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as stop, exit_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", EXIT_SIGNALS)
def test_other_commands_exit_with_the_code_of_a_shell(number, capsys):
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as exit_, exit_signals():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert exit_.value.code == 128 + number
    assert capsys.readouterr().err == f"stopped by {signal.Signals(number).name}\n"


CLOSING = """
import os, signal, sys
from mmaction_lite.training.signals import stop_signals
with stop_signals() as stop:
    print("ready", flush=True)
    while not stop.wait(0.05):
        pass
    print("the terminal is closed", flush=True)
    print("so is standard error", file=sys.stderr, flush=True)
    open(sys.argv[1], "w").close()
"""


def test_output_to_a_closed_terminal_is_discarded(tmp_path):
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored if the tests run under nohup
        os.execv(sys.executable, [sys.executable, "-c", CLOSING, str(tmp_path / "done")])
    try:
        assert os.read(terminal, 100).startswith(b"ready")
    finally:
        os.close(terminal)
    end = time.monotonic() + 60
    while not (tmp_path / "done").exists() and time.monotonic() < end:
        time.sleep(0.02)
    if time.monotonic() >= end:
        os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "done").exists()


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

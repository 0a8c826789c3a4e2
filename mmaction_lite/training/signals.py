"""Stop signals: finish the current step, save, and exit."""

import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")
# Ctrl-C, termination, a closed terminal, and the signal that batch systems send before the end of a job.
STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
]
EXIT_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stop_signals(console: Console | None = None) -> Iterator[threading.Event]:
    """Turn the first stop signal into an event, for `train`. A second signal has its usual effect.

    The handlers of the process are replaced while the block runs. SIGHUP stays ignored if it is ignored
    before, as under `nohup`. Outside of the main thread, where Python allows no handlers, the event is never
    set.

    Args:
        console: where to print that the training stops; None prints nothing.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    terminals = _terminals()

    def handle(*_: object) -> None:
        stop.set()
        restore()
        _drop_closed(terminals)
        if console is not None:
            console.print("stopping after this step (repeat the signal to stop immediately)")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS if not _is_ignored(number)}
    try:
        yield stop
    finally:
        restore()


@contextmanager
def exit_signals() -> Iterator[None]:
    """Exit on SIGTERM and SIGHUP while the block runs: child processes end, and partial files are deleted.

    The exit code is 128 plus the number of the signal, as shells report for a process that a signal ended.
    A signal that is ignored before, as SIGHUP under `nohup`, stays ignored.
    """

    received: list[str] = []
    terminals = _terminals()

    def handle(number: int, *_: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        _drop_closed(terminals)
        received.append(signal.Signals(number).name)
        raise SystemExit(128 + number)

    numbers = [number for number in EXIT_SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for name in received:
            print(f"stopped by {name}", file=sys.stderr)
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _terminals() -> list[int]:
    """Return the file descriptors of standard output and standard error that are terminals."""
    return [number for number in (1, 2) if os.isatty(number)]


def _drop_closed(terminals: list[int]) -> None:
    """Discard later output to terminals that are closed. It would otherwise raise an OSError."""
    for number in terminals:
        if not os.isatty(number):
            with Path(os.devnull).open("w") as nothing:
                os.dup2(nothing.fileno(), number)


def _is_ignored(number: int) -> bool:
    is_hangup = number == getattr(signal, "SIGHUP", None)
    return is_hangup and signal.getsignal(number) is signal.SIG_IGN


def until_stopped(batches: Iterable[T], stop: threading.Event) -> Iterator[T]:
    """Yield the batches until `stop` is set."""
    batches = iter(batches)
    while not stop.is_set():
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, EOFError, OSError):
            if not stop.is_set():
                raise
            return  # the signal reached all processes, and the workers ended first
        yield batch

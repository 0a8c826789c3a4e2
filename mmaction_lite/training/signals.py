"""Stop signals: finish the current step, save, and exit."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console

T = TypeVar("T")
# Ctrl-C, termination, and the signal that batch systems send some time before the end of a job.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


@contextmanager
def stop_signals(console: Console | None = None) -> Iterator[threading.Event]:
    """Turn the first stop signal into an event, for `train`. A second signal has its usual effect.

    The handlers of the process are replaced while the block runs. Outside of the main thread, where Python
    allows no handlers, the event is never set.

    Args:
        console: where to print that the training stops; None prints nothing.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(*_: object) -> None:
        stop.set()
        restore()
        if console is not None:
            console.print("stopping after this step (repeat the signal to stop immediately)")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        restore()


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

"""Start and end of worker processes: no worker outlives the process that started it, however that ends."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from threading import Thread
from types import TracebackType

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
NO_GUARD = 87  # exit code of a worker in which the main module starts workers itself
# Signals that a terminal or a batch system sends to every process. The main process handles them and ends the
# workers.
HANDLED_BY_PARENT = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]


def start_fork_server(modules: list[str]) -> None:
    """Start the fork server, from which worker processes fork, unless it runs or the platform has none.

    Args:
        modules: names of modules that the server imports, once for all workers.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return
    forkserver.set_forkserver_preload(modules)
    # The signals are blocked in the server, and so in new workers until they ignore them. They are blocked in
    # the resource tracker of `multiprocessing`, too, whose start unblocks some of them here.
    with blocked_group_signals():
        # After the death of this process, the tracker deletes its semaphores without a warning.
        sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
        try:
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_BY_PARENT)
            forkserver.ensure_running()
        finally:
            sys.warnoptions.pop()


@contextmanager
def blocked_group_signals() -> Iterator[None]:
    """Block Ctrl-C and the end of the terminal while the block starts processes, which inherit this.

    A process that starts therefore does not see them before it ignores them; see `ignore_group_signals`.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_BY_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker() -> None:
    """Prepare a worker process: it ends with its parent, which handles the signals of the terminal."""
    end_with_parent()
    ignore_group_signals()
    # The thread that sends shared memory to the parent reports with this function that the parent was killed.
    sys.excepthook = _report_unless_cut


def end_with_parent() -> None:
    """End this worker process as soon as the process that started it ends. Call it once, in the worker.

    A thread waits for the end of the parent; it ends the worker without cleanup, even if the worker is
    blocked in a system call. See `end_with_fork_server` for native code that holds the interpreter's lock.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        Thread(target=_exit_after, args=(parent.sentinel,), name="parent watch", daemon=True).start()
        end_with_fork_server()


def end_with_fork_server() -> None:
    """Let the end of the fork server kill this worker process, on Linux. Further calls have no effect.

    The fork server ends with its last client: after this call a worker no longer counts as one, so the server
    ends with the main process.
    """
    alive_fd = getattr(forkserver._forkserver, "_forkserver_alive_fd", None)
    if alive_fd is None or multiprocessing.current_process().name == "MainProcess":
        return
    set_death_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    with suppress(OSError):
        os.close(alive_fd)
    forkserver._forkserver._forkserver_alive_fd = None  # pyright: ignore[reportAttributeAccessIssue]


def set_death_signal(number: int) -> None:
    """Request a signal for the time when the thread that started this process ends; 0 requests none.

    Has an effect on Linux only. Processes that this process starts do not inherit the request.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def ignore_group_signals() -> None:
    """Ignore Ctrl-C and the end of the terminal, which reach every process; the parent ends the workers."""
    for number in HANDLED_BY_PARENT:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_BY_PARENT)


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _report_unless_cut(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception, unless a connection was cut: then the parent has ended, or reports it."""
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def require_main_guard() -> None:
    """End this process if it is a worker that imports a main module without the `__main__` guard.

    Every worker imports the main module first. Without the guard the module calls this function once more, in
    the worker. The parent process recognizes the exit code, see `NO_GUARD_ADVICE`.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(NO_GUARD)


NO_GUARD_ADVICE = (
    "this script starts decoding workers, and every worker imports the script. Put the code that runs into a "
    'block `if __name__ == "__main__":`, or decode without workers (num_workers=0)'
)

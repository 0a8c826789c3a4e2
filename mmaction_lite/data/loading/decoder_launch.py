"""Launch the processes of `Decoders`. Imports little, so that they start before everything else."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import spawn
from os import PathLike
from stat import S_ISREG

from mmaction_lite.data.loading.lifetime import HANDLED_BY_PARENT
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.errors import UserError, describe

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Up to this number of videos or bytes, decoding takes less time than the start of the processes.
MANY_VIDEOS, MANY_BYTES = 8, 4 << 20
PIPE_BYTES = 1 << 20  # largest size of a pipe without privileges
PROGRAM = "from mmaction_lite.data.loading.decoder_process import run; run"

Process = subprocess.Popen[bytes]


def launch(count: int) -> list[Process]:
    """Launch processes, which wait for their views; see `Decoders`. `end` ends those that have no use.

    Raises:
        UserError: a process cannot be started.
    """
    processes: list[Process] = []
    # Linux can kill a process when the thread that started it ends. Only the main thread lives long enough.
    is_main = threading.current_thread() is threading.main_thread()
    program = f"import sys; sys.path[:] = {sys.path!r}; {PROGRAM}({is_main})"
    variables = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        with _blocked_signals():
            for _ in range(count):
                command = [os.fsdecode(spawn.get_executable()), "-c", program]
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables
                )
                processes.append(process)
                _enlarge(process)
    except BaseException as error:
        end(processes)
        if not isinstance(error, OSError | MemoryError):
            raise
        raise UserError(
            f"{count} decoding workers could not be started ({describe(error)}); use fewer --workers, or "
            "raise the limits of memory, processes and open files (ulimit)"
        ) from None
    return processes


def end(processes: Sequence[Process]) -> None:
    """Kill processes and close their pipes."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):  # what is not written yet has no reader
                    stream.close()


def worker_count(paths: Sequence[str | PathLike[str]], workers: WorkerSettings) -> int:
    """Return the number of decoding processes to start for these paths.

    A number that the user gave is kept. Otherwise no process starts for up to `MANY_VIDEOS` files of up to
    `MANY_BYTES` bytes. Everything that is not a file counts as large: folders may hold many clips, and while
    a process waits for a server, others decode.
    """
    if workers.num_workers is not None:
        return workers.count()
    # The executable of a frozen program is no interpreter.
    if len(paths) < 2 or getattr(sys, "frozen", False):
        return 0
    is_large = len(paths) > MANY_VIDEOS or sum(map(_size, paths)) > MANY_BYTES
    return workers.count() if is_large else 0


def _size(path: str | PathLike[str]) -> int:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # an address, a pattern, or a missing file
        return MANY_BYTES // 4
    return status.st_size if S_ISREG(status.st_mode) else MANY_BYTES // 4


def _enlarge(process: Process) -> None:
    """Let a pipe hold a whole result, on Linux. Every further read waits for the interpreter's lock."""
    if fcntl is not None and hasattr(fcntl, "F_SETPIPE_SZ") and process.stdout is not None:
        with suppress(OSError):  # the user may not have so large pipes, or so many
            fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Start processes that do not see Ctrl-C before they ignore it; see `lifetime.ignore_group_signals`."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_BY_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Launch the processes of `Decoders`. Imports little, so that they start before everything else."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import spawn, util
from os import PathLike
from stat import S_ISREG

from mmaction_lite.data.loading.lifetime import blocked_group_signals
from mmaction_lite.data.loading.worker_faults import not_started
from mmaction_lite.data.loading.worker_settings import WorkerSettings

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Up to this number of videos or bytes, decoding takes less time than the start of the processes.
MANY_VIDEOS, MANY_BYTES = 8, 4 << 20
PIPE_BYTES = 1 << 20  # largest size of a pipe without privileges
PROGRAM = "from mmaction_lite.data.loading.decoder_process import run; run"

Process = subprocess.Popen[bytes]


def launch(count: int, environment: Mapping[str, str] | None = None) -> list[Process]:
    """Launch processes, which wait for their views; see `Decoders`. `end` ends those that have no use.

    Args:
        count: number of processes.
        environment: further environment variables of the processes.

    Raises:
        UserError: a process cannot be started.
    """
    processes: list[Process] = []
    # Linux can kill a process when the thread that started it ends. Only the main thread lives long enough.
    is_main = threading.current_thread() is threading.main_thread()
    program = f"import sys; sys.path[:] = {sys.path!r}; {PROGRAM}({is_main})"
    variables = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} | dict(environment or {})
    flags = util._args_from_interpreter_flags()  # pyright: ignore[reportAttributeAccessIssue]
    command = [os.fsdecode(spawn.get_executable()), *flags, "-c", program]
    try:
        with blocked_group_signals():
            for _ in range(count):
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables
                )
                processes.append(process)
                _enlarge(process)
    except BaseException as error:
        end(processes)
        if not isinstance(error, OSError | MemoryError):
            raise
        raise not_started(count, error) from None
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


def worker_count(
    paths: Sequence[str | PathLike[str]], workers: WorkerSettings, *, may_hold_many: bool = False
) -> int:
    """Return the number of decoding processes to start for these paths.

    A number that the user gave is kept. Otherwise no process starts for up to `MANY_VIDEOS` files of up to
    `MANY_BYTES` bytes. Everything that is not a file counts as large: folders may hold many clips, and while
    a process waits for a server, others decode. A frozen program, whose executable is no interpreter, starts
    no process.

    Args:
        paths: paths or addresses of videos.
        workers: number of workers that the user chose.
        may_hold_many: whether paths are folders or patterns, whose videos are not known yet.
    """
    if getattr(sys, "frozen", False) or not spawn.get_executable():
        return 0
    if workers.num_workers is not None:
        return workers.count()
    if may_hold_many or len(paths) > MANY_VIDEOS:
        return workers.count()
    return workers.count() if len(paths) > 1 and sum(map(_size, paths)) > MANY_BYTES else 0


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

"""Number of decoding worker processes. Imports no PyTorch, which takes longer than their start."""

from dataclasses import dataclass

from mmaction_lite.device import available_cores, default_workers
from mmaction_lite.settings import NonNegativeInt, PositiveFloat, check_fields

MAX_WORKERS_PER_CORE, MIN_WORKER_LIMIT = 4, 32


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Decoding worker processes.

    Args:
        num_workers: number of processes; 0 decodes in the calling process, None chooses one per core (see
            `default_workers`).
        hang_seconds: time limit for reading one video, in seconds. A worker that exceeds it is killed, and
            the video counts as unreadable.
    """

    num_workers: NonNegativeInt | None = None
    hang_seconds: PositiveFloat = 120.0

    def __post_init__(self):
        check_fields(self)

    def count(self, num_processes: int = 1) -> int:
        """Return the number of workers for each of `num_processes` training processes on this machine.

        Larger numbers than `worker_limit` are reduced to it.
        """
        if self.num_workers is None:
            return default_workers(num_processes)
        return min(self.num_workers, worker_limit())


def worker_limit() -> int:
    """Return the largest number of workers of one loader. More of them need memory and decode no faster."""
    return max(MIN_WORKER_LIMIT, MAX_WORKERS_PER_CORE * available_cores())


IN_PROCESS = WorkerSettings(num_workers=0)
ONE_PER_CORE = WorkerSettings()

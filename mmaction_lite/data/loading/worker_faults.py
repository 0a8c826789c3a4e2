"""Limits and messages for decoding workers that fail, in training and in prediction. Imports no PyTorch."""

from mmaction_lite.data.loading.lifetime import NO_GUARD, NO_GUARD_ADVICE
from mmaction_lite.errors import UserError, describe

MAX_CRASHES = 2  # worker deaths while reading the same video
MAX_RESTARTS = 3  # without a result in between
# Workers run at a lower priority than the process that feeds the device. With as many busy workers as cores,
# that process otherwise waits for a core at every wake-up, and steps of many short kernels take 40 % longer.
NICENESS = 10
CRASHED = f"{MAX_CRASHES} decoding workers died while reading it"


def hung(seconds: float) -> str:
    """Return the reason why a video is given up after its time limit."""
    return f"reading it took more than {seconds:g} s"


def check_start(code: int) -> None:
    """Check the exit code of a worker that ended before it read anything.

    Raises:
        UserError: the worker ended because of an error of the user's code.
    """
    if code == NO_GUARD:
        raise UserError(NO_GUARD_ADVICE)
    if code == 1:
        raise UserError(
            "the decoding workers end while they start, with the error above. Correct it, or decode "
            "without workers (num_workers=0)"
        )


def check_restarts(restarts: int, trouble: str) -> None:
    """Check the number of restarts without a result in between.

    Args:
        restarts: their number.
        trouble: the last failure.

    Raises:
        UserError: there are more than `MAX_RESTARTS`.
    """
    if restarts > MAX_RESTARTS:
        raise UserError(
            f"decoding workers failed {restarts} times without a result in between; last failure: "
            f"{trouble}. Check the available memory, or use fewer --workers"
        )


def not_started(count: int, error: BaseException) -> UserError:
    """Return the error for `count` workers of which the system cannot start one."""
    return UserError(
        f"{count} decoding workers could not be started ({describe(error)}); use fewer --workers, or "
        "raise the limits of memory, processes and open files (ulimit)"
    )


def not_picklable(name: str, error: BaseException) -> UserError:
    """Return the error for an object of the user that cannot be pickled."""
    return UserError(
        f"{name} cannot be sent to decoding workers ({describe(error)}); define all classes and functions at "
        "the top level of a module, or decode without workers (num_workers=0)"
    )

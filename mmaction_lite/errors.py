"""What a user can mend: one line each, shown without a traceback, exit code 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a file, an argument, a recipe or a checkpoint.

    The message is one line that names the thing, its value, what was expected and what to do.
    """


class VideoError(UserError):
    """One video that cannot be read; the message begins with its path."""


class MissingSplitError(UserError):
    """A data set that has splits lacks this one."""


class Interrupted(UserError):
    """A signal asked a run to stop; what it had done is saved, and the message says how to go on."""


def nearest(name: str, valid: Iterable[str], most: int = 3) -> str:
    """The valid names closest to `name`, for the end of an error message."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=most, cutoff=0.25)
    if close:
        return "nearest: " + ", ".join(close)
    return "valid: " + ", ".join(valid[:20]) + (", …" if len(valid) > 20 else "")

"""Errors that a user can fix; the command line shows them as one line and exits with code 2."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Invalid input: a file, an argument, a recipe or a checkpoint.

    The message is one line that names the object, its value, what was expected and how to fix it.
    """


class VideoError(UserError):
    """A video cannot be read; the message starts with its path."""


class MissingSplitError(UserError):
    """A data set with splits has no split of this name."""


class Interrupted(UserError):
    """A signal stopped a run. Its state is saved, and the message says how to resume."""


def nearest(name: str, valid: Iterable[str], most: int = 3) -> str:
    """Return the valid names closest to `name`, for the end of an error message.

    Args:
        name: a name that is not valid.
        valid: the valid names.
        most: number of names at most.
    """
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=most, cutoff=0.25)
    if close:
        return "nearest: " + ", ".join(close)
    return "valid: " + ", ".join(valid[:20]) + (", …" if len(valid) > 20 else "")

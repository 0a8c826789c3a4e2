"""Errors that a user can fix; the command line shows them as one line and exits with code 2."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from unicodedata import category


class UserError(Exception):
    """Invalid input: a file, an argument, a recipe or a checkpoint.

    The message is one line that names the object, its value, what was expected and how to fix it.
    """


class VideoError(UserError):
    """A video cannot be read; the message starts with its path."""


class MissingSplitError(UserError):
    """A data set with splits has no split of this name."""


class Interrupted(UserError):
    """A signal stopped a run. Its state is saved, and the message describes how to resume."""


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


@contextmanager
def reading(
    path: str | PathLike[str],
    error: type[UserError] = UserError,
    advice: str = "the file may be damaged; copy or download it again",
) -> Iterator[None]:
    """Convert every exception that a file causes while it is read to one error that names the file.

    Damaged and hostile files make parsers raise any type of exception. A file is therefore read inside this
    context, rather than inside a list of the exceptions seen so far.

    Args:
        path: the file, for the message.
        error: class of the error to raise.
        advice: end of the message: how to fix the problem.

    Raises:
        UserError: the body raised an exception. A `UserError` passes unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as cause:
        raise error(f"{path}: cannot be read ({describe(cause)}); {advice}") from None


def describe(error: BaseException, most: int = 200) -> str:
    """Return type and text of an exception, printable, on one line of about `most` characters at most."""
    text = " ".join(str(error).split())
    name = "" if isinstance(error, OSError) and error.strerror else type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return printable(": ".join(part for part in (name, text) if part), most)


def printable(text: str, most: int = 1000) -> str:
    """Return text from a file with escape sequences in place of characters that a terminal may interpret.

    These are control characters, line breaks, marks of the writing direction, and bytes of a file name that
    are not UTF-8 (lone surrogates). Longer texts end with an ellipsis after `most` characters.
    """
    shown = "".join(c if c.isprintable() or category(c) == "Zs" else _escape(c) for c in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")

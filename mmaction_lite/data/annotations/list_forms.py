"""The form of a list file: which numbers of a line belong to the path, count frames, or are labels.

`folder total_frames label`, `path label label` and a path with spaces that ends in a number look alike. The
form is therefore determined from all lines and from the files on disk, not from one line.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mmaction_lite.data.annotations.paths import exists, find_path, is_frame_pattern
from mmaction_lite.errors import UserError, printable

PROBED_LINES = 2000
MOST_DIGITS = 9
FEWEST_FRAMES = 8  # smaller numbers after a video are labels
FORMS = ("path label", "folder total_frames label", "folder offset total_frames label")
_NUMBER = re.compile(r"[0-9]+")


class Line(NamedTuple):
    """A line of a list.

    Args:
        number: line number in the file.
        path: the path, if quotes or the suffix of a video determine its end; otherwise the text before the
            last word, which may be followed by frame numbers.
        rest: the text after `path`.
        is_exact: whether `path` is exactly the path.
    """

    number: int
    path: str
    rest: str
    is_exact: bool


class Clip(NamedTuple):
    """The meaning of a line: path, labels, and the range of frames if the line gives one."""

    path: str
    labels: str | list[str]
    frames: tuple[int, int] | None = None


@dataclass
class Forms:
    """How the lines of a list are read.

    Args:
        frame_numbers: number of frame numbers after a path that may contain spaces: 0, 1 (total) or 2 (offset
            and total).
        exact_frame_numbers: the same after a path whose end is known.
        notes: how ambiguous lines are read.
    """

    frame_numbers: int = 0
    exact_frame_numbers: int = 0
    notes: list[str] = field(default_factory=list)

    def clip(self, line: Line, file: Path) -> Clip:
        """Return the meaning of a line.

        Raises:
            UserError: the line lacks a frame number of the form, or has more numbers.
        """
        if not line.is_exact:
            return self._clip_of_loose(line, file)
        words = line.rest.split()
        numbers = _leading_numbers(words)
        if numbers and self.exact_frame_numbers:
            count = self.exact_frame_numbers
            if numbers < count:
                raise _lacks_count(line, count, file)
            if numbers > count and _NUMBER.fullmatch(words[-1]) and len(words) == numbers + 1:
                raise UserError(
                    f"{file}:{line.number}: has {len(words)} numbers, and other lines are {FORMS[count]!r}; "
                    "use one form. For several classes per folder of frames, use a table"
                )
            return Clip(line.path, line.rest.split(maxsplit=count)[count], _frames(words[:count], line, file))
        if numbers and len(words) == numbers + 1 and _NUMBER.fullmatch(words[-1]):
            return Clip(line.path, words)
        return Clip(line.path, line.rest)

    def _clip_of_loose(self, line: Line, file: Path) -> Clip:
        count = self.frame_numbers
        if not count:
            return Clip(line.path, line.rest)
        words = line.path.rsplit(maxsplit=count)
        if len(words) <= count or not all(map(_NUMBER.fullmatch, words[1:])):
            raise _lacks_count(line, count, file)
        return Clip(words[0], line.rest, _frames(words[1:], line, file))


def find_forms(lines: Sequence[Line], file: Path, num_classes: int | None) -> Forms:
    """Determine how the lines of a list are read.

    Args:
        lines: all lines.
        file: the list file.
        num_classes: number of classes, if it is known.

    Raises:
        UserError: two lines contradict each other.
    """
    forms = Forms()
    loose = [line for line in lines if not line.is_exact]
    ambiguous = [line for line in loose if _NUMBER.fullmatch(line.path.rsplit(maxsplit=1)[-1])]
    if ambiguous:
        _find_loose_form(forms, loose, ambiguous, file)
    exact = [line for line in lines if line.is_exact]
    ambiguous = [line for line in exact if line.rest[0] <= "9" and _leading_numbers(line.rest.split())]
    if ambiguous:
        _find_exact_form(forms, exact, ambiguous, file, num_classes)
    return forms


def _find_loose_form(forms: Forms, loose: Sequence[Line], ambiguous: Sequence[Line], file: Path) -> None:
    """Set the form of paths that may contain spaces."""
    first_of: dict[int, Line] = {}
    found = 0
    for line in _probe(ambiguous):
        for count in range(_trailing_numbers(line.path) + 1):
            # The longest path that exists is the path.
            if is_there(_path_of_loose(line, count), file.parent):
                first_of.setdefault(count, line)
                found += 1
                break
    if len(first_of) > 1:
        (one, first), (other, second), *_ = sorted(first_of.items())
        raise UserError(
            f"{file}:{second.number}: is {FORMS[other]!r}, and line {first.number} is {FORMS[one]!r}; use "
            "one form, or put paths that contain spaces in double quotes"
        )
    if first_of:
        (forms.frame_numbers,) = first_of
    elif len(ambiguous) == len(loose):
        forms.frame_numbers = min(_trailing_numbers(line.path) for line in ambiguous)
    _add_note(forms, forms.frame_numbers, ambiguous, found, file)


def _find_exact_form(
    forms: Forms, exact: Sequence[Line], ambiguous: Sequence[Line], file: Path, num_classes: int | None
) -> None:
    """Set the form of paths whose end is known."""
    probed = _probe(ambiguous)
    are_folders = [_is_folder(line.path, file.parent) for line in probed]
    counts = {_leading_numbers(line.rest.split()) for line in ambiguous}
    found = sum(is_folder is not None for is_folder in are_folders)
    if counts == {1} and len(ambiguous) == len(exact) and _count_frames(ambiguous, num_classes):
        forms.exact_frame_numbers = 1
    elif True in are_folders and False in are_folders:
        folder, video = (probed[are_folders.index(kind)] for kind in (True, False))
        raise UserError(
            f"{file}:{folder.number}: is a folder with several numbers, and line {video.number} is a file "
            "with several numbers; it is ambiguous whether they count frames. Use a table with the columns "
            "path, labels and end_frame"
        )
    elif True in are_folders or (not found and not any(_is_video(line) for line in ambiguous)):
        if max(counts) > 2:
            line = next(line for line in ambiguous if _leading_numbers(line.rest.split()) > 2)
            raise UserError(
                f"{file}:{line.number}: has more than two numbers before the label, and the path is a "
                f"folder; expected {FORMS[1]!r} or {FORMS[2]!r}. For several classes per folder of frames, "
                "use a table"
            )
        forms.exact_frame_numbers = min(counts)
    _add_note(forms, forms.exact_frame_numbers, ambiguous, found, file, otherwise="path label label")


def _count_frames(lines: Sequence[Line], num_classes: int | None) -> bool:
    """Whether the first of two numbers after each video counts frames: no label is as large."""
    pairs = [line.rest.split() for line in lines]
    if not all(len(pair) == 2 and _NUMBER.fullmatch(pair[1]) for pair in pairs):
        return False
    firsts, seconds = ([_limited(number) for number in numbers] for numbers in zip(*pairs, strict=True))
    if num_classes is not None:
        return max(firsts) >= num_classes > max(seconds)
    return min(firsts) >= max(FEWEST_FRAMES, max(seconds) + 1)


def _add_note(
    forms: Forms, count: int, lines: Sequence[Line], found: int, file: Path, *, otherwise: str = FORMS[0]
) -> None:
    form = FORMS[count] if count else otherwise
    evidence = "files of this form exist" if found else "none of the files exists, so this is uncertain"
    forms.notes.append(
        f"{file}: {len(lines)} lines with several numbers are read as {form!r} ({evidence}); the first is "
        f"line {lines[0].number}"
    )


def _probe(lines: Sequence[Line]) -> Sequence[Line]:
    """Return at most about twice `PROBED_LINES` lines, at equal distances."""
    return lines[:: max(1, len(lines) // PROBED_LINES)]


def is_there(path: str, root: Path) -> bool:
    """Whether a file or folder exists under a form of this path; see `find_path`."""
    return "://" in path or exists(find_path(path, root), root)


def _is_folder(path: str, root: Path) -> bool | None:
    """Whether a path is a folder; None if it does not exist."""
    if not is_there(path, root):
        return None
    found = root / find_path(path, root)
    return found.is_dir() or is_frame_pattern(str(found))


def _is_video(line: Line) -> bool:
    return not line.path.endswith("/") and "." in line.path.rpartition("/")[2]


def _path_of_loose(line: Line, count: int) -> str:
    return line.path.rsplit(maxsplit=count)[0] if count else line.path


def _trailing_numbers(path: str) -> int:
    """Return how many numbers follow the first word of a path, at most 2."""
    return _count_numbers(reversed(path.split()[1:][-2:]))


def _leading_numbers(words: Sequence[str]) -> int:
    """Return how many numbers come before the last word, without a gap."""
    return _count_numbers(words[:-1])


def _count_numbers(words: Iterable[str]) -> int:
    count = 0
    for word in words:
        if not _NUMBER.fullmatch(word):
            break
        count += 1
    return count


def _limited(number: str) -> int:
    return int(number) if len(number) <= MOST_DIGITS else 10**MOST_DIGITS


def _frames(numbers: Sequence[str], line: Line, file: Path) -> tuple[int, int]:
    """Return the first frame and the end of the range that frame numbers give."""
    if any(len(number) > MOST_DIGITS for number in numbers):
        longest = max(numbers, key=len)
        raise UserError(
            f"{file}:{line.number}: frame number {printable(longest, 20)} has {len(longest)} digits; "
            f"expected at most {MOST_DIGITS}"
        )
    first = int(numbers[0]) if len(numbers) == 2 else 0
    return first, first + int(numbers[-1])


def _lacks_count(line: Line, count: int, file: Path) -> UserError:
    text = printable(f"{line.path} {line.rest}", 200)
    return UserError(f"{file}:{line.number}: {text!r} lacks a frame count; expected {FORMS[count]!r}")

"""Class names, and the class index of each label of an annotation file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmaction_lite.errors import UserError, nearest

MOST_CLASSES = 100_000


def read_text(file: Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        UserError: it has another encoding.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not a UTF-8 text file ({error.reason})") from None


def read_classes(file: Path) -> tuple[str, ...]:
    """Read class names in index order, one per line."""
    return tuple(name.strip() for name in read_text(file).splitlines() if name.strip())


def class_prefix(column: str, columns: Sequence[str]) -> str:
    """Return the prefix of the class names of a label column: `verb: ` if a table has several, else empty."""
    return f"{column}: " if len(columns) > 1 else ""


def resolve_labels(
    file: Path,
    columns: Sequence[str],
    labels: Sequence[str],
    lines: Sequence[int],
    *,
    classes: Sequence[str] | None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Convert the labels of an annotation file to class indices.

    The classes of several label columns form one list, column after column, with the column before each name:
    `verb: open`, `noun: door`.

    Args:
        file: the annotation file. A file `classes.txt` beside it names the classes.
        columns: label columns.
        labels: class names or 0-based numbers; with several columns, one label per column of row after row.
        lines: line of each label, for error messages.
        classes: known class names; None infers them.

    Returns:
        class names, and the class index of each label, int64 (len(labels),).

    Raises:
        UserError: a label is out of range, or a class is unknown.
    """
    listed_file = file.parent / "classes.txt"
    listed = read_classes(listed_file) if listed_file.is_file() else None
    names: list[str] = []
    indices = np.empty(len(labels), np.int64)
    for number, column in enumerate(columns):
        of_column = slice(number, None, len(columns))
        prefix = class_prefix(column, columns)
        own, found = _resolve_column(
            file,
            labels[of_column],
            lines[of_column],
            listed=_without_prefix(listed, prefix),
            classes=_without_prefix(classes, prefix),
        )
        indices[of_column] = found + len(names)
        names += [prefix + name for name in own]
    return tuple(names), indices


def _without_prefix(names: Sequence[str] | None, prefix: str) -> tuple[str, ...] | None:
    """Return the names that begin with the prefix, without it."""
    if names is None:
        return None
    return tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def _resolve_column(
    file: Path,
    labels: Sequence[str],
    lines: Sequence[int],
    *,
    listed: Sequence[str] | None,
    classes: Sequence[str] | None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the class names of one column and the index of each of its labels, int64 (len(labels),).

    `listed` are the names in `classes.txt`, which numbers refer to; None without such a file.
    """
    if all(label.isdecimal() for label in labels):
        values = [int(label) for label in labels]
        numbered = classes if listed is None else listed
        _check_range(file, values, lines, None if numbered is None else len(numbered))
        numbered = tuple(map(str, range(max(values) + 1))) if numbered is None else tuple(numbered)
        if classes is None:
            return numbered, np.array(values, np.int64)
        # Numbers refer to classes.txt, indices to the classes of the training split or of the weights.
        labels = [numbered[value] for value in values]
    elif listed is not None and classes is None:
        classes = listed
    names = tuple(sorted(set(labels)) if classes is None else classes)
    index = {name: i for i, name in enumerate(names)}
    for label, line in zip(labels, lines, strict=True):
        if label not in index:
            raise UserError(
                f"{file}:{line}: class {label!r} is not among the {len(names)} known classes; "
                + nearest(label, names)
            )
    return names, np.array([index[label] for label in labels], np.int64)


def _check_range(file: Path, values: Sequence[int], lines: Sequence[int], num_classes: int | None) -> None:
    """Check that numbers are below the number of classes; None allows `MOST_CLASSES`."""
    top, line = max((value, -number) for value, number in zip(values, lines, strict=True))
    count = MOST_CLASSES if num_classes is None else num_classes
    if top == count and min(values) > 0:
        raise UserError(
            f"{file}:{-line}: labels run from {min(values)} to {top} and there are {count} classes: they "
            f"seem to count from 1; number them 0 to {count - 1}, or write class names"
        )
    if top >= count:
        at_most = "at most " if num_classes is None else ""
        raise UserError(
            f"{file}:{-line}: label {top} is out of range: there are {at_most}{count} classes, numbered 0 to "
            f"{count - 1}"
        )

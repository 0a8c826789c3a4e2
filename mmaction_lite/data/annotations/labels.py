"""The class index of each label of an annotation file."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmaction_lite.data.annotations.classes import (
    CLASSES_FILE,
    ClassIndex,
    check_class_name,
    class_name,
    class_notes,
    class_prefix,
    read_classes,
)
from mmaction_lite.errors import UserError, printable

MOST_CLASSES = 100_000
_NUMBER = re.compile(r"[0-9]+")
# Texts such as -1, 1.0, 1e3 and 1_000, and digits of other scripts.
_ALMOST_NUMBER = re.compile(r"[+\-\u2212]?(\d[\d_]*[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Classes and labels of an annotation file.

    Args:
        classes: class names, in index order.
        indices: class index of each label, int64 (M,).
        notes: see `Samples.notes`.
    """

    classes: tuple[str, ...]
    indices: np.ndarray
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Column:
    """Labels of one label column.

    Args:
        file: the annotation file.
        unique: different labels, in the form of `class_name`.
        place_of: returns file and line of the first occurrence of a label.
    """

    file: Path
    unique: Sequence[str]
    place_of: Callable[[str], str]


def is_numeric(name: str) -> bool:
    """Whether a class name may be mistaken for a number, as in `3`, `01`, `-1` or `1.5`."""
    return bool(_ALMOST_NUMBER.fullmatch(name)) or name.isnumeric()


def resolve_labels(
    file: Path,
    columns: Sequence[str],
    labels: Sequence[str],
    lines: Sequence[int] | np.ndarray,
    *,
    classes: Sequence[str] | None,
    are_names: bool = False,
) -> Labels:
    """Convert the labels of an annotation file to class indices.

    The classes of several label columns form one list, column after column, with the column before each name:
    `verb: open`, `noun: door`.

    If all labels of a column are numbers, they are class indices, unless the known classes have numbers as
    names, as folders `0` to `11` do: then they are names.

    Args:
        file: the annotation file. A file `classes.txt` beside it names the classes.
        columns: label columns.
        labels: class names or 0-based numbers; with several columns, one label per column of row after row.
        lines: line of each label, for error messages.
        classes: known class names; None infers them.
        are_names: whether labels are names even if all are numbers.

    Raises:
        UserError: a label is out of range, or a class is unknown, or it is ambiguous which class a label is.
    """
    listed_file = file.parent / CLASSES_FILE
    listed = read_classes(listed_file) if listed_file.exists() else None
    prefixes = [class_prefix(column, columns) for column in columns]
    if strangers := [name for name in listed or () if not name.startswith(tuple(prefixes))]:
        raise UserError(
            f"{listed_file}: class '{printable(strangers[0], 100)}' belongs to none of the columns "
            f"{' and '.join(columns)} of {file.name}; expected names that begin with "
            f"{' or '.join(repr(prefix) for prefix in prefixes)}"
        )
    notes = [] if listed is None else list(class_notes(listed_file, listed))
    names: list[str] = []
    indices = np.empty(len(labels), np.int64)
    for number, (column, prefix) in enumerate(zip(columns, prefixes, strict=True)):
        of_column = slice(number, None, len(columns))
        raw = labels[of_column]
        # Kinetics has 240,000 labels and 400 classes: check and convert each class once.
        form = {label: class_name(label) for label in set(raw)}

        def place_of(name: str, raw=raw, form=form, lines=lines[of_column]) -> str:
            return f"{file}:{lines[next(i for i, label in enumerate(raw) if form[label] == name)]}"

        found = _resolve_column(
            _Column(file, sorted(set(form.values())), place_of),
            listed=_without_prefix(listed, prefix),
            classes=_without_prefix(classes, prefix),
            are_names=are_names,
        )
        index = {label: found.indices[name] + len(names) for label, name in form.items()}
        indices[of_column] = np.fromiter((index[label] for label in raw), np.int64, len(raw))
        names += [prefix + name for name in found.classes]
        of = f" of the column {column}" if prefix else ""
        notes += [f"{file}: the labels{of} {note}" for note in found.notes]
    return Labels(classes=tuple(names), indices=indices, notes=tuple(notes))


def _without_prefix(names: Sequence[str] | None, prefix: str) -> tuple[str, ...] | None:
    """Return the names that begin with the prefix, without it."""
    if names is None:
        return None
    return tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix))


@dataclass(frozen=True)
class _Resolved:
    """Result for one column: class names, the class index of each label, and endings of notes."""

    classes: tuple[str, ...]
    indices: dict[str, int]
    notes: tuple[str, ...] = ()


def _resolve_column(
    column: _Column, *, listed: Sequence[str] | None, classes: Sequence[str] | None, are_names: bool
) -> _Resolved:
    """Return the class names of one column and the index of each of its labels.

    `listed` are the names in `classes.txt`, which numbers refer to; None without such a file.
    """
    known_names = listed if classes is None else classes
    known = None if known_names is None else ClassIndex(known_names)
    numbering = known if listed is None else ClassIndex(listed)
    numbers = [] if are_names else [label for label in column.unique if _NUMBER.fullmatch(label)]
    if numbers and len(numbers) == len(column.unique) and not _are_names(column, numbering):
        values = {label: _value(label) for label in numbers}
        _check_range(column, values, None if numbering is None else len(numbering))
        if known is None or numbering is None:
            names = tuple(map(str, range(max(values.values()) + 1)))
            return _Resolved(names, values, tuple(_number_notes(values)))
        if numbering.names == known.names:
            return _Resolved(known.names, values)
        # Numbers refer to classes.txt, indices to the classes of the training split or of the weights.
        wanted = {label: class_name(numbering.names[value]) for label, value in values.items()}
        return _Resolved(known.names, _find_all(column, wanted, known))
    for label in column.unique:
        check_class_name(label, lambda label=label: column.place_of(label))
    notes = () if are_names else _check_words(column, numbers, numbering)
    wanted = {label: label for label in column.unique}
    if known is None or numbering is None:
        known = ClassIndex(column.unique)
    elif numbers:
        wanted = _names_by_value(column.unique, numbering)
    return _Resolved(known.names, _find_all(column, wanted, known), notes)


def _find_all(column: _Column, wanted: dict[str, str], known: ClassIndex) -> dict[str, int]:
    """Return the class index of each label, given its class name."""
    return {
        label: known.find(name, lambda label=label: column.place_of(label)) for label, name in wanted.items()
    }


def _are_names(column: _Column, numbering: ClassIndex | None) -> bool:
    """Whether labels that are all numbers are names of classes instead of indices.

    Raises:
        UserError: both are possible, and the classes differ.
    """
    if numbering is None:
        return any(label[0] == "0" and len(label) > 1 for label in column.unique)
    names = [class_name(name) for name in numbering.names]
    numeric = [name for name in names if _NUMBER.fullmatch(name)]
    if not numeric or all(name == str(number) for number, name in enumerate(names)):
        return False
    found = _names_by_value(column.unique, numbering)
    is_name = [found[label] in numbering for label in column.unique]
    if len(numeric) == len(names):
        return any(is_name) or any(_value(label) >= len(names) for label in column.unique)
    if not all(is_name):
        return False
    for label in column.unique:
        value = _value(label)
        if value < len(names) and names[value] != found[label]:
            raise UserError(
                f"{column.place_of(label)}: label {label} may be the class of this name or class number "
                f"{value}, '{printable(names[value], 60)}'; write class names in a table with a column class"
            )
    return True


def _names_by_value(labels: Sequence[str], numbering: ClassIndex) -> dict[str, str]:
    """Return the class name that each label stands for.

    This is the name of the same text or, for a number, the only name of the same value (01 and 1). Without
    such a name, it is the label.
    """
    equal: dict[str, list[str]] = {}
    for name in map(class_name, numbering.names):
        if _NUMBER.fullmatch(name):
            equal.setdefault(name.lstrip("0"), []).append(name)
    names = {}
    for label in labels:
        found = equal.get(label.lstrip("0"), []) if _NUMBER.fullmatch(label) else []
        names[label] = found[0] if label not in numbering and len(found) == 1 else label
    return names


def _check_words(column: _Column, numbers: Sequence[str], numbering: ClassIndex | None) -> tuple[str, ...]:
    """Check labels that are not all numbers, and return endings of notes on them.

    Raises:
        UserError: a label resembles a number but is not one, and no known class has this name.
    """
    for label in column.unique:
        if is_numeric(label) and label not in numbers and (numbering is None or label not in numbering):
            raise UserError(
                f"{column.place_of(label)}: label '{printable(label, 60)}' is neither a class name nor a "
                "number from 0; correct it, or write names that look like numbers in a table with a column "
                "class"
            )
    if not numbers or len(numbers) == len(column.unique):
        return ()
    unique = len(column.unique)
    return (f"are class names; {len(numbers)} of these {unique} names are numbers, such as {numbers[0]}",)


def _value(label: str) -> int:
    """Return the value of a number; 10 ** 20 for one of more than 20 digits, which is out of range."""
    return int(label) if len(label) <= 20 else 10**20


def _number_notes(values: dict[str, int]) -> Iterator[str]:
    least, most = min(values.values()), max(values.values())
    if least > 0:
        yield (
            f"run from {least} to {most}, and there are {most + 1} classes, of which those below {least} "
            f"have no clips; if the labels count from 1, number them 0 to {most - 1}"
        )


def _check_range(column: _Column, values: dict[str, int], num_classes: int | None) -> None:
    """Check that numbers are below the number of classes; None allows `MOST_CLASSES`."""
    label = max(values, key=lambda label: values[label])
    top, least = values[label], min(values.values())
    count = MOST_CLASSES if num_classes is None else num_classes
    if num_classes is not None and top == count and least > 0:
        raise UserError(
            f"{column.place_of(label)}: labels run from {least} to {top} and there are {count} classes: they "
            f"seem to count from 1; number them 0 to {count - 1}, or write class names"
        )
    if top >= count:
        at_most = "at most " if num_classes is None else ""
        raise UserError(
            f"{column.place_of(label)}: label {printable(label, 30)} is out of range: there are "
            f"{at_most}{count} classes, numbered 0 to {count - 1}"
        )

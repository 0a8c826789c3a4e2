"""Tables of the results of every class and of the most frequent mistakes, for JSON, CSV and the report."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmaction_lite.errors import UserError
from mmaction_lite.files import check_replaceable, has_marker
from mmaction_lite.tasks.metrics import wilson_interval
from mmaction_lite.tasks.task import ClassResults

Row = dict[str, Any]
HEADER = b"number,name,videos,correct,accuracy,low,high,"  # in the first line of a table of classes


def class_names_of(group: ClassResults, classes: Sequence[str]) -> list[str]:
    """Return the names of the classes of one group, without the prefix of the group."""
    own = classes[group.first : group.first + len(group.videos)]
    return [name.removeprefix(f"{group.title}: ") for name in own]


def class_table(group: ClassResults, classes: Sequence[str]) -> list[Row]:
    """Return the results of every class of one group.

    Args:
        group: results of the classes.
        classes: names of all classes of the task.

    Returns:
        rows with `group` (only in tasks with several groups), `number`, `name`, `videos`, `correct`,
        `accuracy` (the recall of the class), `low` and `high` (the 95 % interval of the accuracy),
        `precision`, `f1` and, in multi-label tasks, `average_precision`. Values that are not defined, such
        as the accuracy of a class without videos, are None.
    """
    low, high = wilson_interval(group.correct, group.videos)
    columns: dict[str, Iterable[Any]] = {
        "number": range(len(group.videos)),
        "name": class_names_of(group, classes),
        "videos": group.videos.tolist(),
        "correct": group.correct.tolist(),
        "accuracy": map(_defined, group.recall.tolist()),
        "low": low.tolist(),
        "high": high.tolist(),
        "precision": map(_defined, group.precision.tolist()),
        "f1": map(_defined, group.f1.tolist()),
    }
    if group.average_precision is not None:
        columns["average_precision"] = map(_defined, group.average_precision.tolist())
    title = {"group": group.title} if group.title else {}
    rows = [title | dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for row in rows:
        if not row["videos"]:
            row["low"] = row["high"] = None
    return rows


def mistake_table(group: ClassResults, classes: Sequence[str], most: int | None = None) -> list[Row]:
    """Return the pairs of classes that were confused, the most frequent first.

    Args:
        group: results of the classes.
        classes: names of all classes of the task.
        most: length of the list at most; None: all.

    Returns:
        rows with `group` (only in tasks with several groups), `true`, `predicted` and `videos`. Empty where a
        video may have several classes.
    """
    if group.mistakes is None:
        return []
    names = class_names_of(group, classes)
    title = {"group": group.title} if group.title else {}
    return [
        title | {"true": names[true], "predicted": names[predicted], "videos": videos}
        for true, predicted, videos in group.mistakes[:most].tolist()
    ]


def check_table_out(path: Path) -> None:
    """Check that a table of classes can be written to `path`.

    Raises:
        UserError: the name does not end in .csv, the folder is not writable, or another file is there.
    """
    if path.suffix.lower() != ".csv":
        raise UserError(f"{path}: a table of classes is a CSV file; give a name that ends in .csv")
    check_replaceable(path, "a table of classes of mmaction-lite", has_marker(HEADER))


def to_csv(rows: Iterable[Row], columns: Sequence[str] | None = None) -> bytes:
    """Return rows as a CSV table with a header, UTF-8. Undefined values are empty cells.

    Names with commas, quotes or line breaks are quoted, and bytes of names that are not UTF-8 are kept. Lines
    end in a carriage return and a line feed (RFC 4180), so that both are quoted in names.

    Args:
        rows: the rows, with equal keys.
        columns: the columns of an empty table; None: the keys of the first row.
    """
    rows = list(rows)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns or (list(rows[0]) if rows else []))
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode("utf-8", "surrogateescape")


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value

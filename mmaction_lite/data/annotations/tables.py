"""Tables with a header: `.csv`, `.tsv`, `.jsonl` and `.parquet`."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmaction_lite.data.annotations.classes import class_name, class_prefix
from mmaction_lite.data.annotations.columns import LABEL_COLUMNS, SEGMENT_COLUMNS, check_columns
from mmaction_lite.data.annotations.labels import is_numeric
from mmaction_lite.data.annotations.rows import Rows
from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.annotations.table_rows import READERS, find_header
from mmaction_lite.data.annotations.text_files import BYTE_ORDER_MARK, read_text
from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.files import write_atomically

LABEL_SEPARATOR = "|"
TABLE_SUFFIXES = tuple(READERS)
MOST_FRAMES = 1e9


def is_table(file: Path) -> bool:
    """Whether a file with the suffix of a table is one; some projects name lists `path label` .csv.

    Raises:
        UserError: the file cannot be read.
    """
    return file.suffix.lower() not in (".csv", ".tsv") or (
        find_header(read_text(file, keeps_bytes=True), file) is not None
    )


def read_table(file: Path, classes: Sequence[str] | None = None) -> Samples:
    """Read a table with a header and the columns `path` and `label`.

    Other label columns take the place of `label`. `class` holds a class name, also where all names are
    numbers. `labels` holds any number of classes, including none: a list in .jsonl and .parquet files, names
    or numbers separated by | in the others. `verb` and `noun` hold one class each.

    Optional columns:

        weight                         0 or above: relative frequency of the clip in training
        group                          the recording that the clip was cut from; a note counts recordings in
                                       both splits
        start_seconds, end_seconds     the part of a long video that is the sample; an empty cell is the
                                       beginning or the end of the video
        start_frame, end_frame         the same in frames, counted from 0; the last one is not included

    Further columns are ignored, and `Samples.notes` names them. Column names are not case-sensitive. The
    suffix determines the format: .csv and .tsv (cells are separated by commas, semicolons, tabs or bars; the
    columns path and label need no header), .jsonl (one object per line) or .parquet (needs the extra
    `parquet`).

    Args:
        file: the table.
        classes: known class names; None infers them.

    Raises:
        UserError: a row lacks a column, a value is invalid, a column resembles a known one, or a class is
            unknown. The message names file and line.
    """
    with reading(file):
        rows = _read_rows(file)
        if not rows:
            raise UserError(f"{file}: has no samples below its header; expected one row for each clip")
        return rows.samples(classes)


def _read_rows(file: Path) -> Rows:
    rows = Rows(file)
    known_keys: dict[tuple[str, ...], tuple[str, ...]] = {}
    segment_columns: tuple[str, str] | None = None
    is_weighted = is_grouped = False
    notes: dict[str, None] = {}
    for number, row in READERS[file.suffix.lower()](file, rows.notes):
        place = f"{file}:{number}"
        keys = tuple(row)
        if keys not in known_keys:
            known_keys[keys] = _label_columns(row, place)
            if file.suffix.lower() == ".jsonl":
                notes |= dict.fromkeys(
                    note.removeprefix(place) for note in check_columns(keys, place) if len(notes) < 3
                )
            pair = next((pair for pair in SEGMENT_COLUMNS if not row.keys().isdisjoint(pair)), None)
            if pair and segment_columns not in (None, pair):
                raise UserError(f"{place}: the row has {pair[0]}, and earlier rows have {segment_columns[0]}")
            if pair and segment_columns is None:
                segment_columns = pair
                rows.segments_in_frames = pair == SEGMENT_COLUMNS[1]
                rows.segments = [(0.0, math.inf)] * len(rows)
            if "weight" in row and not is_weighted:
                is_weighted = True
                rows.weights = [1.0] * len(rows)
            if "group" in row and not is_grouped:
                is_grouped = True
                rows.groups = [""] * len(rows)
        columns, labels = _row_labels(row, known_keys[keys], place)
        if not rows:
            rows.label_columns = columns
        rows.label_columns = _common_columns(rows.label_columns, columns, place)
        rows.add(
            _path(row["path"], place),
            labels,
            number,
            segment=_segment(row, segment_columns, place) if segment_columns else None,
            weight=_weight(row, place) if is_weighted else None,
            group=_group(row) if is_grouped else None,
        )
    rows.notes += [f"{file}{note}" for note in notes]
    if rows.label_columns == ("class",):
        rows.label_columns, rows.are_names = ("label",), True
    return rows


def _label_columns(row: dict[str, Any], place: str) -> tuple[str, ...]:
    """Return the label columns of a row.

    Raises:
        UserError: the row lacks a path or a label.
    """
    columns = next((names for names in LABEL_COLUMNS if row.keys() >= set(names)), ("label",))
    if missing := {"path", *columns} - row.keys():
        shown = [printable(name, 40) for name in list(row)[:20]]
        raise UserError(f"{place}: the row has {shown}; expected also {' and '.join(sorted(missing))}")
    return columns


def write_table(file: Path, samples: Samples, chosen: Sequence[int], paths: Sequence[str]) -> None:
    """Write some of the samples as a `.csv` table that `read_table` reads.

    Args:
        file: the new file.
        samples: the table of all samples.
        chosen: numbers of the samples to write.
        paths: their paths in the new table.

    Raises:
        UserError: a class name or a path cannot be written so that `read_table` returns it.
    """
    label_columns = samples.label_columns
    # In the column label, a class named 3 could be taken for class number 3.
    are_numeric = label_columns == ("label",) and any(is_numeric(class_name(n)) for n in samples.classes)
    columns = [
        *(("class",) if are_numeric else label_columns),
        *(() if samples.segments is None else SEGMENT_COLUMNS[samples.segments_in_frames]),
        *(() if samples.weights is None else ("weight",)),
        *(() if samples.groups is None else ("group",)),
    ]
    if samples.label_ends is not None and (split := [n for n in samples.classes if LABEL_SEPARATOR in n]):
        raise UserError(
            f"{file}: the class name {split[0]!r} contains {LABEL_SEPARATOR!r}, which separates names in the "
            "column labels; rename the class"
        )
    prefixes = [class_prefix(column, label_columns) for column in label_columns]
    rows = []
    for sample, path in zip(chosen, paths, strict=True):
        labels = samples.class_names(sample)
        if samples.label_ends is not None:
            labels = [LABEL_SEPARATOR.join(labels)]
        else:
            labels = [name.removeprefix(prefix) for name, prefix in zip(labels, prefixes, strict=True)]
        segment = samples.segment(sample)
        ends = () if segment is None else ("" if math.isinf(end) else f"{end:.12g}" for end in segment[:2])
        weight = () if samples.weights is None else (f"{samples.weights[sample]:.12g}",)
        group = () if samples.groups is None else (samples.groups[sample],)
        rows.append((path, *labels, *ends, *weight, *group))
    content = format_rows(file, rows, columns)
    write_atomically(file, lambda out: out.write(content))


def format_rows(file: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("label",)) -> bytes:
    """Return the contents of a `.csv` table with the column `path` and further columns.

    Args:
        file: the file that will be written, for messages.
        rows: path and further cells of each clip.
        columns: names of the further columns.

    Raises:
        UserError: a cell would be read back with other contents.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("path", *columns), *rows])
    content = text.getvalue()
    try:
        back = list(csv.reader(io.StringIO(content.replace("\r\n", "\n"), newline="")))[1:]
    except csv.Error:
        back = []
    for number, row in enumerate(rows):
        is_lost = number >= len(back) or list(row) != back[number]
        if is_lost or "\0" in row[0] or f"\n{BYTE_ORDER_MARK}" in f"\n{row[0]}":
            raise UserError(
                f"{file}: the clip '{printable(row[0], 300)}' cannot be listed, because its name contains "
                "line breaks, NUL or a byte order mark, or is too long; rename it"
            )
    return content.encode("utf-8", "surrogateescape")


def _row_labels(
    row: dict[str, Any], columns: tuple[str, ...], place: str
) -> tuple[tuple[str, ...], list[str]]:
    """Return the label columns of a row and its labels; a list in the column `label` counts as `labels`."""
    values = [row.get(name) for name in columns]
    if row["path"] in (None, "") or None in values or ("" in values and columns != ("labels",)):
        shown = [printable(str(value), 60) for value in list(row.values())[:20]]
        raise UserError(
            f"{place}: lacks a path or a label: {shown}; expected values of path, {', '.join(columns)}"
        )
    found = [_labels(value, name, place) for value, name in zip(values, columns, strict=True)]
    if isinstance(found[0], list):
        return ("labels",), found[0]
    return columns, [label for label in found if isinstance(label, str)]


def _path(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: path is {printable(repr(value), 60)}; expected text")
    return value


def _labels(value: Any, column: str, place: str) -> str | list[str]:
    """Return the class in a column, or the list of classes in `labels`."""
    if column == "labels" and isinstance(value, str):
        value = [label for label in value.split(LABEL_SEPARATOR) if label.strip()]
    if isinstance(value, list) and column in ("label", "labels") and all(map(_is_label, value)):
        return [str(label).strip() for label in value]
    if column != "labels" and _is_label(value):
        return str(value).strip()
    raise UserError(f"{place}: {column} is {printable(repr(value), 60)}; expected class names or numbers")


def _is_label(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _common_columns(before: tuple[str, ...], columns: tuple[str, ...], place: str) -> tuple[str, ...]:
    """Return the label columns of a file whose rows so far have `before` and whose next row has `columns`."""
    if columns == before:
        return columns
    if {columns, before} == {("label",), ("labels",)}:
        return ("labels",)
    raise UserError(
        f"{place}: the row has its labels in {' and '.join(columns)}, the rows before it in "
        f"{' and '.join(before)}; use the same columns in all rows"
    )


def _group(row: dict[str, Any]) -> str:
    group = row.get("group")
    return "" if group is None else str(group).strip()


def _weight(row: dict[str, Any], place: str) -> float:
    value = row.get("weight")
    weight = _number(value, 1.0)
    if not 0 <= weight < math.inf:
        raise UserError(f"{place}: the weight is {printable(repr(value), 60)}; expected a number, 0 or above")
    return weight


def _segment(row: dict[str, Any], columns: tuple[str, str], place: str) -> tuple[float, float]:
    """Return start and end of the part of a video; an empty cell stands for that of the video."""
    values = [row.get(name) for name in columns]
    start, end = (_number(value, default) for value, default in zip(values, (0.0, math.inf), strict=True))
    shown = printable(str(values), 100)
    if math.isnan(start) or math.isnan(end):
        raise UserError(f"{place}: {' and '.join(columns)} are {shown}; expected numbers")
    if columns == SEGMENT_COLUMNS[1]:
        bounds = [bound for bound in (start, end) if bound < math.inf]
        if any(bound % 1 or abs(bound) > MOST_FRAMES for bound in bounds):
            raise UserError(f"{place}: {' and '.join(columns)} are {shown}; expected integers up to 1e9")
    if not 0 <= start < end:
        raise UserError(f"{place}: the part from {start:g} to {end:g} is empty or begins before 0")
    return start, end


def _number(value: Any, default: float) -> float:
    """Return a number in a cell, `default` for an empty cell, and NaN for anything else."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return default
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool) and "_" not in str(value):
            return float(value)
    except (ValueError, OverflowError):
        pass
    return math.nan

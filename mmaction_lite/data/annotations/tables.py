"""Tables with a header: `.csv`, `.tsv`, `.jsonl` and `.parquet`."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mmaction_lite.data.annotations.classes import class_prefix, read_text
from mmaction_lite.data.annotations.rows import Rows
from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.errors import UserError
from mmaction_lite.files import write_atomically

LABEL_SEPARATOR = "|"
# Label columns, in the order in which they are looked for.
LABEL_COLUMNS = ("labels",), ("label",), ("verb", "noun")
SEGMENT_COLUMNS = ("start_seconds", "end_seconds"), ("start_frame", "end_frame")


def read_table(file: Path, classes: Sequence[str] | None = None) -> Samples:
    """Read a table with a header and the columns `path` and `label`.

    Other label columns take the place of `label`. `labels` holds any number of classes, including none: a
    list in .jsonl and .parquet files, names or numbers separated by | in the others. `verb` and `noun` hold
    one class each.

    Optional columns:

        weight                         0 or above: relative frequency of the clip in training
        start_seconds, end_seconds     the part of a long video that is the sample; an empty cell is the
                                       beginning or the end of the video
        start_frame, end_frame         the same in frames, counted from 0; the last one is not included

    Further columns are ignored. The suffix determines the format: .csv, .tsv, .jsonl (one object per line) or
    .parquet (needs the extra `parquet`).

    Args:
        file: the table.
        classes: known class names; None infers them.

    Raises:
        UserError: a row lacks a column, a value is invalid, or a class is unknown. The message names file and
            line.
    """
    rows = Rows(file)
    segment_columns: tuple[str, str] | None = None
    is_weighted = False
    for number, row in _READERS[file.suffix](file):
        place = f"{file}:{number}"
        columns = next((names for names in LABEL_COLUMNS if row.keys() >= set(names)), ("label",))
        if missing := {"path", *columns} - row.keys():
            raise UserError(
                f"{place}: the row has {list(row)}; expected also {' and '.join(sorted(missing))}"
            )
        columns, labels = _row_labels(row, columns, place)
        if not rows:
            rows.label_columns = columns
            segment_columns = next(
                (pair for pair in SEGMENT_COLUMNS if not row.keys().isdisjoint(pair)), None
            )
            rows.segments_in_frames = segment_columns == SEGMENT_COLUMNS[1]
            is_weighted = "weight" in row
        rows.label_columns = _common_columns(rows.label_columns, columns, place)
        rows.add(
            str(row["path"]).strip(),
            labels,
            number,
            segment=_segment(row, segment_columns, place) if segment_columns else None,
            weight=_weight(row, place) if is_weighted else None,
        )
    if not rows:
        raise UserError(f"{file}: has no samples below its header")
    return rows.samples(classes)


def write_table(file: Path, samples: Samples, chosen: Sequence[int], paths: Sequence[str]) -> None:
    """Write some of the samples as a `.csv` table that `read_table` reads.

    Args:
        file: the new file.
        samples: the table of all samples.
        chosen: numbers of the samples to write.
        paths: their paths in the new table.

    Raises:
        UserError: a class name contains the separator of the column `labels`.
    """
    label_columns = samples.label_columns
    columns = [
        *label_columns,
        *(() if samples.segments is None else SEGMENT_COLUMNS[samples.segments_in_frames]),
        *(() if samples.weights is None else ("weight",)),
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
        rows.append((path, *labels, *ends, *weight))
    write_rows(file, rows, columns)


def write_rows(file: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("label",)) -> None:
    """Write a `.csv` table with the column `path` and further columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("path", *columns), *rows])
    write_atomically(file, lambda out: out.write(text.getvalue().encode("utf-8", "surrogateescape")))


def _row_labels(
    row: dict[str, Any], columns: tuple[str, ...], place: str
) -> tuple[tuple[str, ...], list[str]]:
    """Return the label columns of a row and its labels; a list in the column `label` counts as `labels`."""
    values = [row[name] for name in columns]
    if row["path"] in (None, "") or None in values or ("" in values and columns != ("labels",)):
        raise UserError(f"{place}: lacks a path or a label: {list(row.values())}")
    found = [_labels(value, name, place) for value, name in zip(values, columns, strict=True)]
    if isinstance(found[0], list):
        return ("labels",), found[0]
    return columns, [label for label in found if isinstance(label, str)]


def _labels(value: Any, column: str, place: str) -> str | list[str]:
    """Return the class in a column, or the list of classes in `labels`."""
    if column == "labels" and isinstance(value, str):
        value = [label for label in value.split(LABEL_SEPARATOR) if label.strip()]
    is_list = isinstance(value, list) and all(isinstance(label, str | int) for label in value)
    if is_list and column in ("label", "labels"):
        return [str(label).strip() for label in value]
    if column != "labels" and isinstance(value, str | int):
        return str(value).strip()
    raise UserError(f"{place}: {column} is {value!r}; expected class names or numbers")


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


def _weight(row: dict[str, Any], place: str) -> float:
    text = row.get("weight")
    try:
        weight = 1.0 if text in (None, "") else float(text)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise UserError(f"{place}: the weight is {text!r}; expected a number, 0 or above")
    return weight


def _segment(row: dict[str, Any], columns: tuple[str, str], place: str) -> tuple[float, float]:
    """Return start and end of the part of a video; an empty cell stands for that of the video."""
    texts = [row.get(name) for name in columns]
    try:
        start, end = (
            default if text in (None, "") else float(text)
            for text, default in zip(texts, (0.0, float("inf")), strict=True)
        )
    except ValueError:
        raise UserError(f"{place}: {' and '.join(columns)} are {texts}; expected numbers") from None
    if not 0 <= start < end:
        raise UserError(f"{place}: the part from {start:g} to {end:g} is empty or begins before 0")
    return start, end


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.DictReader(read_text(file).splitlines(), delimiter="\t" if file.suffix == ".tsv" else ",")
    names = set(rows.fieldnames or ())
    if "path" not in names or not any(names >= set(columns) for columns in LABEL_COLUMNS):
        raise UserError(f"{file}:1: the header names {rows.fieldnames}; expected the columns path and label")
    for row in rows:
        yield rows.line_num, row


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{file}:{number}: is not JSON ({error})") from None
            if not isinstance(row, dict):
                raise UserError(f"{file}:{number}: {line[:60]!r} is not an object with path and label")
            yield number, row


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rows, counted from 1."""
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        raise UserError(f"{file}: Parquet needs pyarrow: pip install 'mmaction-lite[parquet]'") from None
    try:
        table = parquet.ParquetFile(file)
    except ArrowInvalid as error:
        raise UserError(f"{file}: is not a Parquet file ({str(error).splitlines()[0]})") from None
    known = {"path", "weight", *chain(*LABEL_COLUMNS), *chain(*SEGMENT_COLUMNS)}
    number = 0
    for batch in table.iter_batches(columns=[name for name in table.schema_arrow.names if name in known]):
        for row in batch.to_pylist():
            number += 1
            yield number, row


_READERS = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}
TABLE_SUFFIXES = tuple(_READERS)

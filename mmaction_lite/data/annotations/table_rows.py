"""Rows of table files: `.csv`, `.tsv`, `.jsonl` and `.parquet`."""

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.annotations.columns import KNOWN_COLUMNS, check_columns, column_name
from mmaction_lite.data.annotations.paths import exists, find_path
from mmaction_lite.data.annotations.text_files import (
    MAX_BYTES,
    check_regular,
    check_rows,
    check_utf8,
    parse_json,
    read_text,
    split_lines,
)
from mmaction_lite.errors import UserError, describe, printable

# Separators of cells, in the order in which they are tried.
SEPARATORS = {".csv": ",;\t|", ".tsv": "\t,;|"}
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?')
_VIDEO_THEN_LABEL = re.compile(rf"({'|'.join(map(re.escape, VIDEO_SUFFIXES))})\s+\S", re.IGNORECASE)
MAX_PARQUET_BYTES = 1 << 30
MAX_TEXT = 1 << 16  # bytes of a cell
_NO_HEADER = ("path", "label")


class TableRow(NamedTuple):
    """A row of a table.

    Args:
        number: line in the file, or number of the row in a Parquet file, counted from 1.
        cells: value of each column; names are results of `column_name`.
    """

    number: int
    cells: dict[str, Any]


class Header(NamedTuple):
    """The first rows of a CSV file.

    Args:
        separator: separator of cells.
        names: column names; the first row has no names if `line` is 0.
        line: line number of the header; 0 if there is none.
        skipped: number of lines before the header or the first row.
    """

    separator: str
    names: list[str]
    line: int
    skipped: int = 0


def find_header(text: str, file: Path) -> Header | None:
    """Return the header of a CSV file; None if the file is no table, such as a list `path label`."""
    lines = split_lines(text[: 1 << 20], file)
    skipped = 0
    separators = SEPARATORS[file.suffix.lower()]
    if lines and (match := _SEPARATOR_LINE.fullmatch(lines[0])):
        separators, skipped = match[1], 1
    while skipped < len(lines) and not lines[skipped].strip():
        skipped += 1
    if skipped == len(lines):
        return Header(separators[0], [], 1, skipped)
    rows = {}
    for separator in separators:
        try:
            rows[separator] = next(csv.reader([lines[skipped]], delimiter=separator), [])
        except csv.Error:
            continue
    for separator, cells in rows.items():
        names = [column_name(cell) for cell in cells]
        if "path" in names or len(KNOWN_COLUMNS & set(names)) > 1:
            return Header(separator, names, skipped + 1, skipped)
    for separator, cells in rows.items():
        # A folder of frames has no suffix: it is recognized because it exists.
        if len(cells) == 2 and cells[1].strip() and _is_clip(cells[0].strip(), file):
            return Header(separator, list(_NO_HEADER), 0, skipped)
    if _VIDEO_THEN_LABEL.search(lines[skipped]) or _is_clip(lines[skipped].rsplit(maxsplit=1)[0], file):
        return None
    separator = max(rows, key=lambda separator: len(rows[separator]), default=",")
    return Header(separator, [column_name(cell) for cell in rows.get(separator, [])], skipped + 1, skipped)


def _is_clip(path: str, file: Path) -> bool:
    name = path.lower()
    return name.endswith((*VIDEO_SUFFIXES, ".zip")) or (
        bool(name) and exists(find_path(path, file.parent), file.parent)
    )


def read_csv(file: Path, notes: list[str]) -> Iterator[TableRow]:
    """Yield the rows of a `.csv` or `.tsv` file; separators may be commas, semicolons, tabs or bars.

    Args:
        file: the table.
        notes: receives notes on the header.

    Raises:
        UserError: the header lacks a column, or a row has more cells than the header.
    """
    text = read_text(file, keeps_bytes=True)
    check_rows(text.count("\n"), file)
    header = find_header(text, file)
    if header is None:
        return
    if header.line:
        notes += check_columns(header.names, f"{file}:{header.line}")
    else:
        notes.append(f"{file}: has no header; the columns are read as path and label")
    # Cells in quotes may contain line breaks, which only a stream without conversion keeps.
    stream = io.StringIO(text, newline="")
    for _ in range(header.skipped + bool(header.line)):
        stream.readline()
    reader = csv.reader(stream, delimiter=header.separator)
    before = header.skipped + bool(header.line)
    number = before
    width = len(header.names)
    try:
        for cells in reader:
            number = before + reader.line_num
            if not any(cells):
                continue
            if len(cells) > width and any(cell.strip() for cell in cells[width:]):
                raise UserError(
                    f"{file}:{number}: has {len(cells)} cells, and the header has {width} columns; put cells "
                    f"that contain {header.separator!r} in double quotes"
                )
            yield TableRow(number, dict(zip(header.names, cells, strict=False)))
    except csv.Error as error:
        raise UserError(f"{file}:{before + reader.line_num}: {printable(str(error), 100)}") from None


def read_jsonl(file: Path, notes: list[str]) -> Iterator[TableRow]:
    """Yield the rows of a `.jsonl` file, which has one JSON object per line.

    Raises:
        UserError: a line is no JSON object.
    """
    for number, line in enumerate(split_lines(read_text(file), file), 1):
        if line.strip():
            row = parse_json(line, f"{file}:{number}", has_unique_keys=True)
            if not isinstance(row, dict):
                shown = printable(line[:60], 60)
                raise UserError(f"{file}:{number}: {shown!r} is not an object with path and label")
            cells = {column_name(name): value for name, value in row.items()}
            if len(cells) < len(row):  # names that differ in case
                list(check_columns([column_name(name) for name in row], f"{file}:{number}"))
            yield TableRow(number, cells)


def read_parquet(file: Path, notes: list[str]) -> Iterator[TableRow]:
    """Yield the rows of a Parquet file.

    Raises:
        UserError: pyarrow is not installed, or the file is damaged or too large.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(f"{file}: Parquet needs pyarrow: pip install 'mmaction-lite[parquet]'") from None
    check_regular(file, os.stat(file), MAX_BYTES)  # noqa: PTH116
    try:
        table = parquet.ParquetFile(file)
    except Exception as error:  # pyarrow raises exceptions of many types for damaged files
        raise UserError(f"{file}: is not a Parquet file ({describe(error)})") from None
    check_rows(table.metadata.num_rows, file)
    columns = {name: column_name(name) for name in table.schema_arrow.names}
    chosen = [name for name, form in columns.items() if form in KNOWN_COLUMNS]
    size = sum(table.metadata.row_group(number).total_byte_size for number in range(table.num_row_groups))
    if size > MAX_PARQUET_BYTES:
        raise UserError(
            f"{file}: has {size >> 20} MiB without compression; expected at most {MAX_PARQUET_BYTES >> 20}"
        )
    notes += check_columns([column_name(name) for name in table.schema_arrow.names], str(file))
    # A long text may be stored once and occur in every row: keep it once until its length is checked.
    stored = [table.schema.column(number) for number in range(len(table.schema))]
    texts = [column.path for column in stored if column.physical_type == "BYTE_ARRAY"]
    table = parquet.ParquetFile(file, read_dictionary=texts)
    number = 0
    for batch in table.iter_batches(batch_size=4096, columns=chosen):
        _check_lengths(batch, file)
        for row in batch.to_pylist():
            number += 1
            cells = {columns[name]: _text(value, f"{file}:{number}") for name, value in row.items()}
            yield TableRow(number, cells)


def _check_lengths(batch: Any, file: Path) -> None:
    """Check that no text in a batch of Parquet rows is longer than `MAX_TEXT`.

    Raises:
        UserError: one is longer.
    """
    from pyarrow import types

    for array in batch.columns:
        while types.is_list(array.type) or types.is_large_list(array.type):
            array = array.flatten()
        if types.is_dictionary(array.type) and len(array.dictionary):
            longest = max(len(text or b"") for text in array.dictionary.cast("binary").to_pylist())
            if longest > MAX_TEXT:
                raise UserError(f"{file}: a cell has {longest} bytes; expected at most {MAX_TEXT}")


def _text(value: Any, place: str) -> Any:
    """Return binary values as text."""
    if isinstance(value, bytes):
        text = value.decode("utf-8", "surrogateescape")
        check_utf8(text, place)
        return text
    return value


READERS = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}

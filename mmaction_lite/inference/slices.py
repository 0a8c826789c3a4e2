"""Slices of a split: groups of its videos by length, frame rate, folder, or the columns of a CSV file."""

import csv
import io
import math
import os.path
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mmaction_lite.data.sources.source import open_source
from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.tasks.calibration import reliability_of
from mmaction_lite.tasks.metrics import SHARES_OF_VIDEOS, readable_videos, wilson_interval
from mmaction_lite.tasks.score_files import Scores

Property = Literal["length", "fps", "folder"]
Row = dict[str, Any]
Track = Callable[[Iterable[str], int, str], Iterable[str]]

QUANTILES = 4  # groups of a column with many numbers
MOST_VALUES = 50  # slices of a column of texts; the others are one slice
MOST_BYTES = 256 << 20  # of a CSV file
OTHERS, UNKNOWN = "(others)", "(unknown)"


def slice_table(table: Scores, columns: Mapping[str, Sequence[str]]) -> list[Row]:
    """Return the metrics of all videos and of every slice.

    Args:
        table: the scores.
        columns: for each kind of slice, the slice of every video.

    Returns:
        rows with `column`, `slice`, `videos`, `unreadable`, the metrics of the task, `low` and `high` (the
        95 % interval of the first accuracy), and `ece`. The first row holds all videos.
    """
    rows = [_row(table, "all", "all", np.arange(len(table.paths)))]
    for column, values in columns.items():
        groups: dict[str, list[int]] = {}
        for number, value in enumerate(values):
            groups.setdefault(value, []).append(number)
        order = sorted(groups, key=lambda name: (name in (OTHERS, UNKNOWN), *_natural(name)))
        rows += [_row(table, column, name, np.array(groups[name])) for name in order]
    return rows


def rows_of_slices(
    table: Scores, file: Path | None, properties: Sequence[Property], track: Track | None = None
) -> list[Row]:
    """Return the metrics of all videos, and of their slices by properties and by the columns of a CSV file.

    Args:
        table: the scores.
        file: see `read_slices`; None: no such slices.
        properties: see `property_slices`.
        track: see `property_slices`.

    Returns:
        rows as those of `slice_table`.

    Raises:
        UserError: see `read_slices`.
    """
    columns = {kind: property_slices(table.paths, kind, track) for kind in properties}
    return slice_table(table, columns | ({} if file is None else read_slices(file, table.paths)))


def _natural(text: str) -> tuple[tuple[float, str], ...]:
    """Return a key that sorts texts by the numbers in them."""
    parts = re.findall(r"(\d+(?:\.\d+)?)|(\D+?(?=\d|$))", text)
    return tuple((float(number), "") if number else (math.inf, other) for number, other in parts)


def _row(table: Scores, column: str, name: str, rows: np.ndarray) -> Row:
    scores, labels = table.scores[rows], table.labels[rows]
    metrics = table.task.metrics(scores, labels)
    metrics = {key: metrics[key] for key in table.task.shown_metrics(len(table.class_names))}
    accuracy = next(key for key in metrics if key in SHARES_OF_VIDEOS)
    low, high = wilson_interval(metrics[accuracy] * len(rows), len(rows))
    readable = readable_videos(scores)
    return {
        "column": column,
        "slice": name,
        "videos": len(rows),
        "unreadable": int((~readable).sum()),
        **metrics,
        "low": low,
        "high": high,
        "ece": reliability_of(table.task, scores, labels).error if readable.any() else None,
    }


def check_property(name: str) -> Property:
    """Return the property of videos of this name.

    Raises:
        UserError: there is none.
    """
    found = next((known for known in get_args(Property) if known == name), None)
    if found is None:
        raise UserError(
            f"--by {printable(name, 100)}: expected one of {', '.join(get_args(Property))}; repeat the "
            "option for several. Slices of your own are columns of the CSV file of --slices"
        )
    return found


def property_slices(
    paths: Sequence[str],
    kind: Property,
    track: Track | None = None,
) -> list[str]:
    """Return the slice of every video by its length in seconds, its frame rate, or its folder.

    Lengths and frame rates of more than a few values are divided into quarters of the videos. Videos that
    cannot be opened are the slice "(unknown)".

    Args:
        paths: paths of the videos.
        kind: "length", "fps", or "folder": the folders below the one that all videos share.
        track: wraps the paths to show progress: (iterable, total, title).
    """
    if kind == "folder":
        folders = [os.path.dirname(path.partition("#")[0]) for path in paths]  # noqa: PTH120
        try:
            shared = os.path.commonpath(set(folders))
        except ValueError:  # absolute and relative paths
            shared = ""
        return group_values([os.path.relpath(path or ".", shared or ".") for path in folders])
    title = f"reading the {'length' if kind == 'length' else 'frame rate'} of videos"
    values = []
    for path in track(paths, len(paths), title) if track else paths:
        values.append(_property(path, kind))
    return group_values(values, {"length": " s", "fps": " fps"}[kind])


def _property(path: str, kind: Property) -> str:
    """Return length or frame rate of a video as text, empty if it cannot be opened."""
    file, _, part = path.partition("#t=")
    file = file.partition("#frames=")[0]
    try:
        if kind == "length" and (ends := re.fullmatch(r"([\d.]+),([\d.]+)", part)):
            return f"{float(ends[2]) - float(ends[1]):.6g}"
        with open_source(Path(file)) as source:
            return f"{source.fps:.6g}" if kind == "fps" else f"{len(source) / source.fps:.6g}"
    except Exception:  # a damaged video is one of the slice of unknown values
        return ""


def group_values(values: Sequence[str], unit: str = "") -> list[str]:
    """Return the slice of every value of a column.

    Args:
        values: one text for each video; empty: unknown.
        unit: unit of numbers, with a space before it.

    Returns:
        the values, or, for more than 10 different numbers, quarters of them; for more than 50 different
        texts, the most frequent ones and "(others)".
    """
    numbers = np.array([_number(value) for value in values])
    known = np.array([bool(value) for value in values])
    if known.any() and np.isfinite(numbers[known]).all():
        if len(np.unique(numbers[known])) > 10:
            return _quantiles(numbers, known, unit)
        return [f"{n:g}{unit}" if k else UNKNOWN for n, k in zip(numbers.tolist(), known, strict=True)]
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    kept = set(sorted(counts, key=lambda value: -counts[value])[:MOST_VALUES])
    return [UNKNOWN if not value else value if value in kept else OTHERS for value in values]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _quantiles(numbers: np.ndarray, known: np.ndarray, unit: str) -> list[str]:
    """Return the quarter of each number, such as "2.5 to 4 s"; an end belongs to the quarter below it."""
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, QUANTILES + 1)))
    bins = np.clip(np.searchsorted(edges, numbers, side="left") - 1, 0, len(edges) - 2)
    names = [f"{low:.3g} to {high:.3g}{unit}" for low, high in pairwise(edges)]
    return [names[b] if k else UNKNOWN for b, k in zip(bins.tolist(), known.tolist(), strict=True)]


def read_slices(file: Path, paths: Sequence[str]) -> dict[str, list[str]]:
    """Read a CSV file with a column `video` and a column for each kind of slice.

    A video is named by its path in the score file, by a path relative to the CSV file, or by its file name if
    no other video has it.

    Args:
        file: the CSV file, UTF-8, with a header; commas, semicolons or tabs separate the columns.
        paths: paths of the videos in the score file.

    Returns:
        for each column, the slice of every video.

    Raises:
        UserError: the file cannot be read, lacks the column `video` or another one, has lines of another
            length, or lacks videos.
    """
    with reading(file):
        if file.stat().st_size > MOST_BYTES:
            raise UserError(f"{file}: has more than {MOST_BYTES >> 20} MiB; expected a CSV file of slices")
        text = file.read_text(encoding="utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(line)]
    header = [name.strip() for name in lines[0]] if lines else []
    lowered = [name.lower() for name in header]
    place = next((lowered.index(name) for name in ("video", "path") if name in lowered), None)
    if place is None or len(header) < 2 or len(set(header)) < len(header):
        raise UserError(
            f"{file}: has the columns {printable(', '.join(header), 200)}; expected a header with `video` "
            "and one or more other columns of different names"
        )
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise UserError(f"{file}: row {number} has {len(line)} columns; expected {len(header)}")
        found[line[place].strip()] = [cell.strip() for cell in line]
    rows = _rows_of_videos(found, file, paths)
    return {
        name: group_values([row[column] for row in rows])
        for column, name in enumerate(header)
        if column != place
    }


def _rows_of_videos(found: dict[str, list[str]], file: Path, paths: Sequence[str]) -> list[list[str]]:
    """Return the row of each video.

    Raises:
        UserError: a video has none.
    """
    names: dict[str, int] = {}
    for path in set(paths):
        name = os.path.basename(path)  # noqa: PTH119
        names[name] = names.get(name, 0) + 1
    absolute = {os.path.abspath(os.path.join(file.parent, name)): row for name, row in found.items()}  # noqa: PTH100, PTH118
    rows = []
    missing = []
    for path in paths:
        name = os.path.basename(path)  # noqa: PTH119
        row = found.get(path) or absolute.get(os.path.abspath(path))  # noqa: PTH100
        row = row or (found.get(name) if names[name] == 1 else None)
        rows.append(row or [])
        if row is None:
            missing.append(path)
    if missing:
        raise UserError(
            f"{file}: has no row for {len(missing)} of {len(paths)} videos, such as "
            f"{printable(missing[0], 200)}; expected a row for each video of the score file"
        )
    return rows

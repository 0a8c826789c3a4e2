"""Class folders, list files, tables and published annotation files to one table of samples.

What a user may pass as `--data`:

    data/train/<class>/<clip>     class folders per split; a clip is a video file or a folder of JPEG frames
    data/<class>/<clip>           class folders without splits: every fifth clip of a class is held out
    data/train.txt                a list file per split, one `path label` a line (see `read_list`)
    data/train.csv                a table per split, with a header that names `path` and `label`;
                                  also .tsv, .jsonl and .parquet (see `read_table`)
    data/<published files>        as the makers of a data set publish them (see `data.published`)
    some_list.txt                 a single list file or table, for testing
"""

import csv
import io
import json
import math
import os
import re
import shlex
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmaction_lite.data.annotations.published import read_published
from mmaction_lite.data.annotations.samples import PackedStrings, Rows, Samples
from mmaction_lite.errors import MissingSplitError, UserError, nearest
from mmaction_lite.files import write_atomically

Split = Literal["train", "val", "test"]
# Where a split is looked for, in this order. Many data sets publish no labels for their test split.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
    "test": ("test", "testing", "val", "validation", "valid"),
}
VIDEO_SUFFIXES = frozenset(
    ".mp4 .avi .mkv .mov .webm .m4v .mpg .mpeg .ts .mts .gif .flv .wmv .3gp .ogv".split()  # noqa: SIM905
)
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
MOST_CLASSES = 100_000
LABEL_SEPARATOR = "|"
# The label columns of a table, in the order in which they are looked for.
LABEL_COLUMNS = ("labels",), ("label",), ("verb", "noun")
SEGMENT_COLUMNS = ("start_seconds", "end_seconds"), ("start_frame", "end_frame")
_VIDEO_THEN_LABEL = re.compile(
    r"\s*([^\"].*(?:" + "|".join(map(re.escape, sorted(VIDEO_SUFFIXES))) + r"))\s+(\S.*)", re.IGNORECASE
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


def read_split(data: Path, split: Split, classes: Sequence[str] | None = None) -> Samples:
    """The samples of one split of a data set.

    Args:
        data: folder or list file, see the top of this module.
        split: which part; "test" falls back to the validation part where a set has no other.
        classes: the class names that the training split or the weights fixed. None infers them, which
            only the training split should do.

    Raises:
        UserError: nothing is there, a class is unknown, a label is out of range, a line does not parse.
    """
    if not data.exists():
        raise UserError(f"{data}: no such file or folder; --data takes a data set folder or a list file")
    if data.is_file():
        return read_list(data, classes)
    for name in SPLIT_NAMES[split]:
        if (rows := read_published(data, name)) is not None:
            return _table(rows, classes)
    for name in SPLIT_NAMES[split]:
        for file in (data / f"{name}{suffix}" for suffix in LIST_SUFFIXES):
            if file.is_file():
                return read_list(file, classes)
        if (folder := data / name).is_dir():
            return read_class_folders(folder, classes)
    names = {name for names in SPLIT_NAMES.values() for name in names}
    if any((data / f"{name}{suffix}").exists() for name in names for suffix in ("", *LIST_SUFFIXES)):
        wanted = SPLIT_NAMES[split][0]
        raise MissingSplitError(
            f"{data}: has no {wanted} split; add {data / wanted}/ or {data / wanted}.txt "
            "(class folders without train/ above them have every fifth clip held out)"
        )
    samples = read_class_folders(data, classes)
    return _hold_out(samples, held_out=split != "train")


def read_class_folders(folder: Path, classes: Sequence[str] | None = None) -> Samples:
    """One folder per class, named like the class, with video files or frame folders inside.

    Raises:
        UserError: no class folder, no clip, or a folder that is none of the known classes.
    """
    found = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    names = tuple(found if classes is None else classes)
    index = {name: number for number, name in enumerate(names)}
    paths: list[str] = []
    labels: list[int] = []
    for name in found:
        clips = sorted(entry.name for entry in os.scandir(folder / name) if _is_clip(entry))
        if clips and name not in index:
            raise UserError(
                f"{folder / name}: class {name!r} is not among the {len(names)} known classes; "
                + nearest(name, names)
            )
        paths += [f"{name}/{clip}" for clip in clips]
        labels += [index[name]] * len(clips)
    if not paths:
        raise UserError(
            f"{folder}: found no clips; expected <class>/<video file> or <class>/<folder of .jpg frames>"
        )
    return Samples(PackedStrings(paths), np.array(labels, np.int64), names, folder, str(folder))


def read_list(file: Path, classes: Sequence[str] | None = None) -> Samples:
    """A list file: one clip a line, or a table, by the file's suffix (see `read_table`).

    The lines of a list are all of one of these forms, decided by the first:

        path label
        path label label label               several classes, by their numbers, in any line; videos only
        folder total_frames label            JPEG folders, as MMAction2 lists them
        folder offset total_frames label     a run of the frames in a folder that holds more

    Paths are relative to the list file's folder and may contain spaces, or stand in double quotes. Labels
    are all class names or all 0-based numbers; numbers get their names from `classes.txt` beside the list
    file (one name a line). Empty lines and lines that begin with # are skipped.

    Raises:
        UserError: names file and line.
    """
    if file.suffix in (".csv", ".tsv", ".jsonl", ".parquet"):
        return read_table(file, classes)
    rows, numbers = Rows(file), None
    for number, line in enumerate(_read_text(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        path, label, is_video = _split_line(line, f"{file}:{number}")
        # `folder total_frames label` and a path with a space look alike: the first line decides.
        if numbers is None:
            numbers = 0 if is_video else _frame_numbers(path, file.parent)
            rows.segments_in_frames = numbers > 0
        if not numbers:
            is_several = re.fullmatch(r"\d+(\s+\d+)+", label)
            if is_several:
                rows.label_columns = ("labels",)
            rows.add(path, label.split() if is_several else label, number)
            continue
        match = re.fullmatch(r"(.+?)\s+" + r"\s+".join([r"(\d+)"] * numbers), path)
        if match is None:
            expected = "folder total_frames label" if numbers == 1 else "folder offset total_frames label"
            raise UserError(f"{file}:{number}: {line!r} lacks a frame count; expected {expected!r}")
        first = int(match[2]) if numbers == 2 else 0
        rows.add(match[1], label, number, (first, first + int(match[numbers + 1])))
    if not rows:
        raise UserError(f"{file}: has no samples; expected one 'path label' a line")
    return _table(rows, classes)


def _frame_numbers(path: str, folder: Path) -> int:
    """How many numbers stand between folder of frames and label: 0, 1 (total) or 2 (offset, total)."""
    for numbers in (2, 1):
        match = re.fullmatch(r"(.+?)" + r"\s+\d+" * numbers, path)
        if match and (folder / match[1]).is_dir():
            return numbers
    return 0


def read_table(file: Path, classes: Sequence[str] | None = None) -> Samples:
    """A table with a header: the columns `path` and `label`; others are ignored, but for these.

    `labels` in place of `label` holds any number of classes, also none: a list in .jsonl and .parquet, names
    or numbers with | between them in the others. `weight`, 0 or above, makes a clip come more or less often
    in training, in proportion. `start_seconds` and `end_seconds` make a sample of a part of a long video,
    which need not be cut; an empty cell is its beginning or end. `start_frame` and `end_frame` do the same in
    frames, counted from 0, the last not included. The suffix says what the file is: .csv, .tsv, .jsonl (an
    object a line) or .parquet (with the extra `parquet`).

    Raises:
        UserError: names file and line.
    """
    rows = Rows(file)
    columns: tuple[str, str] | None = None
    is_weighted = False
    for number, row in _READERS[file.suffix](file):
        place = f"{file}:{number}"
        # A row of .jsonl may lack what others have; the first row with several classes decides for the file.
        names = next((names for names in LABEL_COLUMNS if row.keys() >= set(names)), ("label",))
        if missing := {"path", *names} - row.keys():
            raise UserError(f"{place}: the row has {list(row)}; it lacks {' and '.join(sorted(missing))}")
        path, values = row["path"], [row[name] for name in names]
        if path in (None, "") or None in values or ("" in values and names != ("labels",)):
            raise UserError(f"{place}: lacks a path or a label: {list(row.values())}")
        if not rows:
            rows.label_columns = names
            columns = next((pair for pair in SEGMENT_COLUMNS if not row.keys().isdisjoint(pair)), None)
            rows.segments_in_frames = columns == SEGMENT_COLUMNS[1]
            is_weighted = "weight" in row
        segment = _read_segment(row, columns, place) if columns else None
        weight = _weight(row, place) if is_weighted else None
        found = [_labels(value, name, place) for value, name in zip(values, names, strict=True)]
        labels = [label for label in found if isinstance(label, str)]
        if isinstance(found[0], list):
            names, labels = ("labels",), found[0]
        if names != rows.label_columns:
            if {names, rows.label_columns} != {("label",), ("labels",)}:
                raise UserError(
                    f"{place}: the row has its labels in {' and '.join(names)}, the rows before it in "
                    f"{' and '.join(rows.label_columns)}; use the same columns in all rows"
                )
            rows.label_columns = ("labels",)
        rows.add(str(path).strip(), labels, number, segment, weight)
    if not rows:
        raise UserError(f"{file}: has no samples below its header")
    return _table(rows, classes)


def _labels(value: Any, column: str, place: str) -> str | list[str]:
    """The class in the column `label`, or those in `labels`."""
    if column == "labels" and isinstance(value, str):
        value = [label for label in value.split(LABEL_SEPARATOR) if label.strip()]
    if isinstance(value, list) and all(isinstance(label, str | int) for label in value):
        return [str(label).strip() for label in value]
    if column != "labels" and isinstance(value, str | int):
        return str(value).strip()
    raise UserError(f"{place}: the {column} are {value!r}; expected class names or numbers")


def _weight(row: dict[str, Any], place: str) -> float:
    text = row.get("weight")
    try:
        weight = 1.0 if text in (None, "") else float(text)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise UserError(f"{place}: the weight is {text!r}; expected a number, 0 or above")
    return weight


def _read_segment(row: dict[str, Any], columns: tuple[str, str], place: str) -> tuple[float, float]:
    """Start and end of a part; where nothing is said, those of the video."""
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
    rows = csv.DictReader(_read_text(file).splitlines(), delimiter="\t" if file.suffix == ".tsv" else ",")
    names = set(rows.fieldnames or ())
    if "path" not in names or not any(names >= set(columns) for columns in LABEL_COLUMNS):
        raise UserError(f"{file}:1: the header names {rows.fieldnames}; expected the columns path and label")
    for row in rows:
        yield rows.line_num, row


def _json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_read_text(file).splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise UserError(f"{file}:{number}: is not JSON ({error})") from None
            if not isinstance(row, dict):
                raise UserError(f"{file}:{number}: {line[:60]!r} is not an object with path and label")
            yield number, row


def _parquet_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows are counted from 1."""
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


def _table(rows: Rows, classes: Sequence[str] | None) -> Samples:
    names, labels = _resolve_labels(rows, classes)
    return Samples(
        PackedStrings(rows.paths),
        labels,
        names,
        rows.root,
        str(rows.file),
        np.array(rows.segments) if rows.segments else None,
        rows.segments_in_frames,
        np.array(rows.lines, np.int32),
        np.array(rows.label_ends, np.int64) if rows.label_columns == ("labels",) else None,
        np.array(rows.weights) if rows.weights else None,
        rows.label_columns,
    )


def write_table(file: Path, samples: Samples, chosen: Sequence[int], paths: Sequence[str]) -> None:
    """Write some of the samples as a `.csv` table that `read_table` reads, with other paths."""
    columns = [
        *samples.label_columns,
        *(() if samples.segments is None else SEGMENT_COLUMNS[samples.segments_in_frames]),
        *(() if samples.weights is None else ("weight",)),
    ]
    if samples.label_ends is not None and (split := [n for n in samples.classes if LABEL_SEPARATOR in n]):
        raise UserError(
            f"{file}: the class name {split[0]!r} holds {LABEL_SEPARATOR!r}, which parts names there"
        )
    rows = []
    for sample, path in zip(chosen, paths, strict=True):
        segment = samples.segment(sample)
        ends = () if segment is None else ("" if math.isinf(end) else f"{end:.12g}" for end in segment[:2])
        weight = () if samples.weights is None else (f"{samples.weights[sample]:.12g}",)
        names = samples.class_names(sample)
        if samples.label_ends is not None:
            labels = [LABEL_SEPARATOR.join(names)]
        else:
            prefixes = (_prefix(column, samples.label_columns) for column in samples.label_columns)
            labels = [name.removeprefix(prefix) for name, prefix in zip(names, prefixes, strict=True)]
        rows.append((path, *labels, *ends, *weight))
    write_rows(file, rows, columns)


def write_rows(file: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("label",)) -> None:
    """Write a `.csv` table of a path and further columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("path", *columns), *rows])
    write_atomically(file, lambda out: out.write(text.getvalue().encode("utf-8", "surrogateescape")))


def read_classes(file: Path) -> tuple[str, ...]:
    """Class names in index order, one a line."""
    return tuple(name.strip() for name in _read_text(file).splitlines() if name.strip())


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not a UTF-8 text file ({error.reason})") from None


def _split_line(line: str, place: str) -> tuple[str, str, bool]:
    """Path, label, and whether the path's name is a video's."""
    match = _VIDEO_THEN_LABEL.match(line)
    if line.lstrip().startswith('"'):
        try:
            segments = shlex.split(line)
        except ValueError as error:
            raise UserError(f"{place}: {line!r}: {error}; expected '\"path\" label'") from None
        # What stands between a quoted folder and its label are numbers of frames.
        is_video = Path(segments[0]).suffix.lower() in VIDEO_SUFFIXES
        at = 1 if is_video else -1
        segments = [" ".join(segments[:at]), " ".join(segments[at:])] if len(segments) > 1 else segments
    else:
        segments = list(match.groups()) if match else line.rsplit(maxsplit=1)
    if len(segments) != 2:
        raise UserError(f"{place}: {line!r} has no label; expected 'path label'")
    path, label = segments[0].strip(), segments[1].strip()
    return path, label, match is not None or Path(path).suffix.lower() in VIDEO_SUFFIXES


def _resolve_labels(rows: Rows, classes: Sequence[str] | None) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the class names of all label columns and the class index of each label, int64 (M,)."""
    if not rows.labels:
        raise UserError(f"{rows.file}: no clip has a class")
    listed = rows.file.parent / "classes.txt"
    listed_names = read_classes(listed) if listed.is_file() else None
    lines = np.repeat(rows.lines, np.diff(rows.label_ends, prepend=0)).tolist()
    names: list[str] = []
    indices = np.empty(len(rows.labels), np.int64)
    for number, column in enumerate(rows.label_columns):
        of_column = slice(number, None, len(rows.label_columns))
        prefix = _prefix(column, rows.label_columns)
        own, found = _resolve_column(
            rows.file,
            rows.labels[of_column],
            lines[of_column],
            listed=_without_prefix(listed_names, prefix),
            classes=_without_prefix(classes, prefix),
        )
        indices[of_column] = found + len(names)
        names += [prefix + name for name in own]
    return tuple(names), indices


def _prefix(column: str, columns: Sequence[str]) -> str:
    """Return what the class names of a column begin with: `verb: ` where a table has several."""
    return f"{column}: " if len(columns) > 1 else ""


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
    """Return the class names of a column and the class index of each of its labels, int64 (len(labels),).

    Args:
        file: the annotation file.
        labels: class names or numbers.
        lines: the line of each label.
        listed: names in `classes.txt`, which numbers refer to; None without such a file.
        classes: known class names; None infers them.
    """
    numbered = classes if listed is None else listed
    if all(label.isdecimal() for label in labels):
        values = [int(label) for label in labels]
        top, line = max((value, -number) for value, number in zip(values, lines, strict=True))
        count = MOST_CLASSES if numbered is None else len(numbered)
        if top == count and min(values) > 0:
            raise UserError(
                f"{file}:{-line}: labels run from {min(values)} to {top} and there are {count} classes: they "
                f"seem to count from 1; number them 0 to {count - 1}, or write class names"
            )
        if top >= count:
            raise UserError(
                f"{file}:{-line}: label {top} is out of range: there are {'at most ' * (numbered is None)}"
                f"{count} classes, numbered 0 to {count - 1}"
            )
        numbered = tuple(map(str, range(top + 1))) if numbered is None else tuple(numbered)
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


def _is_clip(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        with os.scandir(entry.path) as inside:
            return any(Path(file.name).suffix.lower() in IMAGE_SUFFIXES for file in inside)
    return Path(entry.name).suffix.lower() in VIDEO_SUFFIXES | {".zip"}


def _hold_out(samples: Samples, held_out: bool) -> Samples:
    """The training or the held-out part of a set without splits.

    Within a class the clips are ordered by a hash of their names, and every fifth is held out, from the
    first on: stratified, the same on every machine, and at least one where a class has two clips.
    """
    paths = [samples.paths[i] for i in range(len(samples))]
    chosen: list[int] = []
    for label in range(len(samples.classes)):
        members = np.flatnonzero(samples.labels == label)
        ordered = sorted(members, key=lambda i: (zlib.crc32(os.fsencode(paths[i])), paths[i]))
        outside = set(ordered[::5]) if len(ordered) > 1 else set()
        chosen += [int(i) for i in members if (i in outside) == held_out]
    if not chosen:
        raise UserError(f"{samples.root}: no class has two clips, so none can be held out; add a val/ folder")
    segment = "every fifth clip" if held_out else "without every fifth clip, which is held out"
    return Samples(
        PackedStrings([paths[i] for i in chosen]),
        samples.labels[chosen],
        samples.classes,
        samples.root,
        f"{samples.source} ({segment})",
    )

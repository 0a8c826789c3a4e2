"""Annotation files in the form in which the authors of data sets publish them.

The files may be in the folder of the data set or in a folder below it. Videos may have one of a few usual
layouts; the first rows of the file determine which one.

    Kinetics               train.csv, val.csv (label, youtube_id, time_start, time_end, split)
    ActivityNet            activity_net*.json: every annotated interval is a sample
    Something-Something    something-something-v1-train.csv, …-v2-train.json, labels/train.json
    Jester                 jester-v1-train.csv
    Diving48               Diving48_V2_train.json, Diving48_V2_test.json
    UCF101                 trainlist01.txt, testlist01.txt (the first of three splits)
    HMDB51                 <class>_test_split1.txt (the first of three splits)
"""

import csv
import io
import math
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mmaction_lite.data.annotations.columns import column_name
from mmaction_lite.data.annotations.layouts import locate
from mmaction_lite.data.annotations.rows import Rows
from mmaction_lite.data.annotations.text_files import check_rows, load_json, read_text, split_lines
from mmaction_lite.errors import UserError, printable, reading

HEADER_CHARACTERS = 10_000


def read_published(data: Path, split: str) -> Rows | None:
    """Read a split of a published data set.

    Args:
        data: folder of the data set.
        split: name of the split as published: train, val, validation or test.

    Returns:
        the rows; None if the folder has no known annotation file for this split.

    Raises:
        UserError: a file has a known name and unexpected contents.
    """
    for reader in (_kinetics, _activitynet, _something, _diving48, _ucf101, _hmdb51):
        with reading(data):
            rows = reader(data, split)
        if rows is not None and len(rows):
            return rows
    return None


def is_kinetics(file: Path) -> bool:
    """Whether a .csv file has the columns of Kinetics' annotation files.

    Raises:
        UserError: the file cannot be read.
    """
    header = next(iter(read_text(file, keeps_bytes=True)[:HEADER_CHARACTERS].splitlines()), "")
    return {"label", "youtube_id", "time_start", "time_end"} <= {
        column_name(name.strip('"')) for name in header.split(",")
    }


def _kinetics(data: Path, split: str) -> Rows | None:
    file = _find(data, rf"(kinetics.*_)?{split}\.csv")
    if file is None or not is_kinetics(file):
        return None
    rows = Rows(file, data)
    rows.are_names = True
    with reading(file):
        text = read_text(file)
        check_rows(text.count("\n"), file)
        listed = csv.DictReader(io.StringIO(text, newline=""))
        listed.fieldnames = [column_name(name) for name in listed.fieldnames or ()]
        for row in _csv_rows(listed, file):
            place = f"{file}:{listed.line_num}"
            try:
                times = f"{int(row['time_start']):06d}_{int(row['time_end']):06d}"
            except (TypeError, ValueError):
                shown = [printable(str(value), 60) for value in list(row.values())[:10]]
                raise UserError(
                    f"{place}: lacks a time: {shown}; expected whole seconds as time_start and time_end"
                ) from None
            if not row["label"] or not row["youtube_id"] or None in row:
                raise UserError(
                    f"{place}: lacks a label or a youtube_id, or has cells without a column; put names that "
                    "contain commas in double quotes"
                )
            rows.add(f"{row['youtube_id']}_{times}", row["label"], listed.line_num)
    folders = (split, f"videos_{split}")
    return locate(
        rows,
        [
            *(f"{folder}/{label}/{{key}}" for label in ("{label}", "{label_}") for folder in (*folders, ".")),
            *(f"{folder}/{{key}}" for folder in (*folders, "videos", ".")),
        ],
        ".mp4",
    )


def _csv_rows(reader: csv.DictReader, file: Path) -> Iterator[dict[str, Any]]:
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(f"{file}:{reader.line_num}: {printable(str(error), 100)}") from None


def _activitynet(data: Path, split: str) -> Rows | None:
    file = _find(data, r"activity_?net.*\.json")
    subset = {"train": "training", "val": "validation"}.get(split, split)
    if file is None:
        return None
    with reading(file):
        content = load_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise UserError(f"{file}: has no 'database'; expected ActivityNet's JSON file")
    rows = Rows(file, data)
    rows.are_names = True
    for key, video in content["database"].items():
        place = f"{file}: video {printable(key, 60)!r}"
        annotations = video.get("annotations", ()) if isinstance(video, dict) else None
        if not isinstance(annotations, list | tuple):
            raise UserError(f"{place}: lacks a list of annotations; expected ActivityNet's JSON file")
        for annotation in annotations if video.get("subset") == subset else ():
            start, end, label = _interval(annotation, place)
            if start < end:  # a few published intervals are empty
                rows.add(key, label, 1, segment=(start, end))
    folders = (subset, split, "videos", f"v1-3/{split}", ".")
    return locate(rows, [f"{folder}/{name}" for folder in folders for name in ("v_{key}", "{key}")], ".mp4")


def _interval(annotation: Any, place: str) -> tuple[float, float, str]:
    """Return start, end and label of an annotation of ActivityNet."""
    try:
        start, end = map(float, annotation["segment"])
        label = annotation["label"]
    except (TypeError, ValueError, KeyError, OverflowError):
        label = start = end = None
    if not isinstance(label, str) or start is None or end is None or not 0 <= start < math.inf or end != end:
        raise UserError(
            f"{place}: an annotation is {printable(str(annotation), 100)}; expected a segment of two times "
            "in seconds, and a label"
        )
    return start, end, label


def _something(data: Path, split: str) -> Rows | None:
    segment = "validation" if split == "val" else split
    name = rf"(something-something-v\d|jester-v1)-{segment}\.(csv|json)"
    file = _find(data, name)
    if file is None:
        file = _find(data / "labels", rf"{segment}\.json")
        if file is None or '"template"' not in read_text(file, keeps_bytes=True)[:HEADER_CHARACTERS]:
            return None
    rows = Rows(file, data)
    rows.are_names = True
    if file.suffix.lower() == ".csv":
        for number, line in enumerate(split_lines(read_text(file), file), 1):
            key, semicolon, label = line.partition(";")
            if line.strip() and (not semicolon or not label.strip() or not key.strip()):
                raise UserError(f"{file}:{number}: {printable(line, 200)!r}; expected 'number;label'")
            if line.strip():
                rows.add(key.strip(), label.strip(), number)
    else:
        for number, (key, template) in _objects(file, id=str | int, template=str):
            rows.add(key, re.sub(r"[\[\]]", "", template), number)
    folders = ("20bn-something-something-v2", "20bn-something-something-v1", "20bn-jester-v1", "videos", ".")
    return locate(rows, [f"{folder}/{{key}}" for folder in folders], ".webm")


def _diving48(data: Path, split: str) -> Rows | None:
    file = _find(data, rf"Diving48(_V2)?_{split}\.json")
    if file is None:
        return None
    rows = Rows(file, data)
    for number, (key, label) in _objects(file, vid_name=str, label=str | int):
        rows.add(key, label, number)
    return locate(rows, [f"{folder}/{{key}}" for folder in ("rgb", "videos", ".")], ".mp4")


def _ucf101(data: Path, split: str) -> Rows | None:
    file = _find(data, rf"{split}list01\.txt") if split in ("train", "test") else None
    if file is None:
        return None
    rows = Rows(file, data)
    rows.are_names = True
    for number, line in enumerate(split_lines(read_text(file), file), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(\S+)[/\\](\S+)\.avi(\s+\d+)?\s*", line)
        if match is None:
            raise UserError(f"{file}:{number}: {printable(line, 200)!r}; expected 'Class/video.avi'")
        rows.add(f"{match[1]}/{match[2]}", match[1], number)
    return locate(rows, [f"{folder}/{{key}}" for folder in ("UCF-101", "videos", ".")], ".avi")


def _hmdb51(data: Path, split: str) -> Rows | None:
    wanted = {"train": "1", "test": "2"}.get(split)
    files = list(_files(data, r".+_test_split1\.txt")) if wanted else []
    if not files:
        return None
    rows = Rows(files[0].parent, data)
    rows.are_names = True
    for file in sorted(files):
        label = file.name.removesuffix("_test_split1.txt")
        for number, line in enumerate(split_lines(read_text(file), file), 1):
            match = re.fullmatch(r"(.+)\.avi\s+([012])\s*", line)
            if line.strip() and match is None:
                raise UserError(
                    f"{file}:{number}: {printable(line, 200)!r}; expected 'video.avi' and 0, 1 or 2"
                )
            if match and match[2] == wanted:
                rows.add(f"{label}/{match[1].strip()}", label, number)
    return locate(rows, [f"{folder}/{{key}}" for folder in ("videos", "hmdb51_org", ".")], ".avi")


def _find(folder: Path, pattern: str) -> Path | None:
    return next(_files(folder, pattern), None)


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield files whose name matches `pattern`, in a folder and in the annotation folders below it."""
    if not folder.is_dir():
        return
    below = (entry for entry in sorted(folder.iterdir()) if entry.is_dir() and _holds_annotations(entry))
    for place in chain((folder,), below):
        for entry in sorted(place.iterdir()):
            if re.fullmatch(pattern, entry.name, re.IGNORECASE) and entry.is_file():
                yield entry


def _holds_annotations(folder: Path) -> bool:
    return bool(re.search(r"annotation|label|split|list|kinetics", folder.name, re.IGNORECASE))


def _objects(file: Path, **types: Any) -> Iterator[tuple[int, list[str]]]:
    """Yield number and values of each object in a JSON list, as text.

    Args:
        file: the JSON file.
        types: keys of the values, and their types.

    Raises:
        UserError: an entry is no object, or a value has another type.
    """
    with reading(file):
        content = load_json(file)
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        if not isinstance(row, dict) or not row.keys() >= set(types):
            raise UserError(f"{file}: entry {number} lacks {' or '.join(types)}")
        for key, kind in types.items():
            if not isinstance(row[key], kind) or isinstance(row[key], bool):
                shown = printable(repr(row[key]), 60)
                raise UserError(f"{file}: entry {number} has {shown} as {key}; expected text")
        yield number, [str(row[key]) for key in types]

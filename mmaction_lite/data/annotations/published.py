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
import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mmaction_lite.data.annotations.rows import Rows
from mmaction_lite.errors import UserError

PROBED_ROWS = 200


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
        rows = reader(data, split)
        if rows is not None and len(rows):
            return rows
    return None


def is_kinetics(file: Path) -> bool:
    """Whether a .csv file has the columns of Kinetics' annotation files."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        return {"label", "youtube_id", "time_start", "time_end"} <= set(next(lines, "").strip().split(","))


def _kinetics(data: Path, split: str) -> Rows | None:
    file = _find(data, rf"(kinetics.*_)?{split}\.csv")
    if file is None or not is_kinetics(file):
        return None
    rows = Rows(file, data)
    with file.open(encoding="utf-8", newline="") as text:
        listed = csv.DictReader(text)
        for row in listed:
            try:
                times = f"{int(row['time_start']):06d}_{int(row['time_end']):06d}"
            except (TypeError, ValueError):
                raise UserError(f"{file}:{listed.line_num}: lacks a time: {list(row.values())}") from None
            rows.add(f"{row['youtube_id']}_{times}", row["label"], listed.line_num)
    return _located(
        rows,
        [
            *(f"{folder}/{{label}}/{{key}}.mp4" for folder in (split, f"videos_{split}", ".")),
            *(f"{folder}/{{label_}}/{{key}}.mp4" for folder in (split, f"videos_{split}", ".")),
            *(f"{folder}/{{key}}.mp4" for folder in (split, f"videos_{split}", "videos", ".")),
        ],
    )


def _activitynet(data: Path, split: str) -> Rows | None:
    file = _find(data, r"activity_?net.*\.json")
    subset = {"train": "training", "val": "validation"}.get(split, split)
    if file is None:
        return None
    content = _load(file)
    if not isinstance(content, dict) or not isinstance(content.get("database"), dict):
        raise UserError(f"{file}: has no 'database'; expected ActivityNet's JSON file")
    rows = Rows(file, data)
    for key, video in content["database"].items():
        for annotation in video.get("annotations", ()) if video.get("subset") == subset else ():
            start, end = annotation["segment"]
            if start < end:  # a few published intervals are empty
                rows.add(key, annotation["label"], 1, segment=(float(start), float(end)))
    folders = (subset, split, "videos", f"v1-3/{split}", ".")
    names = ("v_{key}.mp4", "{key}.mp4", "v_{key}.mkv", "v_{key}.webm")
    return _located(rows, [f"{folder}/{name}" for folder in folders for name in names])


def _something(data: Path, split: str) -> Rows | None:
    segment = "validation" if split == "val" else split
    name = rf"(something-something-v\d|jester-v1)-{segment}\.(csv|json)"
    file = _find(data, name)
    if file is None:
        file = _find(data / "labels", rf"{segment}\.json")
        if file is None or '"template"' not in file.read_text(encoding="utf-8")[:10_000]:
            return None
    rows = Rows(file, data)
    if file.suffix == ".csv":
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            key, semicolon, label = line.partition(";")
            if line.strip() and (not semicolon or not label.strip()):
                raise UserError(f"{file}:{number}: {line!r}; expected 'number;label'")
            if line.strip():
                rows.add(key, label.strip(), number)
    else:
        for number, row in enumerate(_objects(file, "id", "template"), 1):
            rows.add(str(row["id"]), re.sub(r"[\[\]]", "", row["template"]), number)
    folders = ("20bn-something-something-v2", "20bn-something-something-v1", "20bn-jester-v1", "videos", ".")
    return _located(
        rows, [f"{folder}/{{key}}{suffix}" for folder in folders for suffix in (".webm", ".mp4", "")]
    )


def _diving48(data: Path, split: str) -> Rows | None:
    file = _find(data, rf"Diving48(_V2)?_{split}\.json")
    if file is None:
        return None
    rows = Rows(file, data)
    for number, row in enumerate(_objects(file, "vid_name", "label"), 1):
        rows.add(row["vid_name"], str(row["label"]), number)
    return _located(rows, [f"{folder}/{{key}}.mp4" for folder in ("rgb", "videos", ".")])


def _ucf101(data: Path, split: str) -> Rows | None:
    file = _find(data, rf"{split}list01\.txt") if split in ("train", "test") else None
    if file is None:
        return None
    rows = Rows(file, data)
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(\S+)/(\S+\.avi)(\s+\d+)?\s*", line)
        if match is None:
            raise UserError(f"{file}:{number}: {line!r}; expected 'Class/video.avi'")
        rows.add(f"{match[1]}/{match[2]}", match[1], number)
    return _located(rows, [f"{folder}/{{key}}" for folder in ("UCF-101", "videos", ".")])


def _hmdb51(data: Path, split: str) -> Rows | None:
    wanted = {"train": "1", "test": "2"}.get(split)
    files = list(_files(data, r".+_test_split1\.txt")) if wanted else []
    if not files:
        return None
    rows = Rows(files[0].parent, data)
    for file in sorted(files):
        label = file.name.removesuffix("_test_split1.txt")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            match = re.fullmatch(r"(.+\.avi)\s+([012])\s*", line)
            if line.strip() and match is None:
                raise UserError(f"{file}:{number}: {line!r}; expected 'video.avi' and 0, 1 or 2")
            if match and match[2] == wanted:
                rows.add(f"{label}/{match[1]}", label, number)
    return _located(rows, [f"{folder}/{{key}}" for folder in ("videos", "hmdb51_org", ".")])


def _located(rows: Rows, layouts: Sequence[str]) -> Rows:
    """Return `rows` with their paths in the layout in which one of the first videos is found.

    Args:
        rows: rows whose paths are keys of videos.
        layouts: formats of a path with `{key}`, `{label}` and `{label_}` (underscores instead of spaces). The
            first one is used if no video is found.
    """

    def path(layout: str, key: str, label: str) -> str:
        return layout.format(key=key, label=label, label_=label.replace(" ", "_"))

    probed = list(zip(rows.paths, rows.labels, strict=True))[:PROBED_ROWS]
    layout = layouts[0]
    for candidate in layouts:
        if any((rows.root / path(candidate, key, label)).exists() for key, label in probed):
            layout = candidate
            break
    rows.paths = [
        str(Path(path(layout, key, label))) for key, label in zip(rows.paths, rows.labels, strict=True)
    ]
    return rows


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


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: is not JSON ({error})") from None


def _objects(file: Path, *keys: str) -> Iterator[dict[str, Any]]:
    content = _load(file)
    for number, row in enumerate(content if isinstance(content, list) else [content], 1):
        if not isinstance(row, dict) or not row.keys() >= set(keys):
            raise UserError(f"{file}: entry {number} lacks {' or '.join(keys)}")
        yield row

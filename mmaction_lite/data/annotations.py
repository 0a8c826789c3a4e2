"""Class folders and list files to one table of samples.

What a user may pass as `--data`:

    data/train/<class>/<clip>     class folders per split; a clip is a video file or a folder of JPEG frames
    data/<class>/<clip>           class folders without splits: every fifth clip of a class is held out
    data/train.txt                a list file per split, one `path label` a line (see `read_list`)
    data/train.csv                a table per split, with a header that names `path` and `label`
    some_list.txt                 a single list file or table, for testing
"""

import csv
import os
import re
import shlex
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mmaction_lite.errors import MissingSplitError, UserError, nearest

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
LIST_SUFFIXES = (".txt", ".csv", ".tsv")
MOST_CLASSES = 100_000
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class Samples:
    """A table of clips: path and class of each, in packed arrays.

    Python objects are copied page by page into every worker as their reference counts change; arrays are
    not, so the table costs its bytes once for any number of workers and rows.

    Args:
        paths: the paths as listed, relative to `root` or absolute.
        labels: class index per clip, int64 (N,).
        classes: class names, in index order.
        root: folder that relative paths start from.
        source: where the table comes from, in words, for messages and protocol lines.
    """

    paths: "PackedStrings"
    labels: np.ndarray
    classes: tuple[str, ...]
    root: Path
    source: str

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, sample: int) -> Path:
        """Where clip number `sample` lies."""
        return self.root / self.paths[sample]

    def counts(self) -> np.ndarray:
        """Clips per class, int64 (len(classes),)."""
        return np.bincount(self.labels, minlength=len(self.classes))


class PackedStrings:
    """A sequence of strings in two arrays: all bytes end to end, and where each one ends."""

    def __init__(self, strings: Sequence[str]):
        encoded = [os.fsencode(string) for string in strings]
        self.bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self.ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        end = int(self.ends[index])
        start = int(self.ends[index - 1]) if index % len(self) else 0
        return os.fsdecode(self.bytes[start:end].tobytes())


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
    """A list file: one clip a line, `path label`, or `folder total_frames label` for JPEG folders.

    Paths are relative to the list file's folder and may contain spaces, or stand in double quotes. Labels
    are all class names or all 0-based numbers; numbers get their names from `classes.txt` beside the list
    file (one name a line). Empty lines and lines that begin with # are skipped. A `.csv` or `.tsv` file
    has a header instead, which names the columns `path` and `label`; others are ignored.

    Raises:
        UserError: names file and line.
    """
    if file.suffix in (".csv", ".tsv"):
        return _read_table(file, classes)
    lines = _read_text(file).splitlines()
    paths: list[str] = []
    labels: list[str] = []
    numbers: list[int] = []
    counted: bool | None = None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        path, label = _split_line(line, f"{file}:{number}")
        # `folder total_frames label` and a path with a space look alike: the first line decides.
        match = re.fullmatch(r"(.+)\s+\d+", path)
        if counted is None:
            counted = match is not None and (file.parent / match[1]).is_dir()
        if counted:
            if match is None:
                raise UserError(
                    f"{file}:{number}: {line!r} lacks a frame count; expected 'folder total_frames label'"
                )
            path = match[1]
        paths.append(path)
        labels.append(label)
        numbers.append(number)
    if not paths:
        raise UserError(f"{file}: has no samples; expected one 'path label' a line")
    names, indices = _resolve_labels(labels, numbers, file, classes)
    return Samples(PackedStrings(paths), indices, names, file.parent, str(file))


def _read_table(file: Path, classes: Sequence[str] | None) -> Samples:
    rows = csv.DictReader(_read_text(file).splitlines(), delimiter="\t" if file.suffix == ".tsv" else ",")
    if not {"path", "label"} <= set(rows.fieldnames or ()):
        raise UserError(f"{file}:1: the header names {rows.fieldnames}; expected the columns path and label")
    paths: list[str] = []
    labels: list[str] = []
    numbers: list[int] = []
    for row in rows:
        if not row["path"] or not row["label"]:
            raise UserError(f"{file}:{rows.line_num}: lacks a path or a label: {list(row.values())}")
        paths.append(row["path"].strip())
        labels.append(row["label"].strip())
        numbers.append(rows.line_num)
    if not paths:
        raise UserError(f"{file}: has no samples below its header")
    names, indices = _resolve_labels(labels, numbers, file, classes)
    return Samples(PackedStrings(paths), indices, names, file.parent, str(file))


def read_classes(file: Path) -> tuple[str, ...]:
    """Class names in index order, one a line."""
    return tuple(name.strip() for name in _read_text(file).splitlines() if name.strip())


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not a UTF-8 text file ({error.reason})") from None


def _split_line(line: str, place: str) -> tuple[str, str]:
    if line.lstrip().startswith('"'):
        try:
            parts = shlex.split(line)
        except ValueError as error:
            raise UserError(f"{place}: {line!r}: {error}; expected '\"path\" label'") from None
        parts = [parts[0], " ".join(parts[1:])] if len(parts) > 1 else parts
    else:
        parts = line.rsplit(maxsplit=1)
    if len(parts) != 2:
        raise UserError(f"{place}: {line!r} has no label; expected 'path label'")
    return parts[0].strip(), parts[1]


def _resolve_labels(
    labels: list[str], numbers: list[int], file: Path, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Class names and one index per label; `numbers` are the line numbers, for messages."""
    listed = file.parent / "classes.txt"
    numbered = read_classes(listed) if listed.is_file() else classes
    if all(label.isdecimal() for label in labels):
        top, line = max((int(label), -number) for label, number in zip(labels, numbers, strict=True))
        count = MOST_CLASSES if numbered is None else len(numbered)
        if top >= count:
            raise UserError(
                f"{file}:{-line}: label {top} is out of range: there are {'at most ' * (numbered is None)}"
                f"{count} classes, numbered 0 to {count - 1}"
            )
        numbered = tuple(map(str, range(top + 1))) if numbered is None else tuple(numbered)
        if classes is None:
            return numbered, np.array(labels, np.int64)
        # The numbers are those of classes.txt, the indices those of the training split or the weights.
        labels = [numbered[int(label)] for label in labels]
    elif listed.is_file() and classes is None:
        classes = numbered
    names = tuple(sorted(set(labels)) if classes is None else classes)
    index = {name: i for i, name in enumerate(names)}
    for label, line in zip(labels, numbers, strict=True):
        if label not in index:
            raise UserError(
                f"{file}:{line}: class {label!r} is not among the {len(names)} known classes; "
                + nearest(label, names)
            )
    return names, np.array([index[label] for label in labels], np.int64)


def mirrored_classes(classes: Sequence[str]) -> np.ndarray:
    """The class that a clip of each class becomes when it is mirrored: int64 (len(classes),).

    A class is its own mirror image unless its name says a side: left and right change places, and so do
    clockwise and counterclockwise.

    Raises:
        UserError: a name says a side and there is no class for the other one.
    """
    index = {name: i for i, name in enumerate(classes)}
    for name in classes:
        if _mirrored_name(name) not in index:
            raise UserError(
                f"class {name!r} mirrored would be {_mirrored_name(name)!r}, which is not a class; "
                "train without mirroring: --set train.flip=0"
            )
    return np.array([index[_mirrored_name(name)] for name in classes], np.int64)


def _mirrored_name(name: str) -> str:
    swap = {"left": "right", "clockwise": "counterclockwise"}
    swap |= {other: side for side, other in swap.items()}
    return re.sub(
        r"(?<![a-z])(left|right|clockwise|counterclockwise)(?![a-z])", lambda match: swap[match[0]], name
    )


def _is_clip(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        with os.scandir(entry.path) as inside:
            return any(Path(file.name).suffix.lower() in IMAGE_SUFFIXES for file in inside)
    return Path(entry.name).suffix.lower() in VIDEO_SUFFIXES


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
    part = "every fifth clip" if held_out else "without every fifth clip, which is held out"
    return Samples(
        PackedStrings([paths[i] for i in chosen]),
        samples.labels[chosen],
        samples.classes,
        samples.root,
        f"{samples.source} ({part})",
    )

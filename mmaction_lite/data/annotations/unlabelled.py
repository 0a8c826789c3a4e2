"""Data sets without labels, for pre-training: lists of paths, folders of videos, or any labelled data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES, hold_out
from mmaction_lite.data.annotations.list_forms import is_there
from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.data.annotations.splits import SPLIT_NAMES, Split, read_split
from mmaction_lite.data.annotations.text_files import read_text, split_lines
from mmaction_lite.errors import UserError, reading

PROBED_LINES = 100  # of a list, to find out whether its lines are paths only


def read_unlabelled(data: str | Path, split: Split, classes: Sequence[str]) -> Samples:
    """Read one split of a data set without its labels; all clips get class 0 of `classes`.

    `data` may be

    * a folder with `train.txt`, one path per line, and `val.txt`; without the latter, every fifth clip is
      held out for the validation. A single list of paths is divided in the same way;
    * a folder of videos, in any depth, of which every fifth is held out;
    * any labelled data set that `read_split` accepts.

    Args:
        data: folder or list file.
        split: the split.
        classes: class names of the task.

    Raises:
        UserError: there is no data, or no video.
    """
    data = Path(data)
    with reading(data, advice="check the path and its permissions"):
        if not data.exists():
            raise UserError(f"{data}: no such file or folder; --data takes a folder or a list file")
        own, shared = _lists(data, split)
        samples = None
        if own is not None:
            samples = _of_paths(_lines(own), own.parent, str(own), classes)
        elif shared is not None:
            samples = _of_paths(_lines(shared), shared.parent, str(shared), classes)
        elif data.is_dir() and not _has_splits(data) and (paths := _videos(data)):
            samples = _of_paths(paths, data, str(data), classes)
        if samples is not None:
            return samples if own is not None else hold_out(samples, held_out=split != "train")
    samples = read_split(data, split)
    zeros = np.zeros(len(samples), np.int64)
    return replace(samples, labels=zeros, classes=tuple(classes), label_ends=None, label_columns=("label",))


def _lists(data: Path, split: Split) -> tuple[Path | None, Path | None]:
    """Return the list of paths of a split, or else the list that is divided into all splits."""
    if data.is_file():
        return None, data if _is_of_paths(data) else None
    found = {
        name: path
        for names in SPLIT_NAMES.values()
        for name in names
        if (path := data / f"{name}.txt").is_file() and _is_of_paths(path)
    }
    own = next((found[name] for name in SPLIT_NAMES[split] if name in found), None)
    is_only = len(found) == 1 and "train" in found
    return (None, found["train"]) if is_only else (own, None)


def _videos(folder: Path) -> list[str]:
    """Return the relative paths of all videos in a folder, in any depth and in alphabetical order."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _of_paths(paths: Sequence[str], root: Path, source: str, classes: Sequence[str]) -> Samples:
    return Samples(PackedStrings(paths), np.zeros(len(paths), np.int64), tuple(classes), root, source)


def _lines(file: Path) -> list[str]:
    """Return the lines of a list that are neither empty nor comments."""
    lines = (line.strip() for line in split_lines(read_text(file, keeps_bytes=True), file))
    return [line for line in lines if line and not line.startswith("#")]


def _is_of_paths(file: Path) -> bool:
    """Whether each of the first lines of a list is the path of a video, or a path that exists."""
    lines = _lines(file)[:PROBED_LINES]
    return bool(lines) and all(
        Path(line).suffix.lower() in VIDEO_SUFFIXES or is_there(line, file.parent) for line in lines
    )


def _has_splits(data: Path) -> bool:
    """Whether a folder holds lists or folders of splits."""
    names = {name for names in SPLIT_NAMES.values() for name in names}
    return any(path.stem.lower() in names for path in data.iterdir())

"""One split of a data set.

`--data` accepts these forms:

    data/train/<class>/<clip>     class folders per split; a clip is a video file or a folder of images
    data/<class>/<clip>           class folders without splits: every fifth clip of a class is held out
    data/train.txt                a list file per split, one `path label` per line (see `read_list`)
    data/train.csv                a table per split, with a header that names `path` and `label`;
                                  also .tsv, .jsonl and .parquet (see `read_table`)
    data/<published files>        as the authors of a data set publish them (see `read_published`)
    some_list.txt                 a single list file or table, for testing
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mmaction_lite.data.annotations.class_folders import hold_out, holds_clips, read_class_folders
from mmaction_lite.data.annotations.lists import LIST_SUFFIXES, read_list
from mmaction_lite.data.annotations.published import read_published
from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.errors import MissingSplitError, UserError, reading

Split = Literal["train", "val", "test"]
# Names under which a split is looked for, in this order. Many data sets publish no test labels.
SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "validation", "valid", "test"),
    "test": ("test", "testing", "val", "validation", "valid"),
}
SYNONYMS = (("train", "training"), ("val", "validation", "valid"), ("test", "testing"))
SUFFIXES = ("", *LIST_SUFFIXES)


def read_split(data: str | Path, split: Split, classes: Sequence[str] | None = None) -> Samples:
    """Read one split of a data set.

    Args:
        data: folder or list file, see the top of this module.
        split: the split; "test" falls back to the validation split of a data set without a test split.
        classes: class names of the training split or of the weights. None infers them, which is right for the
            training split alone.

    Raises:
        UserError: there is no data, a class is unknown, a label is out of range, or a line cannot be parsed.
    """
    with reading(data, advice="check the path and its permissions"):
        data = Path(data)
        is_missing = not data.exists()
    if is_missing:
        raise UserError(f"{data}: no such file or folder; --data takes a data set folder or a list file")
    if not data.is_dir():
        return read_list(data, classes)
    with reading(data, advice="check the permissions of the folder"):
        entries = _entries_by_name(data)
    for name in SPLIT_NAMES[split]:
        if (rows := read_published(data, name)) is not None:
            return rows.samples(classes)
    for name in SPLIT_NAMES[split]:
        (synonyms,) = (names for names in SYNONYMS if name in names)
        alike = [name, *(other for other in synonyms if other != name)]
        # Lists come before folders, in which their videos may be.
        lists = [path for other in alike for path in _lists(entries, other)]
        folders = [path for other in alike for path in _folders(entries, other)]
        if _lists(entries, name):
            return _read_first(lists, read_list, data, classes)
        if _folders(entries, name):
            return _read_first([*folders, *lists], read_class_folders, data, classes)
    names = {name for names in SPLIT_NAMES.values() for name in names}
    if any(f"{name}{suffix}" in entries for name in names for suffix in SUFFIXES):
        wanted = SPLIT_NAMES[split][0]
        raise MissingSplitError(
            f"{data}: has no {wanted} split; add {data / wanted}/ or {data / wanted}.txt "
            "(class folders without train/ above them have every fifth clip held out)"
        )
    samples = read_class_folders(data, classes)
    return hold_out(samples, held_out=split != "train")


def _read_first(
    found: list[Path],
    read: Callable[[Path, Sequence[str] | None], Samples],
    data: Path,
    classes: Sequence[str] | None,
) -> Samples:
    """Read the first of the lists and folders of a split; a note names the others."""
    first, *others = found
    samples = read(first, classes)
    if not others:
        return samples
    names = ", ".join(path.name for path in others)
    note = f"{data}: {first.name} is read, and not {names}, which names the same split"
    return replace(samples, notes=(*samples.notes, note))


def _lists(entries: dict[str, list[Path]], name: str) -> list[Path]:
    """Return the list files of a split with this name."""
    paths = [path for suffix in LIST_SUFFIXES for path in entries.get(f"{name}{suffix}", ())]
    return [path for path in paths if not path.is_dir()]


def _folders(entries: dict[str, list[Path]], name: str) -> list[Path]:
    """Return the folders of a split with this name."""
    return [path for path in entries.get(name, ()) if path.is_dir()]


def _entries_by_name(data: Path) -> dict[str, list[Path]]:
    """Return the files and folders of a folder by name in lower case, so that `Train/` is the split train.

    A folder with capitals that contains clips directly is the folder of a class, such as `Train` of vehicles.
    Of several entries of a name, the one in lower case comes first.
    """
    wanted = {f"{name}{suffix}" for names in SPLIT_NAMES.values() for name in names for suffix in SUFFIXES}
    names = sorted(name for name in os.listdir(data) if name.lower() in wanted)  # noqa: PTH208
    entries: dict[str, list[Path]] = {}
    for name in sorted(names, key=lambda name: name != name.lower()):
        path = data / name
        if name == name.lower() or not (path.is_dir() and holds_clips(path)):
            entries.setdefault(name.lower(), []).append(path)
    return entries

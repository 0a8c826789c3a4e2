"""Class folders: one folder of clips per class."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.errors import UserError, nearest

VIDEO_SUFFIXES = frozenset(
    ".mp4 .avi .mkv .mov .webm .m4v .mpg .mpeg .ts .mts .gif .flv .wmv .3gp .ogv".split()  # noqa: SIM905
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
HELD_OUT_INTERVAL = 5  # every fifth clip of a class is held out


def read_class_folders(folder: Path, classes: Sequence[str] | None = None) -> Samples:
    """Read a folder with one folder per class, named after the class, that holds videos or frame folders.

    Args:
        folder: the folder above the class folders.
        classes: known class names; None takes the names of the folders in alphabetical order.

    Raises:
        UserError: there is no clip, or a folder with clips is none of the known classes.
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


def hold_out(samples: Samples, *, held_out: bool) -> Samples:
    """Return the training part or the held-out part of class folders without splits.

    Within a class, clips are ordered by a hash of their names, and every fifth is held out, beginning with
    the first. The split is stratified, is the same on every machine, and holds out at least one clip of each
    class that has two.

    Args:
        samples: all clips, with one class each.
        held_out: whether to return the held-out part.

    Raises:
        UserError: the part is empty.
    """
    paths = [samples.paths[i] for i in range(len(samples))]
    chosen: list[int] = []
    for label in range(len(samples.classes)):
        members = np.flatnonzero(samples.labels == label)
        ordered = sorted(members, key=lambda i: (zlib.crc32(os.fsencode(paths[i])), paths[i]))
        outside = set(ordered[::HELD_OUT_INTERVAL]) if len(ordered) > 1 else set()
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


def _is_clip(entry: os.DirEntry[str]) -> bool:
    """Whether a file or folder is a video, a folder of images, or a zip file of images."""
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        with os.scandir(entry.path) as inside:
            return any(Path(file.name).suffix.lower() in IMAGE_SUFFIXES for file in inside)
    return Path(entry.name).suffix.lower() in VIDEO_SUFFIXES | {".zip"}

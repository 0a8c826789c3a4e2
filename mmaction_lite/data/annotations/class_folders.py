"""Class folders: one folder of clips per class."""

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmaction_lite.data.annotations.groups import choose_groups, groups_of_names
from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.errors import UserError, nearest

VIDEO_SUFFIXES = frozenset(
    ".mp4 .avi .mkv .mov .webm .m4v .mpg .mpeg .ts .mts .gif .flv .wmv .3gp .ogv".split()  # noqa: SIM905
)
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
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
    class that has two. If the names of the files have a published pattern of a data set whose clips were cut
    from the same recordings, whole groups of clips are held out instead; see `groups`.

    Args:
        samples: all clips, with one class each.
        held_out: whether to return the held-out part.

    Raises:
        UserError: the part is empty.
    """
    paths = [samples.paths[i] for i in range(len(samples))]
    groups = groups_of_names(paths, samples.labels)
    if groups is None:
        is_outside, unit, counts = _every_fifth_clip(samples, paths), "clip", ""
    else:
        is_outside, unit = choose_groups(samples.labels, groups.keys, HELD_OUT_INTERVAL), "group of clips"
        own = {key for key, is_own in zip(groups.keys, is_outside == held_out, strict=True) if is_own}
        counts = f": {len(own)} of {len(set(groups.keys))} groups, {groups.title}"
    chosen = np.flatnonzero(is_outside == held_out)
    if not len(chosen):
        what = "clips" if groups is None else "groups of clips"
        raise UserError(
            f"{samples.root}: no class has two {what}, so none can be held out; add a val/ folder"
        )
    part = f"every fifth {unit}" if held_out else f"without every fifth {unit}, which is held out"
    return Samples(
        PackedStrings([paths[i] for i in chosen]),
        samples.labels[chosen],
        samples.classes,
        samples.root,
        f"{samples.source} ({part}{counts})",
    )


def _every_fifth_clip(samples: Samples, paths: Sequence[str]) -> np.ndarray:
    """Return whether each clip is held out, bool (N,)."""
    is_outside = np.zeros(len(samples), bool)
    for label in range(len(samples.classes)):
        members = np.flatnonzero(samples.labels == label).tolist()
        ordered = sorted(members, key=lambda i: (zlib.crc32(os.fsencode(paths[i])), paths[i]))
        if len(ordered) > 1:
            is_outside[ordered[::HELD_OUT_INTERVAL]] = True
    return is_outside


def _is_clip(entry: os.DirEntry[str]) -> bool:
    """Whether a file or folder is a video, a folder of images, or a zip file of images."""
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        with os.scandir(entry.path) as inside:
            return any(Path(file.name).suffix.lower() in IMAGE_SUFFIXES for file in inside)
    return Path(entry.name).suffix.lower() in VIDEO_SUFFIXES | {".zip"}

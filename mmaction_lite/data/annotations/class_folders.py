"""Class folders: one folder of clips per class."""

import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmaction_lite.data.annotations.classes import ClassIndex, check_class_name, class_name
from mmaction_lite.data.annotations.groups import choose_groups, groups_of_names
from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.errors import UserError, printable, reading

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
        UserError: there is no clip, a folder with clips is none of the known classes, or the name of a folder
            cannot be the name of a class.
    """
    with reading(folder, advice="check the permissions of the folders"):
        found, beside = _scan(folder)
    names: dict[str, str] = {}
    for entry in found:
        name = entry.class_name
        check_class_name(name, str(folder / printable(entry.name)))
        if name in names:
            raise UserError(
                f"{folder}: the folders '{printable(names[name], 60)}' and '{printable(entry.name, 60)}' "
                "have the same class name; move the clips into one of them"
            )
        names[name] = entry.name
    index = ClassIndex(sorted(names) if classes is None else classes)
    paths: list[str] = []
    labels: list[int] = []
    for entry in sorted(found, key=lambda entry: entry.class_name):
        if entry.clips:
            label = index.find(entry.class_name, lambda entry=entry: str(folder / printable(entry.name)))
            paths += [f"{entry.name}/{clip}" for clip in entry.clips]
            labels += [label] * len(entry.clips)
    notes = tuple(_folder_notes(folder, found, beside))
    if not paths:
        raise UserError(
            f"{folder}: found no clips; expected <class>/<video file> or <class>/<folder of .jpg frames>"
            + "".join(f" ({note.removeprefix(f'{folder}: ')})" for note in notes[:1])
        )
    return Samples(
        PackedStrings(paths), np.array(labels, np.int64), index.names, folder, str(folder), notes=notes
    )


@dataclass(frozen=True)
class _ClassFolder:
    """Contents of a class folder.

    Args:
        name: name of the folder.
        clips: names of the clips in it, in alphabetical order.
        skipped: names of folders that are no clips, because they contain no image.
        num_images: number of images directly in the folder.
    """

    name: str
    clips: list[str]
    skipped: list[str]
    num_images: int

    @property
    def class_name(self) -> str:
        """The name of the class: the bytes of the folder's name as UTF-8, whatever the locale is."""
        return class_name(os.fsencode(self.name).decode("utf-8", "surrogateescape"))


def _scan(folder: Path) -> tuple[list[_ClassFolder], list[str]]:
    """Return the class folders of a folder in alphabetical order, and the names of clips beside them."""
    found, beside = [], []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            beside += [entry.name] if _is_clip(entry) else []
            continue
        inside = [inner for inner in os.scandir(entry.path) if not inner.name.startswith(".")]
        clips = sorted(inner.name for inner in inside if _is_clip(inner))
        folders = {inner.name for inner in inside if inner.is_dir()}
        images = sum(_suffix(inner.name) in IMAGE_SUFFIXES for inner in inside)
        found.append(_ClassFolder(entry.name, clips, sorted(folders - set(clips)), images))
    return found, beside


def _folder_notes(folder: Path, found: Sequence[_ClassFolder], beside: Sequence[str]) -> Iterator[str]:
    """Yield a note for each kind of file or folder that is skipped."""
    if beside:
        yield (
            f"{folder}: {len(beside)} clips beside the class folders are skipped, such as "
            f"{printable(beside[0], 60)}; move them into the folder of their class"
        )
    deeper = [f"{entry.name}/{name}" for entry in found for name in entry.skipped]
    if deeper:
        yield (
            f"{folder}: {len(deeper)} folders inside class folders contain no image and are skipped, such as "
            f"{printable(deeper[0], 60)}; clips must be directly in the folder of their class"
        )
    with_images = [entry for entry in found if entry.num_images]
    if with_images:
        count = sum(entry.num_images for entry in with_images)
        yield (
            f"{folder}: {count} images directly in {len(with_images)} class folders are skipped, such as "
            f"those of {printable(with_images[0].name, 60)}; each clip needs a folder for its images"
        )
    empty = [entry.name for entry in found if not entry.clips]
    if empty and len(empty) < len(found):
        shown = ", ".join(printable(name, 60) for name in empty[:5])
        yield f"{folder}: {len(empty)} folders contain no clip: {shown}{', …' if len(empty) > 5 else ''}"


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
        notes=samples.notes,
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


def holds_clips(folder: Path) -> bool:
    """Whether a folder contains a clip directly, as the folder of a class does."""
    with os.scandir(folder) as entries:
        return any(map(_is_clip, entries))


def _is_clip(entry: os.DirEntry[str]) -> bool:
    """Whether a file or folder is a video, a folder of images, or a zip file of images."""
    if entry.name.startswith("."):
        return False
    if entry.is_dir():
        with os.scandir(entry.path) as inside:
            return any(_suffix(file.name) in IMAGE_SUFFIXES for file in inside if file.name[0] != ".")
    return _suffix(entry.name) in VIDEO_SUFFIXES or _suffix(entry.name) == ".zip"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  Path.suffix takes ten times as long

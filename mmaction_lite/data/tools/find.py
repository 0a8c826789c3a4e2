"""Find the clips that a path on the command line stands for."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.annotations.samples import is_remote
from mmaction_lite.data.sources.frames import IMAGES
from mmaction_lite.errors import UserError, printable


def find_clips(paths: Iterable[Path]) -> list[Path]:
    """Return the clips that paths stand for, in the order of the paths, without duplicates.

    A path is a video file, a folder of frames, a folder that contains such clips at any depth, or a pattern
    such as `clips/*.mp4`. A pattern of images, such as `clip/left_*.jpg`, is one clip. Clips of a folder or a
    pattern are in alphabetical order. Hidden files, and files in a folder that have no suffix of a video, are
    not clips.

    Raises:
        UserError: a folder contains no clip, or a pattern matches nothing.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            clips = list(_clips_in(path, set()))
            if not clips:
                raise UserError(
                    f"{printable(str(path))}: found no clips; expected video files, or folders of frames"
                )
        elif path.suffix.lower() not in IMAGES and not os.path.lexists(path) and _is_pattern(path):
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
            clips = [clip for match in matches for clip in _each(match)]
            if not clips:
                raise UserError(f"{printable(str(path))}: no clip matches this pattern")
        else:
            clips = [path]
        found |= dict.fromkeys(clips)
    return list(found)


def _is_pattern(path: Path) -> bool:
    return not is_remote(path) and glob.has_magic(str(path))


def _each(match: str) -> Iterator[Path]:
    """Yield the clips of one match of a pattern."""
    path = Path(match)
    yield from _clips_in(path, set()) if path.is_dir() else [path]


def _clips_in(folder: Path, above: set[Path]) -> Iterator[Path]:
    """Yield the clips in a folder at any depth; `above` are the folders that contain it."""
    place = folder.resolve()
    if place in above:  # a loop of links
        return
    entries = sorted((entry for entry in folder.iterdir() if entry.name[0] != "."), key=lambda e: e.name)
    if any(entry.suffix.lower() in IMAGES for entry in entries):
        yield folder
        return
    for entry in entries:
        if entry.is_dir():
            yield from _clips_in(entry, above | {place})
        elif entry.suffix.lower() in VIDEO_SUFFIXES | {".zip"}:
            yield entry

"""Find the clips that a path on the command line stands for."""

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.sources.frames import IMAGES
from mmaction_lite.data.sources.shards import is_packed
from mmaction_lite.errors import UserError, printable, reading


def find_clips(paths: Iterable[Path]) -> list[Path]:
    """Return the clips that paths stand for, in the order of the paths, without duplicates.

    A path is a video file, a folder of frames, a folder that contains such clips at any depth, or a pattern
    such as `clips/*.mp4`. A pattern that matches images only, such as `clip/left_*.jpg`, is one clip. Clips
    of a folder or a pattern are in alphabetical order. Hidden files, images beside the matched clips, and
    files in a folder that have no suffix of a video are not clips.

    Raises:
        UserError: a folder contains no clip, or as many videos as images; or a pattern matches nothing.
    """
    found: dict[Path, None] = {}
    for path in paths:
        with reading(printable(str(path)), advice="check the path and its permissions"):
            found |= dict.fromkeys(_clips_of(path))
    return list(found)


def _clips_of(path: Path) -> list[Path]:
    """Return the clips that one path stands for."""
    if path.is_dir():
        clips = list(_clips_in(path, set()))
        if not clips:
            raise UserError(
                f"{printable(str(path))}: found no clips; expected video files, or folders of frames"
            )
        return clips
    if _is_image(path) or os.path.lexists(path) or is_packed(path) or not glob.has_magic(str(path)):
        return [path]
    matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
    if matches and all(map(_is_image, matches)):  # frames, as in `clip/img_*.*`
        return [path]
    clips = [clip for match in matches if not _is_image(match) for clip in _each(match)]
    if not clips:
        raise UserError(
            f"{printable(str(path))}: no clip matches this pattern; expected videos or folders of frames"
        )
    return clips


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGES


def _each(match: Path) -> Iterator[Path]:
    """Yield the clips of one match of a pattern."""
    yield from _clips_in(match, set()) if match.is_dir() else [match]


def _clips_in(folder: Path, above: set[Path]) -> Iterator[Path]:
    """Yield the clips in a folder at any depth; `above` are the folders that contain it.

    Raises:
        UserError: the folder contains images and as many videos, so it is ambiguous which are the clips.
    """
    place = folder.resolve()
    if place in above:  # a loop of links
        return
    entries = sorted((entry for entry in folder.iterdir() if entry.name[0] != "."), key=lambda e: e.name)
    if num_images := sum(map(_is_image, entries)):
        num_videos = sum(entry.suffix.lower() in VIDEO_SUFFIXES for entry in entries)
        if num_videos >= num_images:
            shown = printable(str(folder))
            raise UserError(
                f"{shown}: contains {num_videos} videos and {num_images} images; expected videos, or the "
                f"frames of one clip. Pass a pattern, such as '{shown}/*.mp4' or '{shown}/*.jpg'"
            )
        yield folder
        return
    for entry in entries:
        if entry.is_dir():
            yield from _clips_in(entry, above | {place})
        elif entry.suffix.lower() in VIDEO_SUFFIXES | {".zip"}:
            yield entry

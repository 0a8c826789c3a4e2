"""Places of the videos of published data sets: their folders, and suffixes other than the published one."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.annotations.rows import Rows

PROBED_ROWS = 200


def locate(rows: Rows, layouts: Sequence[str], suffix: str) -> Rows:
    """Return `rows` with their paths in the layout in which one of the first videos is found.

    A video may have any suffix of a video, also twice, or be a folder of frames without a suffix.

    Args:
        rows: rows whose paths are keys of videos.
        layouts: formats of a path without its suffix, with `{key}`, `{label}` and `{label_}` (underscores
            instead of spaces). The first one is used if no video is found.
        suffix: suffix of the published videos, for those that are not found.
    """
    files = lru_cache(maxsize=None)(_files_by_key)

    def find(layout: str, key: str, label: str) -> tuple[str, bool]:
        stem = layout.format(key=key, label=label, label_=label.replace(" ", "_"))
        folder, _, name = stem.rpartition("/")
        listed = files(rows.root / folder)
        found = listed.get(name + suffix) or listed.get(name)
        return str(Path(folder, found or name + suffix)), found is not None

    pairs = list(zip(rows.paths, rows.labels, strict=True))
    layout = layouts[0]
    for candidate in layouts:
        if any(find(candidate, key, label)[1] for key, label in pairs[:PROBED_ROWS]):
            layout = candidate
            break
    rows.paths = [find(layout, key, label)[0] for key, label in pairs]
    return rows


def _files_by_key(folder: Path) -> dict[str, str]:
    """Return the files and folders in a folder, by name, and by name without the suffix of a video."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  Path.iterdir takes twice as long
    except (OSError, ValueError):
        return {}
    found = {name: name for name in names}
    for name in names:
        stem = name
        # Downloaders that are given a name with a suffix may add a second one: .mp4.webm.
        for _ in range(2):
            stem, suffix = os.path.splitext(stem)  # noqa: PTH122
            if suffix.lower() not in (*VIDEO_SUFFIXES, ".zip"):
                break
            found.setdefault(stem, name)
    return found

"""Find the file that a listed path names: other Unicode forms, backslashes, and outer spaces."""

import os
import unicodedata
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

_TAR = ".tar/"


def find_path(path: str, root: Path) -> str:
    """Return the path under which a file exists, if a listed path does not exist but another form of it does.

    The other forms have the other Unicode normalization (NFC or NFD; names copied through macOS are in NFD),
    slashes in place of backslashes, or no spaces at the ends. A path of which no form exists is returned
    without spaces at the ends.

    Args:
        path: path as the annotation file lists it.
        root: folder that relative paths start from.
    """
    stripped = path.strip()
    if "://" in path or (stripped == path and "\\" not in path and _is_normal(path)):
        return stripped
    for form in dict.fromkeys(_forms(path)):
        if form and exists(form, root):
            return form
    return _find_parts(stripped.replace("\\", "/"), root) or stripped


def exists(path: str, root: Path) -> bool:
    """Whether a file or folder exists, or the tar file that contains it. Never raises an exception."""
    full = os.path.join(root, path)  # noqa: PTH118  Path removes a final slash
    if os.path.exists(full):  # noqa: PTH110  Path.exists raises an exception for names that are too long
        return True
    head, mark, _ = full.partition(_TAR)
    return is_frame_pattern(full) or (bool(mark) and os.path.isfile(head + _TAR[:-1]))  # noqa: PTH113


def is_frame_pattern(path: str) -> bool:
    """Whether a path is a pattern of images in an existing folder or zip file, such as `clip/left_*.jpg`."""
    folder, _, name = path.rpartition("/")
    if "*" not in name or os.path.exists(path):  # noqa: PTH110
        return False
    if folder.endswith(".zip") and os.path.isfile(folder):  # noqa: PTH113
        return not name[-1].isdigit()  # rather than frame numbers after the pattern
    try:
        return any(fnmatch(other, name) for other in os.listdir(folder or "."))  # noqa: PTH208
    except (OSError, ValueError):  # ValueError: no file can have this name
        return False


def _is_normal(path: str) -> bool:
    """Whether a path is the same in NFC and in NFD."""
    return path.isascii() or (
        unicodedata.is_normalized("NFC", path) and unicodedata.is_normalized("NFD", path)
    )


def _forms(path: str) -> Iterator[str]:
    """Yield a path and its other forms, the most similar first."""
    for text in (path, path.strip()):
        for separated in (text, text.replace("\\", "/")):
            yield separated
            yield unicodedata.normalize("NFC", separated)
            yield unicodedata.normalize("NFD", separated)


def _find_parts(path: str, root: Path) -> str | None:
    """Return the path of an existing file of which each part is in NFC or NFD; None if there is none."""
    found = "/" if path.startswith("/") else ""
    for part in filter(None, path.split("/")):
        forms = (found + form for form in (part, *(unicodedata.normalize(n, part) for n in ("NFC", "NFD"))))
        existing = next((form for form in forms if exists(form, root)), None)
        if existing is None:
            return None
        found = existing + "/"
    return found.rstrip("/") or None

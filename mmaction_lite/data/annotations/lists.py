"""List files: one `path label` per line."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.annotations.classes import read_text
from mmaction_lite.data.annotations.rows import Rows
from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.annotations.tables import TABLE_SUFFIXES, read_table
from mmaction_lite.errors import UserError

LIST_SUFFIXES = (".txt", *TABLE_SUFFIXES)
_VIDEO_THEN_LABEL = re.compile(
    r"\s*([^\"].*(?:" + "|".join(map(re.escape, sorted(VIDEO_SUFFIXES))) + r"))\s+(\S.*)", re.IGNORECASE
)


def read_list(file: Path, classes: Sequence[str] | None = None) -> Samples:
    """Read a list file with one clip per line, or a table if the suffix is that of one (see `read_table`).

    All lines of a list have the form of the first line:

        path label
        path label label label               several classes, by their numbers, in any line; videos only
        folder total_frames label            folders of images, as MMAction2 lists them
        folder offset total_frames label     a range of the frames in a folder that holds more

    Paths are relative to the folder of the list file. A path may contain spaces, and may be in double quotes.
    Labels are all class names or all 0-based numbers; `classes.txt` beside the list file names the classes of
    numbers, one name per line. Empty lines and lines that begin with # are skipped.

    Args:
        file: the list file.
        classes: known class names; None infers them.

    Raises:
        UserError: a line has another form, or a class is unknown. The message names file and line.
    """
    if file.suffix in TABLE_SUFFIXES:
        return read_table(file, classes)
    rows, numbers = Rows(file), None
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        path, label, is_video = _split_line(line, f"{file}:{number}")
        # `folder total_frames label` and a path with a space look alike: the first line determines the form.
        if numbers is None:
            numbers = 0 if is_video else _frame_numbers(path, file.parent)
            rows.segments_in_frames = numbers > 0
        if not numbers:
            if re.fullmatch(r"\d+(\s+\d+)+", label):
                rows.label_columns = ("labels",)
                rows.add(path, label.split(), number)
            else:
                rows.add(path, label, number)
            continue
        match = re.fullmatch(r"(.+?)\s+" + r"\s+".join([r"(\d+)"] * numbers), path)
        if match is None:
            expected = "folder total_frames label" if numbers == 1 else "folder offset total_frames label"
            raise UserError(f"{file}:{number}: {line!r} lacks a frame count; expected {expected!r}")
        first = int(match[2]) if numbers == 2 else 0
        rows.add(match[1], label, number, segment=(first, first + int(match[numbers + 1])))
    if not rows:
        raise UserError(f"{file}: has no samples; expected one 'path label' per line")
    return rows.samples(classes)


def _frame_numbers(path: str, folder: Path) -> int:
    """Return how many numbers follow a frame folder: 0, 1 (total) or 2 (offset and total)."""
    for numbers in (2, 1):
        match = re.fullmatch(r"(.+?)" + r"\s+\d+" * numbers, path)
        if match and (folder / match[1]).is_dir():
            return numbers
    return 0


def _split_line(line: str, place: str) -> tuple[str, str, bool]:
    """Return path, label, and whether the path is that of a video file.

    `place` is file and line, for error messages.
    """
    match = _VIDEO_THEN_LABEL.match(line)
    if line.lstrip().startswith('"'):
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UserError(f"{place}: {line!r}: {error}; expected '\"path\" label'") from None
        # Words between a quoted folder and its label are frame numbers.
        is_video = Path(words[0]).suffix.lower() in VIDEO_SUFFIXES
        at = 1 if is_video else -1
        parts = [" ".join(words[:at]), " ".join(words[at:])] if len(words) > 1 else words
    else:
        parts = list(match.groups()) if match else line.rsplit(maxsplit=1)
    if len(parts) != 2:
        raise UserError(f"{place}: {line!r} has no label; expected 'path label'")
    path, label = parts[0].strip(), parts[1].strip()
    return path, label, match is not None or Path(path).suffix.lower() in VIDEO_SUFFIXES

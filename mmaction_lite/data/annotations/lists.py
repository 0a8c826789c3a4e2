"""List files: one `path label` per line."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.annotations.classes import CLASSES_FILE, read_classes
from mmaction_lite.data.annotations.list_forms import Line, find_forms, is_there
from mmaction_lite.data.annotations.rows import Rows
from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.annotations.tables import TABLE_SUFFIXES, is_table, read_table
from mmaction_lite.data.annotations.text_files import read_text, split_lines
from mmaction_lite.errors import UserError, printable, reading

LIST_SUFFIXES = (".txt", *TABLE_SUFFIXES)
_VIDEO_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES))
_VIDEO_THEN_LABEL = re.compile(rf"([^\"].*(?:{_VIDEO_SUFFIX}))\s+(\S.*)", re.IGNORECASE)
_QUOTED_THEN_LABEL = re.compile(r'"((?:[^"\\]|\\.)*)"(?:\s+(\S.*))?')


def read_list(file: Path, classes: Sequence[str] | None = None) -> Samples:
    """Read a list file with one clip per line, or a table if the suffix is that of one (see `read_table`).

    The lines of a list have one of these forms:

        path label
        path label label label               several classes, by their numbers, in any line; videos only
        folder total_frames label            folders of images, as MMAction2 lists them
        folder offset total_frames label     a range of the frames in a folder that holds more

    Where several forms are possible, all lines and the files on disk determine the form, and `Samples.notes`
    contains it. Paths are relative to the folder of the list file; see `find_path` for other forms of a name.
    A path may contain spaces, and may be in double quotes. Labels are all class names or all 0-based numbers;
    `classes.txt` beside the list file names the classes of numbers, one name per line. Empty lines are
    skipped, and lines that begin with #, unless a file has this name.

    Args:
        file: the list file.
        classes: known class names; None infers them.

    Raises:
        UserError: a line has another form, or a class is unknown. The message names file and line.
    """
    with reading(file):
        if file.suffix.lower() in TABLE_SUFFIXES and is_table(file):
            return read_table(file, classes)
        return _read_lines(file, classes)


def _read_lines(file: Path, classes: Sequence[str] | None) -> Samples:
    lines: list[Line] = []
    comments: list[int] = []
    shared: dict[str, str] = {}
    for number, text in enumerate(split_lines(read_text(file, keeps_bytes=True), file), 1):
        text = text.strip()
        if not text:
            continue
        if text[0] == "#":
            match = _VIDEO_THEN_LABEL.fullmatch(text)
            paths = [match[1]] if match else [text.rsplit(maxsplit=count)[0] for count in (1, 2, 3)]
            if len(text.split()) < 2 or not any(is_there(path, file.parent) for path in paths):
                comments += [number] if match else []
                continue
        line = _split_line(text, number, file)
        # Clips share the text of a label, which saves memory.
        lines.append(line._replace(rest=shared.setdefault(line.rest, line.rest)))
    if not lines:
        raise UserError(f"{file}: has no samples; expected one 'path label' per line")
    rows = Rows(file)
    listed = file.parent / CLASSES_FILE
    known = classes if classes is not None or not listed.exists() else read_classes(listed)
    forms = find_forms(lines, file, None if known is None else len(known))
    rows.segments_in_frames = forms.frame_numbers + forms.exact_frame_numbers > 0
    whole = (0.0, math.inf) if rows.segments_in_frames else None
    for line in lines:
        clip = forms.clip(line, file)
        if not isinstance(clip.labels, str):
            rows.label_columns = ("labels",)
        rows.add(clip.path, clip.labels, line.number, segment=clip.frames or whole)
    del lines
    rows.notes += forms.notes
    if comments:
        rows.notes.append(
            f"{file}: {len(comments)} lines that begin with # are skipped, the first is line {comments[0]}"
        )
    return rows.samples(classes)


def _split_line(text: str, number: int, file: Path) -> Line:
    """Divide a line into path and labels.

    Raises:
        UserError: the line has no label, or a quotation mark is missing.
    """
    if text[0] == '"':
        match = _QUOTED_THEN_LABEL.fullmatch(text)
        if match is None:
            raise UserError(
                f"{file}:{number}: '{printable(text, 200)}': No closing quotation; expected '\"path\" label'"
            )
        path, label = re.sub(r'\\(["\\])', r"\1", match[1]), match[2] or ""
        if len(label) > 1 and label[0] == label[-1] == '"' and '"' not in label[1:-1]:
            label = label[1:-1].strip()
        line = Line(number, path, label, True)
    elif match := _VIDEO_THEN_LABEL.fullmatch(text):
        line = Line(number, match[1], match[2], True)
    else:
        words = text.rsplit(maxsplit=1)
        path, label = words if len(words) == 2 else ("", "")
        line = Line(number, path, label, Path(path).suffix.lower() in VIDEO_SUFFIXES)
    if not line.rest or not line.path:
        raise UserError(f"{file}:{number}: '{printable(text, 200)}' has no label; expected 'path label'")
    return line

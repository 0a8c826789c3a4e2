"""Columns of tables: known names, misspelled names, and columns that are ignored."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import chain

from mmaction_lite.errors import UserError, nearest, printable

# Label columns, in the order in which they are looked for. `class` is `label` without numbers.
LABEL_COLUMNS = ("labels",), ("class",), ("label",), ("verb", "noun")
SEGMENT_COLUMNS = ("start_seconds", "end_seconds"), ("start_frame", "end_frame")
KNOWN_COLUMNS = frozenset({"path", "weight", "group", *chain(*LABEL_COLUMNS), *chain(*SEGMENT_COLUMNS)})
_BOUND = re.compile(r"(?<![a-z])(start|begin|end|stop)(?![a-z])")
LEAST_SIMILARITY = 0.75
MOST_COLUMNS = 1000
# Properties of videos whose names resemble those of known columns.
_UNRELATED = frozenset({"height", "width", "paths"})


def column_name(header: str) -> str:
    """Return the form in which column names are compared: lower case, without outer spaces."""
    return header.strip().casefold()


def check_columns(names: Sequence[str], place: str) -> Iterator[str]:
    """Check the column names of a table, and yield a note on the columns that are ignored.

    Args:
        names: results of `column_name`.
        place: file, or file and line, for messages.

    Raises:
        UserError: a name occurs twice, or resembles a known name; the path or the label is missing.
    """
    present = set(names)
    shown = [printable(name, 40) for name in names[:20]]
    if len(names) > MOST_COLUMNS:
        raise UserError(f"{place}: has {len(names)} columns; expected at most {MOST_COLUMNS}")
    if twice := [name for name in present if name and names.count(name) > 1]:
        raise UserError(f"{place}: the column {printable(min(twice), 40)!r} occurs twice; rename one of them")
    if "path" not in present or not any(present >= set(columns) for columns in LABEL_COLUMNS):
        raise UserError(f"{place}: the header names {shown}; expected the columns path and label")
    has_segment = any(present >= set(pair) for pair in SEGMENT_COLUMNS)
    if not has_segment and len([1 for pair in SEGMENT_COLUMNS if present & set(pair)]) > 1:
        raise UserError(
            f"{place}: the header names {shown}; expected start and end in the same unit: "
            f"{' or '.join(' and '.join(pair) for pair in SEGMENT_COLUMNS)}"
        )
    ignored = [name for name in names if name and name not in KNOWN_COLUMNS]
    for name in ignored:
        known = _resembled(name, present, has_segment)
        if known:
            raise UserError(
                f"{place}: the column {printable(name, 40)!r} is unknown; {nearest(name, known)}. Rename or "
                "delete the column"
            )
    if has_segment and present >= {*chain(*SEGMENT_COLUMNS)}:
        ignored += SEGMENT_COLUMNS[1]
    label_columns = next(columns for columns in LABEL_COLUMNS if present >= set(columns))
    ignored += [
        name for columns in LABEL_COLUMNS for name in columns if name in present and name not in label_columns
    ]
    if ignored:
        more = ", …" if len(ignored) > 10 else ""
        listed = ", ".join(printable(name, 40) for name in ignored[:10])
        yield f"{place}: {len(ignored)} columns are ignored: {listed}{more}"


def _resembled(name: str, present: set[str], has_segment: bool) -> list[str]:
    """Return the known columns, missing in the table, that an unknown name may be a misspelling of."""
    missing = KNOWN_COLUMNS - present
    if not has_segment and _BOUND.search(name):
        return sorted({*chain(*SEGMENT_COLUMNS)} & missing)
    return [
        known
        for known in sorted(missing - {*chain(*LABEL_COLUMNS)})
        if len(name) < 40
        and name not in _UNRELATED
        and SequenceMatcher(None, name, known).ratio() >= LEAST_SIMILARITY
    ]

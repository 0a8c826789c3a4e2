"""The rows of an annotation file while it is read."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmaction_lite.data.annotations.labels import resolve_labels
from mmaction_lite.data.annotations.paths import exists, find_path
from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.errors import UserError, printable

MOST_CHARACTERS = 4096  # limit of Linux for a path


class Rows:
    """Columns of an annotation file, with labels as the file writes them.

    Args:
        file: the annotation file, for error messages.
        root: folder that relative paths start from; None: the folder of `file`.

    Attributes:
        labels: class names or numbers of row after row.
        label_ends: end index in `labels` of the labels of each row, exclusive.
        label_columns: see `Samples.label_columns`.
        are_names: whether all labels are class names, also those that are numbers.
        notes: see `Samples.notes`.
    """

    def __init__(self, file: Path, root: Path | None = None):
        self.file = file
        self.root = root or file.parent
        self.paths: list[str] = []
        self.labels: list[str] = []
        self.label_ends: list[int] = []
        self.label_columns: tuple[str, ...] = ("label",)
        self.lines: list[int] = []
        self.segments: list[tuple[float, float]] = []
        self.segments_in_frames = False
        self.weights: list[float] = []
        self.groups: list[str] = []
        self.are_names = False
        self.notes: list[str] = []

    def __len__(self) -> int:
        return len(self.paths)

    def add(
        self,
        path: str,
        label: str | Sequence[str],
        line: int,
        *,
        segment: tuple[float, float] | None = None,
        weight: float | None = None,
        group: str | None = None,
    ) -> None:
        """Append a row.

        Args:
            path: path of the clip.
            label: class name or number; several where a clip has several classes.
            line: line number in the file.
            segment: start and end of the part of the video; given for all rows or for none.
            weight: see `Samples.weights`; given for all rows or for none.
            group: see `Samples.groups`; given for all rows or for none.
        """
        self.paths.append(path)
        self.labels.extend([label] if isinstance(label, str) else label)
        self.label_ends.append(len(self.labels))
        self.lines.append(line)
        if segment is not None:
            self.segments.append(segment)
        if weight is not None:
            self.weights.append(weight)
        if group is not None:
            self.groups.append(group)

    def samples(self, classes: Sequence[str] | None) -> Samples:
        """Return the table of samples.

        Args:
            classes: known class names; None infers them from the labels and from `classes.txt`.

        Raises:
            UserError: there is no label, a label is out of range, a class is unknown, or a path is invalid.
        """
        if not self.labels:
            raise UserError(f"{self.file}: no clip has a class; expected a label of at least one clip")
        if self.weights and not 0 < sum(self.weights) < math.inf:
            raise UserError(
                f"{self.file}: the weights add up to {sum(self.weights):g}; expected a finite sum above 0"
            )
        has_any_number = self.label_columns == ("labels",)
        found = resolve_labels(
            self.file,
            self.label_columns,
            self.labels,
            np.repeat(self.lines, np.diff(self.label_ends, prepend=0)),
            classes=classes,
            are_names=self.are_names,
        )
        return Samples(
            paths=PackedStrings(self._found_paths()),
            labels=found.indices,
            classes=found.classes,
            root=self.root,
            source=str(self.file),
            segments=np.array(self.segments) if self.segments else None,
            segments_in_frames=self.segments_in_frames,
            lines=np.array(self.lines, np.int32),
            label_ends=np.array(self.label_ends, np.int64) if has_any_number else None,
            weights=np.array(self.weights) if self.weights else None,
            label_columns=self.label_columns,
            groups=PackedStrings(self.groups) if self.groups else None,
            notes=(*self.notes, *found.notes),
        )

    def _found_paths(self) -> list[str]:
        """Return the paths under which the files exist; see `find_path`.

        Raises:
            UserError: a path cannot be the name of a file.
        """
        paths = []
        for path, line in zip(self.paths, self.lines, strict=True):
            found = find_path(path, self.root)
            if "\0" in found or not found:
                problem = "the path is empty" if not found else "the path contains the character NUL"
                raise UserError(f"{self.file}:{line}: {problem}; expected the path of a clip")
            if not found.isascii():
                self._check_encoding(found, line)
            if len(found) > MOST_CHARACTERS:
                raise UserError(
                    f"{self.file}:{line}: the path '{printable(found, 60)}' has {len(found)} characters; "
                    f"expected at most {MOST_CHARACTERS}"
                )
            paths.append(found)
        return paths

    def _check_encoding(self, path: str, line: int) -> None:
        """Check a path with characters that are not ASCII.

        Raises:
            UserError: it has bytes that are not UTF-8, and no file has this name.
        """
        try:
            path.encode()
        except UnicodeEncodeError:
            if not exists(path, self.root):
                raise UserError(
                    f"{self.file}:{line}: the path '{printable(path, 200)}' contains bytes that are not "
                    "UTF-8, and no file has this name; save the list as UTF-8"
                ) from None

"""The rows of an annotation file while it is read."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmaction_lite.data.annotations.classes import resolve_labels
from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.errors import UserError


class Rows:
    """Columns of an annotation file, with labels as the file writes them.

    Args:
        file: the annotation file, for error messages.
        root: folder that relative paths start from; None: the folder of `file`.

    Attributes:
        labels: class names or numbers of row after row.
        label_ends: end index in `labels` of the labels of each row, exclusive.
        label_columns: see `Samples.label_columns`.
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
    ) -> None:
        """Append a row.

        Args:
            path: path of the clip.
            label: class name or number; several where a clip has several classes.
            line: line number in the file.
            segment: start and end of the part of the video; given for all rows or for none.
            weight: see `Samples.weights`; given for all rows or for none.
        """
        self.paths.append(path)
        self.labels.extend([label] if isinstance(label, str) else label)
        self.label_ends.append(len(self.labels))
        self.lines.append(line)
        if segment is not None:
            self.segments.append(segment)
        if weight is not None:
            self.weights.append(weight)

    def samples(self, classes: Sequence[str] | None) -> Samples:
        """Return the table of samples.

        Args:
            classes: known class names; None infers them from the labels and from `classes.txt`.

        Raises:
            UserError: there is no label, a label is out of range, or a class is unknown.
        """
        if not self.labels:
            raise UserError(f"{self.file}: no clip has a class")
        has_any_number = self.label_columns == ("labels",)
        names, labels = resolve_labels(
            self.file,
            self.label_columns,
            self.labels,
            np.repeat(self.lines, np.diff(self.label_ends, prepend=0)).tolist(),
            classes=classes,
        )
        return Samples(
            paths=PackedStrings(self.paths),
            labels=labels,
            classes=names,
            root=self.root,
            source=str(self.file),
            segments=np.array(self.segments) if self.segments else None,
            segments_in_frames=self.segments_in_frames,
            lines=np.array(self.lines, np.int32),
            label_ends=np.array(self.label_ends, np.int64) if has_any_number else None,
            weights=np.array(self.weights) if self.weights else None,
            label_columns=self.label_columns,
        )

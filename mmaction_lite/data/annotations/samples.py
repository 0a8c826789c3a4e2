"""The table of samples: path, labels and further columns of every clip of a split."""

import os
import re
import zlib
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

_REMOTE = re.compile(r"(\w{2,}):/+(.+)")


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL. `Path` reduces the slashes of a URL to one, which is recognized too."""
    return bool(_REMOTE.match(str(path)))


def absolute(path: str | Path) -> str:
    """Return a path that is valid in every working directory: an absolute path, or a URL."""
    remote = _REMOTE.match(str(path))
    return f"{remote[1]}://{remote[2]}" if remote else str(Path(path).absolute())


class Segment(NamedTuple):
    """The part of a video that a sample covers: from `start` to `end`, which is exclusive.

    In seconds of playing time or, if `in_frames`, in frames counted from 0.
    """

    start: float
    end: float
    in_frames: bool

    def __str__(self) -> str:
        """Return the part as the suffix of a path; seconds as in W3C Media Fragments URI 1.0."""
        return f"#{'frames' if self.in_frames else 't'}={self.start:g},{self.end:g}"


@dataclass(frozen=True)
class Samples:
    """A table of samples in packed arrays.

    Worker processes share the memory of arrays. Python objects would be copied page by page into every
    worker, because their reference counts change.

    Args:
        paths: paths as the annotation file lists them, relative to `root` or absolute.
        labels: class indices of clip after clip, int64 (M,): one per clip and label column, or, with
            `label_ends`, any number per clip.
        classes: class names, in index order.
        root: folder that relative paths start from.
        source: annotation file or folder, for messages and protocol lines.
        segments: start and end of the part of the video, float64 (N, 2); None: whole videos.
        segments_in_frames: whether `segments` are frame numbers instead of seconds.
        lines: line of each sample in the file `source`, int32 (N,); None if `source` is no file.
        label_ends: end index in `labels` of the labels of each clip, exclusive, int64 (N,), if a clip may
            have any number of classes. None: all clips have one class per label column.
        weights: relative frequency with which each clip is drawn, float64 (N,); None: all clips equally.
        label_columns: columns of the annotation file that the labels come from: `label`, `labels` (any number
            of classes), or one column per group of classes, such as `verb` and `noun`.
        groups: what identifies the recording that each clip was cut from, empty where it is not known; None
            without a column `group`. Clips of one recording belong in one split.
        notes: how ambiguous annotations were read, what was skipped, and what may be a mistake, a line each.
    """

    paths: "PackedStrings"
    labels: np.ndarray
    classes: tuple[str, ...]
    root: Path
    source: str
    _: KW_ONLY
    segments: np.ndarray | None = None
    segments_in_frames: bool = False
    lines: np.ndarray | None = None
    label_ends: np.ndarray | None = None
    weights: np.ndarray | None = None
    label_columns: tuple[str, ...] = ("label",)
    groups: "PackedStrings | None" = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def labels_of(self, sample: int) -> np.ndarray:
        """Return the class indices of a sample, int64 (k,)."""
        if self.label_ends is None:
            columns = len(self.label_columns)
            return self.labels[sample * columns : (sample + 1) * columns]
        start = self.label_ends[sample - 1] if sample else 0
        return self.labels[start : self.label_ends[sample]]

    @property
    def labels_per_clip(self) -> int | None:
        """Number of labels of every clip; None if a clip may have any number."""
        return len(self.label_columns) if self.label_ends is None else None

    def label_counts(self) -> np.ndarray:
        """Return the number of labels of each clip, int64 (N,)."""
        if self.label_ends is None:
            return np.full(len(self), len(self.label_columns), np.int64)
        return np.diff(self.label_ends, prepend=0)

    def strata(self) -> np.ndarray | None:
        """Return a number per clip, int64 (N,), equal for clips with the same labels in the same columns.

        None if a clip may have any number of classes.
        """
        if self.label_ends is not None:
            return None
        strata = np.zeros(len(self), np.int64)
        for column in self.labels.reshape(len(self), -1).T:
            strata = strata * len(self.classes) + column
        return strata

    def class_names(self, sample: int) -> list[str]:
        """Return the class names of a sample."""
        return [self.classes[label] for label in self.labels_of(sample)]

    def path(self, sample: int) -> Path:
        """Return the path or URL of a sample."""
        listed = self.paths[sample]
        if "://" in listed:
            return Path(listed)
        path = self.root / listed
        # A folder "take:" in the working folder looks like the scheme of a URL.
        return path.absolute() if is_remote(path) else path

    def segment(self, sample: int) -> Segment | None:
        """Return the part of the video that a sample covers; None for the whole video."""
        if self.segments is None:
            return None
        start, end = self.segments[sample].tolist()
        return Segment(start, end, self.segments_in_frames)

    def name(self, sample: int) -> str:
        """Return path and part, which identify a sample."""
        segment = self.segment(sample)
        path = self.path(sample)
        return f"{absolute(path) if is_remote(path) else path}{'' if segment is None else segment}"

    def place(self, sample: int) -> str:
        """Return `file:line` of a sample in the annotation file, or its name if there is no such file."""
        return self.name(sample) if self.lines is None else f"{self.source}:{self.lines[sample]}"

    def common_labels(self, numbers: Sequence[int]) -> tuple[int, ...] | None:
        """Return the class indices of a moment that several samples contain; empty without samples.

        They are all classes of the samples if a clip may have any number of classes. Otherwise, they are
        those that all samples have; None if the samples differ.
        """
        found = {tuple(self.labels_of(sample).tolist()) for sample in numbers}
        if self.label_ends is not None:
            return tuple(sorted({label for labels in found for label in labels}))
        return next(iter(found), ()) if len(found) <= 1 else None

    def parts(
        self,
        paths: Sequence[str],
        segments: np.ndarray,
        labels: Sequence[tuple[int, ...]],
        background: str | None,
    ) -> "Samples":
        """Return a table of other parts of the videos, with the same label columns.

        Args:
            paths: path of each part.
            segments: start and end of each part in seconds, float64 (n, 2).
            labels: class indices of each part. Parts without one have the class `background`, which is added,
                unless a clip may have any number of classes.
            background: name of this class; with several label columns, of one class in each. None: every part
                has a class.
        """
        classes, none = list(self.classes), []
        if background is not None and self.label_ends is None:
            for column in self.label_columns:
                name = f"{column}: {background}" if len(self.label_columns) > 1 else background
                if name not in classes:
                    classes.append(name)
                none.append(classes.index(name))
        filled = [row or none for row in labels]
        ends = np.cumsum([len(row) for row in filled], dtype=np.int64)
        return replace(
            self,
            paths=PackedStrings(paths),
            labels=np.array([label for row in filled for label in row], np.int64),
            classes=tuple(classes),
            segments=segments,
            segments_in_frames=False,
            lines=None,
            label_ends=None if self.label_ends is None else ends,
            weights=None,
            groups=None,
        )

    def counts(self) -> np.ndarray:
        """Return the number of clips of each class, int64 (K,)."""
        return np.bincount(self.labels, minlength=len(self.classes))

    def checksum(self) -> int:
        """Return a CRC-32 that changes when a path, a part, a label, a class or a weight does."""
        number = zlib.crc32(self.paths.bytes.tobytes())
        number = zlib.crc32(self.paths.ends.tobytes() + self.labels.tobytes(), number)
        for column in (self.segments, self.label_ends, self.weights):
            number = number if column is None else zlib.crc32(column.tobytes(), number)
        return zlib.crc32("\n".join(self.classes).encode("utf-8", "surrogateescape"), number)

    def draw_weights(self, class_balance: float) -> np.ndarray | None:
        """Return the relative frequency with which each clip is drawn, float64 (N,); None: equal frequencies.

        Args:
            class_balance: 0 returns `weights`. 1 makes all classes equally frequent; in between, the
                frequency of a class of n clips is proportional to n ** (1 - class_balance). A clip of several
                classes counts as a clip of its rarest class (Gupta et al. 2019, arXiv:1908.03195, section
                5.1), a clip without a class as one of the largest class.
        """
        if class_balance == 0:
            return self.weights
        rarity = self.counts().clip(1).astype(float) ** -class_balance
        if self.label_ends is None:
            rarity = rarity[self.labels].reshape(len(self), -1).max(1)
        else:
            rarity = np.array([rarity[self.labels_of(i)].max(initial=rarity.min()) for i in range(len(self))])
        return rarity if self.weights is None else rarity * self.weights


class PackedStrings:
    """A sequence of strings in two arrays: the bytes of all strings, and the end of each string."""

    def __init__(self, strings: Sequence[str]):
        encoded = [os.fsencode(string) for string in strings]
        self.bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self.ends = np.cumsum([len(string) for string in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        end = int(self.ends[index])
        start = int(self.ends[index - 1]) if index % len(self) else 0
        return os.fsdecode(self.bytes[start:end].tobytes())

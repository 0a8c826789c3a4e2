"""List files of the training clips, for workers of other frameworks."""

import math
from collections.abc import Callable
from pathlib import Path

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from mmaction_lite.files import check_replaceable, write_atomically
from mmaction_lite.tasks.single_label import SingleLabel

LISTED = 20_000  # number of clips in a list; more than a peer takes in all turns


def frames_of(data: Path) -> Path:
    """Return the folder that holds a dataset as JPEG frames, which may not exist."""
    return data.resolve().with_name(f"{data.resolve().name}_frames")


def write_video_list(data: Path, file: Path, *, is_new: bool) -> Path:
    """Write the training clips of `data` as lines `path label`; see `_write_list`."""
    return _write_list(data, file, lambda path: "", is_new)


def write_frames_list(data: Path, file: Path, *, is_new: bool) -> Path:
    """Write the training clips of `data`, folders of JPEG frames, as lines `path number_of_frames label`."""
    return _write_list(data, file, lambda path: f" {sum(1 for _ in path.glob('*.jpg'))}", is_new)


def _write_list(data: Path, file: Path, middle: Callable[[Path], str], is_new: bool) -> Path:
    """Write the training clips, repeated so that no reader reaches the end.

    Args:
        data: data set of one label per clip.
        file: list file.
        middle: maps the path of a clip to the text between its path and label.
        is_new: whether the benchmark starts; then no file of others is replaced.

    Raises:
        UserError: the data set holds parts of videos or several labels per clip, or `file` belongs to others.
    """
    samples: Samples = read_split(data, "train")
    SingleLabel().check_labels(samples.label_columns, samples.source)
    if samples.segments is not None:
        raise UserError(f"{data}: the benchmark reads whole files, not parts of videos")
    paths = [samples.path(i).absolute() for i in range(len(samples))]
    lines = [f"{path}{middle(path)} {label}\n" for path, label in zip(paths, samples.labels, strict=True)]
    text = ("".join(lines) * math.ceil(LISTED / len(lines))).encode("utf-8", "surrogateescape")
    if is_new:
        check_replaceable(file, "a list of this benchmark", lambda path: path.read_bytes() == text)
    write_atomically(file, lambda stream: stream.write(text))
    return file

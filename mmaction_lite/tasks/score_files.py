"""Score files: the probabilities of every video of a split, as `.npz` or `.parquet`."""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmaction_lite.errors import UserError, describe, printable
from mmaction_lite.files import check_replaceable, open_regular, write_atomically
from mmaction_lite.tasks import score_parquet
from mmaction_lite.tasks.named import task_from_json, task_of_targets, task_to_json
from mmaction_lite.tasks.task import Task

FREE_BYTES = 256 << 20  # size of the arrays that every score file may have
ROUNDING = 1e-2  # by which a probability may exceed 0 or 1; scores of other programs may be float16
LARGEST_RATIO = 20  # further size of the arrays, divided by the size of the file; scores hardly compress
MOST_VIDEOS = 5_000_000
MOST_CLASSES = 100_000
REQUIRED = ("paths", "labels", "scores", "class_names", "protocol")
OPTIONAL = ("task", "weights", "views", "view_logits")  # files of other programs and versions lack them
AGAIN = "write it again with `mmaction-lite test WEIGHTS --data DATA --dump FILE`"

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Contents of a score file.

    Args:
        file: the score file.
        paths: paths of N videos.
        labels: targets of the task, see `Task.targets`.
        scores: probabilities, float (N, K). The row of an unreadable video is not finite.
        class_names: K class names.
        protocol: the protocol line.
        task: kind of labels.
        weights: fingerprint of the weights; None if the file does not name them.
        views: number of views of a video, clips × crops; None if unknown.
        view_logits: logits of every view, float32 (N, V, K); None if they were not stored.
    """

    file: Path
    paths: list[str]
    labels: np.ndarray
    scores: np.ndarray
    class_names: list[str]
    protocol: str
    task: Task
    weights: str | None = None
    views: int | None = None
    view_logits: np.ndarray | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the scores; see `Task.metrics`."""
        return self.task.metrics(self.scores, self.labels)


def check_scores_out(path: Path) -> None:
    """Check that scores can be written to `path`; an earlier score file is replaced.

    Raises:
        UserError: the name ends neither in .npz nor in .parquet, pyarrow is missing, or see
            `check_replaceable`.
    """
    if path.suffix.lower() not in (".npz", ".parquet"):
        raise UserError(
            f"{path}: scores are written as .npz or .parquet; expected a file name ending in .npz or .parquet"
        )
    if path.suffix.lower() == ".parquet":
        score_parquet.require(path)
    check_replaceable(path, "a score file of mmaction-lite", _is_score_file)


def _is_score_file(path: Path) -> bool:
    if path.suffix.lower() == ".parquet":
        with path.open("rb") as stream:
            return score_parquet.is_score_file(stream)
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist()) >= {f"{name}.npy" for name in REQUIRED}


def write_scores(table: Scores) -> None:
    """Write a score file to `table.file`.

    Raises:
        UserError: the file exists and is not a score file, or cannot be written.
    """
    check_scores_out(table.file)
    arrays: Arrays = {
        "paths": np.array(table.paths),
        "labels": table.labels,
        "scores": table.scores,
        "class_names": np.array(table.class_names),
        "protocol": np.array(table.protocol),
        "task": np.array(task_to_json(table.task)),
    }
    optional = {"weights": table.weights, "views": table.views, "view_logits": table.view_logits}
    arrays |= {name: np.asarray(value) for name, value in optional.items() if value is not None}
    if table.file.suffix.lower() == ".parquet":
        score_parquet.write(table.file, arrays)
    else:
        write_atomically(table.file, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def read_scores(file: Path) -> Scores:
    """Read a score file.

    Raises:
        UserError: the file is missing or damaged, its arrays do not fit together, or pyarrow is missing.
    """
    if file.is_dir():
        raise UserError(f"{file}: is a folder; expected a score file, such as {file / 'test.npz'}")
    is_parquet = file.suffix.lower() == ".parquet"
    if is_parquet:
        score_parquet.require(file)
    no_file = UserError(f"{file}: is not a regular file; expected a score file")
    try:
        with open_regular(file, no_file) as stream:
            room = FREE_BYTES + LARGEST_RATIO * file.stat().st_size
            arrays = score_parquet.read(stream, room, MOST_VIDEOS) if is_parquet else _read_npz(stream, room)
        _check_types(arrays)
        labels = arrays["labels"]
        class_names = [str(name) for name in arrays["class_names"]]
        # Score files of other programs may lack the task.
        task = task_from_json(str(arrays["task"])) if "task" in arrays else task_of_targets(labels)
        if task.for_classes(class_names) != task:
            raise ValueError(f"{task} for the classes {', '.join(class_names[:5])}")
        table = Scores(
            file=file,
            paths=[str(path) for path in arrays["paths"]],
            labels=labels,
            scores=arrays["scores"],
            class_names=class_names,
            protocol=str(arrays["protocol"]),
            task=task,
            weights=printable(str(arrays["weights"]), 100) if "weights" in arrays else None,
            views=int(arrays["views"]) if "views" in arrays else None,
            view_logits=arrays.get("view_logits"),
        )
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; expected a score file. Write one with --dump") from None
    except Exception as error:  # a damaged file can raise any exception
        if error is no_file:
            raise
        raise UserError(f"{file}: damaged score file ({describe(error)}); {AGAIN}") from None
    _check_shapes(table)
    return table


def _check_types(arrays: Arrays) -> None:
    """Check the types of arrays from a file.

    Raises:
        ValueError: an array is of another type, or the file holds too many videos or classes.
    """
    labels, scores = arrays["labels"], arrays["scores"]
    if scores.dtype.kind != "f" or labels.dtype.kind not in "biuf":
        raise ValueError(f"labels of {labels.dtype} and scores of {scores.dtype}")
    if len(arrays["paths"]) > MOST_VIDEOS or len(arrays["class_names"]) > MOST_CLASSES:
        raise ValueError(f"more than {MOST_VIDEOS} videos or {MOST_CLASSES} classes")
    if "view_logits" in arrays and arrays["view_logits"].dtype.kind != "f":
        raise ValueError(f"view_logits of {arrays['view_logits'].dtype}")


def _check_shapes(table: Scores) -> None:
    """Check that the arrays of a score file fit together.

    Raises:
        UserError: they do not.
    """
    sizes = len(table.paths), len(table.class_names)
    shapes = {"labels": table.labels.shape, "scores": table.scores.shape}
    if shapes != {"labels": table.task.target_shape(*sizes), "scores": sizes}:
        raise UserError(
            f"{table.file}: {sizes[0]} paths and {sizes[1]} class names do not fit "
            f"labels of shape {shapes['labels']} and scores of shape {shapes['scores']}; {AGAIN}"
        )
    if not sizes[0]:
        raise UserError(f"{table.file}: holds no video; {AGAIN}")
    finite = table.scores[np.isfinite(table.scores)]
    if finite.size and not (finite.min() >= -ROUNDING and finite.max() <= 1 + ROUNDING):
        raise UserError(
            f"{table.file}: scores from {finite.min():g} to {finite.max():g}; expected probabilities from 0 "
            "to 1. If they are logits, apply the softmax, or the sigmoid of a multi-label task, first"
        )
    views = None if table.view_logits is None else table.view_logits.shape
    if views is not None and (len(views) != 3 or views[::2] != sizes):
        raise UserError(
            f"{table.file}: view_logits are of shape {views}; expected ({sizes[0]}, number of views, "
            f"{sizes[1]}); {AGAIN}"
        )
    try:
        table.task.check_targets(table.labels, sizes[1])
    except ValueError as error:
        raise UserError(f"{table.file}: {error}; correct the annotations and {AGAIN}") from None


def _read_npz(stream: IO[bytes] | Any, room: int) -> Arrays:
    """Read the arrays of an `.npz` file, of `room` bytes at most.

    Raises:
        Exception: of any type, if the file is damaged.
    """
    arrays = {}
    with zipfile.ZipFile(stream) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = sorted(set(REQUIRED) - set(members))
        if missing:
            raise ValueError(f"no array {missing[0]!r}")
        for name in [*REQUIRED, *(name for name in OPTIONAL if name in members)]:
            room -= members[name].file_size
            if room < 0:
                raise ValueError("arrays that are much larger than the file")
            with archive.open(members[name]) as part:
                version = np.lib.format.read_magic(part)
                if version not in _HEADERS:
                    raise ValueError(f"array {name!r} in version {version} of the format")
                shape, _, dtype = _HEADERS[version](part)
                count = math.prod(shape)
                if dtype.hasobject or count * dtype.itemsize + part.tell() != members[name].file_size:
                    raise ValueError(f"array {name!r} is not of the size that its header states")
                if count and not dtype.itemsize and count > MOST_VIDEOS:
                    raise ValueError(f"array {name!r} of {count} empty texts")
            with archive.open(members[name]) as part:
                arrays[name] = np.lib.format.read_array(part, allow_pickle=False)
    return arrays


_HEADERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

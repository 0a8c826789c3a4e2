"""Score files: the probabilities of every video of a split."""

import math
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmaction_lite.errors import UserError, describe
from mmaction_lite.tasks.named import task_from_json, task_of_targets
from mmaction_lite.tasks.task import Task

FREE_BYTES = 256 << 20  # size of the arrays that every score file may have
LARGEST_RATIO = 20  # further size of the arrays, divided by the size of the file; scores hardly compress
MOST_VIDEOS = 5_000_000
MOST_CLASSES = 100_000


@dataclass(frozen=True, eq=False)
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
    """

    file: Path
    paths: list[str]
    labels: np.ndarray
    scores: np.ndarray
    class_names: list[str]
    protocol: str
    task: Task


def read_scores(file: Path) -> Scores:
    """Read a score file (`.npz`).

    Raises:
        UserError: the file is damaged, or its arrays do not fit together.
    """
    again = "write it again with `mmaction-lite test WEIGHTS --data DATA --dump FILE`"
    try:
        arrays = _read_arrays(file, {"paths", "labels", "scores", "class_names", "protocol"})
        labels, scores = arrays["labels"], arrays["scores"]
        types = {name: arrays[name].dtype for name in ("labels", "scores")}
        if types["scores"].kind != "f" or types["labels"].kind not in "biuf":
            raise ValueError(f"labels of {types['labels']} and scores of {types['scores']}")
        if len(arrays["paths"]) > MOST_VIDEOS or len(arrays["class_names"]) > MOST_CLASSES:
            raise ValueError(f"more than {MOST_VIDEOS} videos or {MOST_CLASSES} classes")
        paths = [str(path) for path in arrays["paths"]]
        class_names = [str(name) for name in arrays["class_names"]]
        protocol = str(arrays["protocol"])
        # Score files of other programs may lack the task.
        task = task_from_json(str(arrays["task"])) if "task" in arrays else task_of_targets(labels)
        if task.for_classes(class_names) != task:
            raise ValueError(f"{task} for the classes {', '.join(class_names[:5])}")
    except Exception as error:  # a damaged file can raise any exception
        raise UserError(f"{file}: damaged score file ({describe(error)}); {again}") from None
    found = {"labels": labels, "scores": scores}
    shapes = {name: array.shape for name, array in found.items()}
    sizes = len(paths), len(class_names)
    if shapes != {"labels": task.target_shape(*sizes), "scores": sizes}:
        raise UserError(
            f"{file}: {len(paths)} paths and {len(class_names)} class names do not fit "
            f"labels of shape {shapes['labels']} and scores of shape {shapes['scores']}; {again}"
        )
    if not len(labels):
        raise UserError(f"{file}: holds no video; {again}")
    try:
        task.check_targets(labels, len(class_names))
    except ValueError as error:
        raise UserError(f"{file}: {error}; correct the annotations and {again}") from None
    return Scores(file, paths, labels, scores, class_names, protocol, task)


def _read_arrays(file: Path, required: Collection[str]) -> dict[str, np.ndarray]:
    """Read the arrays of an `.npz` file, after a comparison of their sizes with the size of the file.

    Raises:
        Exception: of any type, if the file is damaged.
    """
    arrays = {}
    room = FREE_BYTES + LARGEST_RATIO * file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = sorted(set(required) - set(members))
        if missing:
            raise ValueError(f"no array {missing[0]!r}")
        for name in [*required, *({"task"} & set(members))]:
            room -= members[name].file_size
            if room < 0:
                raise ValueError("arrays that are much larger than the file")
            with archive.open(members[name]) as stream:
                version = np.lib.format.read_magic(stream)
                if version not in _HEADERS:
                    raise ValueError(f"array {name!r} in version {version} of the format")
                shape, _, dtype = _HEADERS[version](stream)
                count = math.prod(shape)
                if dtype.hasobject or count * dtype.itemsize + stream.tell() != members[name].file_size:
                    raise ValueError(f"array {name!r} is not of the size that its header states")
                if count and not dtype.itemsize and count > MOST_VIDEOS:
                    raise ValueError(f"array {name!r} of {count} empty texts")
            with archive.open(members[name]) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}

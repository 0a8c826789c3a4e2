"""Score files: the probabilities of every video of a split."""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.named import task_from_json, task_of_targets
from mmaction_lite.tasks.task import Task


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
        with np.load(file, allow_pickle=False) as arrays:
            paths = [str(path) for path in arrays["paths"]]
            labels, scores = arrays["labels"], arrays["scores"]
            class_names = [str(name) for name in arrays["class_names"]]
            protocol = str(arrays["protocol"])
            # Score files of other programs may lack the task.
            task = task_from_json(str(arrays["task"])) if "task" in arrays else task_of_targets(labels)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file}: damaged score file ({error}); {again}") from error
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

"""Tasks by name, as the command line and score files give them."""

import json
from dataclasses import asdict, is_dataclass, replace

import numpy as np

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.reconstruction import Reconstruction
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task
from mmaction_lite.tasks.verb_noun import VerbNoun

TASKS: dict[str, type] = {"single_label": SingleLabel, "multi_label": MultiLabel, "verb_noun": VerbNoun}
"""Tasks that any network can be trained for."""
_ALL: dict[str, type] = TASKS | {"reconstruction": Reconstruction}


def uses_labels(task: Task) -> bool:
    """Whether a task needs the labels of a data set."""
    return not isinstance(task, Reconstruction)


def task_named(name: str) -> Task:
    """Return the task of this name with its default settings.

    Raises:
        UserError: no such task.
    """
    if name not in TASKS:
        raise UserError(f"task: there is no task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]()


def task_to_json(task: Task) -> str:
    """Return the task's name and settings as JSON; see `task_from_json`."""
    assert is_dataclass(task)
    names = {kind: name for name, kind in _ALL.items()}
    return json.dumps({"task": names.get(type(task), type(task).__name__), **asdict(task)})


def task_from_json(text: str) -> Task:
    """Return the task that `task_to_json` wrote.

    Raises:
        UserError: the task is not one of this package.
        ValueError, TypeError, KeyError: the text is something else.
    """
    settings = json.loads(text)
    name = settings.pop("task")
    task = Reconstruction() if name == "reconstruction" else task_named(name)
    assert is_dataclass(task)
    return replace(task, **settings)


def task_of_targets(targets: np.ndarray) -> Task:
    """Return the task whose targets these are, for a score file that does not name its task."""
    return MultiLabel() if targets.dtype == bool else SingleLabel()

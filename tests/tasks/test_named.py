import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.named import TASKS, task_from_json, task_named, task_of_targets, task_to_json
from mmaction_lite.tasks.single_label import SingleLabel


@pytest.mark.parametrize("name", TASKS)
def test_a_task_survives_json(name):
    assert task_from_json(task_to_json(task_named(name))) == task_named(name)


def test_settings_survive_json():
    task = SingleLabel(criterion="binary_cross_entropy")
    assert task_from_json(task_to_json(task)) == task


def test_an_unknown_name_lists_the_tasks():
    with pytest.raises(
        UserError, match="there is no task 'multilabel'; expected one of single_label, multi_"
    ):
        task_named("multilabel")


def test_targets_without_a_task():
    assert task_of_targets(np.zeros((2, 3), bool)) == MultiLabel()
    assert task_of_targets(np.zeros(2, np.int64)) == SingleLabel()

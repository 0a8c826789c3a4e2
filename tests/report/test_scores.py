import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.report.scores import read_scores
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.single_label import SingleLabel
from tests.report.test_page import add_scores


def test_a_score_file_without_a_task_is_read_by_its_labels(tmp_path):
    arrays = add_scores(tmp_path / "a.npz")
    table = read_scores(tmp_path / "a.npz")
    assert table.task == SingleLabel()
    np.testing.assert_array_equal(table.scores, arrays["scores"])
    add_scores(tmp_path / "b.npz", labels=np.ones((40, 10), bool))
    assert read_scores(tmp_path / "b.npz").task == MultiLabel()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"task": np.array("{}")}, r"a\.npz: damaged score file"),
        ({"task": np.array('{"task": "per_frame"}')}, "there is no task 'per_frame'"),
        ({"task": np.array('{"task": "multi_label"}')}, r"do not fit labels of shape \(40,\)"),
        ({"labels": np.full(40, 0.5)}, "labels are float64; expected class indices"),
    ],
)
def test_a_task_that_does_not_fit_is_an_error(tmp_path, changed, message):
    add_scores(tmp_path / "a.npz", **changed)
    with pytest.raises(UserError, match=message):
        read_scores(tmp_path / "a.npz")

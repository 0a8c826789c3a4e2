import zipfile

import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.report import scores
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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scores": np.zeros((40, 10), complex)}, "scores of complex128"),
        ({"scores": np.zeros((40, 10), int)}, "scores of int64"),
        ({"labels": np.array(["a"] * 40)}, "labels of <U1"),
        ({"paths": np.array([None] * 40)}, "is not of the size"),
        ({"scores": np.zeros((4000, 1000), np.float32)}, "much larger than the file"),
        ({"task": np.array('{"task": "verb_noun", "num_verbs": 3}')}, "expected names such as"),
    ],
)
def test_a_damaged_score_file_is_one_line_before_memory_is_taken(tmp_path, monkeypatch, changed, message):
    monkeypatch.setattr(scores, "FREE_BYTES", 1 << 20)
    add_scores(tmp_path / "a.npz", **changed)
    with pytest.raises(UserError, match=rf"a\.npz: damaged score file \([^\n]*{message}"):
        read_scores(tmp_path / "a.npz")


def test_a_header_that_states_another_size_is_refused(tmp_path):
    add_scores(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["scores.npy"] = members["scores.npy"].replace(b"(40, 10)", b"(90, 90)")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="not of the size that its header states"):
        read_scores(tmp_path / "a.npz")

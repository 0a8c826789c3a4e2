from pathlib import Path

import pytest

from mmaction_lite.data.annotations.classes import class_prefix
from mmaction_lite.data.annotations.labels import resolve_labels
from mmaction_lite.errors import UserError


def test_labels_become_indices(tmp_path):
    found = resolve_labels(tmp_path / "a.txt", ("label",), ["b", "a", "b"], [1, 2, 3], classes=None)
    assert found.classes == ("a", "b")
    assert found.indices.tolist() == [1, 0, 1]
    found = resolve_labels(Path("a.txt"), ("label",), ["b", "a"], [1, 2], classes=("b", "c", "a"))
    assert found.classes == ("b", "c", "a")
    assert found.indices.tolist() == [0, 2]


def test_each_column_has_its_own_names():
    columns = ("verb", "noun")
    labels = ["cut", "cut", "open", "door"]
    found = resolve_labels(Path("a.csv"), columns, labels, [2, 2, 3, 3], classes=None)
    names = found.classes
    assert names == ("verb: cut", "verb: open", "noun: cut", "noun: door")
    assert found.indices.tolist() == [0, 2, 1, 3]
    assert class_prefix("label", ("label",)) == ""
    with pytest.raises(UserError, match=r"a\.csv:3: class 'door' is not among the 1 known classes"):
        resolve_labels(Path("a.csv"), columns, labels, [2, 2, 3, 3], classes=(*names[:2], "noun: cut"))

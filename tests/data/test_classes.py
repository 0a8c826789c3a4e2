from pathlib import Path

import pytest

from mmaction_lite.data.annotations.classes import class_prefix, read_classes, resolve_labels
from mmaction_lite.errors import UserError


def test_names_are_read_one_per_line(tmp_path):
    (tmp_path / "classes.txt").write_text("run fast\n\n jump \n")
    assert read_classes(tmp_path / "classes.txt") == ("run fast", "jump")


def test_labels_become_indices(tmp_path):
    names, labels = resolve_labels(tmp_path / "a.txt", ("label",), ["b", "a", "b"], [1, 2, 3], classes=None)
    assert names == ("a", "b")
    assert labels.tolist() == [1, 0, 1]
    names, labels = resolve_labels(Path("a.txt"), ("label",), ["b", "a"], [1, 2], classes=("b", "c", "a"))
    assert names == ("b", "c", "a")
    assert labels.tolist() == [0, 2]


def test_each_column_has_its_own_names():
    columns = ("verb", "noun")
    labels = ["cut", "cut", "open", "door"]
    names, indices = resolve_labels(Path("a.csv"), columns, labels, [2, 2, 3, 3], classes=None)
    assert names == ("verb: cut", "verb: open", "noun: cut", "noun: door")
    assert indices.tolist() == [0, 2, 1, 3]
    assert class_prefix("label", ("label",)) == ""
    with pytest.raises(UserError, match=r"a\.csv:3: class 'door' is not among the 1 known classes"):
        resolve_labels(Path("a.csv"), columns, labels, [2, 2, 3, 3], classes=(*names[:2], "noun: cut"))

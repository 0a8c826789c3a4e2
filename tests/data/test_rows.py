from pathlib import Path

import pytest

from mmaction_lite.data.annotations.rows import Rows
from mmaction_lite.errors import UserError


def test_rows_become_samples():
    rows = Rows(Path("folder/list.txt"))
    rows.add("a.mp4", "run", 1, segment=(0, 2), weight=1.0)
    rows.add("b.mp4", "jump", 4, segment=(1, 3), weight=0.5)
    samples = rows.samples(None)
    assert samples.classes == ("jump", "run")
    assert samples.labels.tolist() == [1, 0]
    assert samples.place(1) == "folder/list.txt:4"
    assert samples.segments is not None
    assert samples.segments.tolist() == [[0, 2], [1, 3]]
    assert samples.weights is not None
    assert samples.weights.tolist() == [1.0, 0.5]


def test_rows_without_a_label_are_an_error():
    rows = Rows(Path("list.csv"))
    rows.label_columns = ("labels",)
    rows.add("a.mp4", [], 2)
    with pytest.raises(UserError, match=r"list\.csv: no clip has a class; expected a label"):
        rows.samples(None)


def test_rows_keep_one_or_several_classes():
    rows = Rows(Path("/lists/train.txt"))
    rows.add("a.mp4", "run", 1)
    rows.add("b.mp4", ["jump", "run"], 3, segment=(0.0, 1.0), weight=2.0)
    assert (rows.labels, rows.label_ends, rows.lines) == (["run", "jump", "run"], [1, 3], [1, 3])
    assert (rows.root, len(rows)) == (Path("/lists"), 2)
    assert (rows.segments, rows.weights) == ([(0.0, 1.0)], [2.0])

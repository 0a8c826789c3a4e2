"""Score files in Parquet; tests/tasks/test_score_files.py compares them with `.npz`."""

import io

import numpy as np
import pytest

from mmaction_lite.tasks import score_parquet


def test_a_file_is_recognized_by_its_metadata(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    arrays = {
        "paths": np.array(["a"]),
        "labels": np.array([1]),
        "scores": np.ones((1, 2), np.float32) / 2,
        "class_names": np.array(["x", "y"]),
        "protocol": np.array("1 clip"),
        "task": np.array('{"task": "single_label"}'),
    }
    score_parquet.write(tmp_path / "s.parquet", arrays)
    with (tmp_path / "s.parquet").open("rb") as stream:
        assert score_parquet.is_score_file(stream)
        found = score_parquet.read(stream, 1 << 20, 10)
    assert found.keys() == arrays.keys()
    other = io.BytesIO()
    parquet.write_table(arrow.table({"a": [1]}), other)
    assert not score_parquet.is_score_file(other)

"""Files of predictions are complete after every row and replace nothing else."""

import csv
import json

import numpy as np
import pytest

from mmaction_lite.data.loading.loader import Fault
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.errors import UserError
from mmaction_lite.inference.predict import Prediction
from mmaction_lite.inference.prediction_files import PredictionFiles, to_row


@pytest.fixture
def result(recipe):
    scores = np.array([0.7, 0.2, np.nan], np.float32)
    protocol = Protocol(views=recipe.test)
    return Prediction(labels=("a, b", "c", "d"), scores=scores, protocol=protocol, video="x.mp4")


def test_rows_hold_the_chosen_classes(result):
    row = to_row(result, arithmetic="; bfloat16")
    assert [found["score"] for found in row["predictions"]] == [pytest.approx(0.7), pytest.approx(0.2), None]
    assert row["protocol"] == f"{result.protocol}; bfloat16"
    assert [found["label"] for found in to_row(result, top=1)["predictions"]] == ["a, b"]
    assert [found["label"] for found in to_row(result, threshold=0.1)["predictions"]] == ["a, b", "c"]
    assert to_row(Fault("y.mp4", "y.mp4: bad")) == {"video": "y.mp4", "error": "y.mp4: bad"}


def test_files_are_complete_after_every_row(result, tmp_path):
    table, lines = tmp_path / "a.csv", tmp_path / "a.jsonl"
    for _ in range(2):  # the second time replaces the files
        with PredictionFiles(table, lines) as files:
            files.write(to_row(result))
            assert len(table.read_text().splitlines()) == 4
            files.write(to_row(result, threshold=0.9))
            files.write(to_row(Fault("caf\udce9.mp4", "caf\udce9.mp4: bad")))
            rows = [json.loads(line) for line in lines.read_text().splitlines()]
        assert rows == [
            to_row(result),
            to_row(result, threshold=0.9),
            to_row(Fault("caf\udce9.mp4", "caf\udce9.mp4: bad")),
        ]
        with table.open(newline="") as file:
            found = list(csv.DictReader(file))
        assert [row["label"] for row in found] == ["a, b", "c", "d", "", ""]
        assert [row["rank"] for row in found] == ["1", "2", "3", "", ""]
        assert float(found[0]["score"]) == float(result.scores[0])
        assert found[2]["score"] == ""
        assert {row["protocol"] for row in found[:4]} == {str(result.protocol)}
        assert found[4]["error"] == "caf\\udce9.mp4: bad"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_other_files_are_not_replaced(name, tmp_path):
    path = tmp_path / name
    path.write_text('{"a": 1}\n')
    given = (path, None) if name == "a.csv" else (None, path)
    with pytest.raises(UserError, match="exists and is not a file of predictions"):
        PredictionFiles(*given)
    assert path.read_text() == '{"a": 1}\n'
    path.write_text("")  # of a command that was interrupted before its first video
    PredictionFiles(*given)


def test_one_name_for_both_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="name the same file"):
        PredictionFiles(tmp_path / "a", tmp_path / "a")

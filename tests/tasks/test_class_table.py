import csv
import io
import json

import numpy as np
import pytest

from mmaction_lite.tasks.class_table import class_table, mistake_table, to_csv
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.verb_noun import VerbNoun

NAMES = ("run, jump", 'the "end"', "two\nlines", "one\rline", "<b>&\u202e", "\udcff", "empty")


def results(task, labels, scores):
    return task.class_results(np.asarray(scores, np.float32), np.asarray(labels))


def test_rows_of_one_group_with_intervals_and_undefined_values():
    scores = np.eye(7)[[0, 0, 1, 2, 3, 4, 5]]
    scores[6] = np.nan
    (group,) = results(SingleLabel(), [0, 1, 1, 2, 3, 4, 5], scores)
    rows = class_table(group, NAMES)
    assert [row["name"] for row in rows] == list(NAMES)
    assert rows[1] | {"low": None, "high": None} == {
        **{
            "number": 1,
            "name": NAMES[1],
            "videos": 2,
            "correct": 1,
            "accuracy": 0.5,
            "low": None,
            "high": None,
        },
        **{"precision": 1.0, "f1": pytest.approx(2 / 3)},
    }
    assert (rows[0]["low"], rows[0]["high"]) == (pytest.approx(0.2065, abs=1e-4), 1.0)
    assert rows[5]["correct"] == 0  # unreadable
    assert (rows[6]["accuracy"], rows[6]["low"], rows[6]["precision"]) == (None, None, None)
    assert mistake_table(group, NAMES) == [{"true": NAMES[1], "predicted": NAMES[0], "videos": 1}]
    json.dumps(rows, allow_nan=False)


def test_names_round_trip_through_csv():
    (group,) = results(SingleLabel(), [0], np.eye(7)[[0]])
    text = to_csv(class_table(group, NAMES)).decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["name"] for row in rows] == list(NAMES)
    assert rows[6]["accuracy"] == ""
    assert to_csv([], ["true", "predicted"]) == b"true,predicted\r\n"


def test_groups_and_several_labels():
    verbs, nouns = results(VerbNoun(num_verbs=2), [[0, 1]], [[0.1, 0.9, 0.2, 0.8]])
    names = ("verb: open", "verb: close", "noun: door", "noun: jar")
    assert [(row["group"], row["name"]) for row in class_table(nouns, names)] == [
        ("noun", "door"),
        ("noun", "jar"),
    ]
    assert mistake_table(verbs, names) == [
        {"group": "verb", "true": "open", "predicted": "close", "videos": 1}
    ]
    (group,) = results(MultiLabel(), [[True, False]], [[0.9, 0.1]])
    assert class_table(group, ("a", "b"))[0]["average_precision"] == 1.0
    assert mistake_table(group, ("a", "b")) == []

"""Metrics that scikit-learn computes, and that our own equal those of scikit-learn."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.class_table import class_table
from mmaction_lite.tasks.further_metrics import TITLES, further_metrics
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.verb_noun import VerbNoun
from tests.tasks.test_fusion import table_of


def test_precision_recall_f1_and_support_of_each_class_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    table = table_of("a", 1, 200)
    table.scores[7] = np.nan  # predicted as no class
    predicted = np.where(np.arange(200) == 7, -1, np.nan_to_num(table.scores).argmax(1))
    expected = sklearn.precision_recall_fscore_support(
        table.labels, predicted, labels=range(4), zero_division=0
    )
    (group,) = table.task.class_results(table.scores, table.labels)
    rows = class_table(group, table.class_names)
    for name, values in zip(("precision", "accuracy", "f1", "videos"), expected, strict=True):
        np.testing.assert_allclose([row[name] for row in rows], values)
    found = further_metrics(table)
    assert found.keys() == TITLES.keys()
    assert found["macro_recall"] == pytest.approx(table.metrics["mean_class"])
    assert found["macro_f1"] == pytest.approx(expected[2].mean())
    assert 0.5 < found["roc_auc"] <= 1


def test_multi_label_takes_a_threshold_and_pairs_are_refused(monkeypatch):
    pytest.importorskip("sklearn.metrics")
    labels = np.random.default_rng(0).random((60, 4)) < 0.3
    scores = np.where(labels, 0.4, 0.1)
    scores[3] = np.nan
    table = table_of("a", 0, 60, task=MultiLabel(), labels=labels, scores=scores)
    assert further_metrics(table)["micro_f1"] == 0
    recall = further_metrics(table, 0.3)["macro_recall"]
    assert recall == pytest.approx(np.mean(1 - labels[3] / labels.sum(0)))
    with pytest.raises(UserError, match="--more takes one group of classes"):
        further_metrics(replace(table, task=VerbNoun(num_verbs=2)))
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"pip install 'mmaction-lite\[analysis\]'"):
        further_metrics(table)

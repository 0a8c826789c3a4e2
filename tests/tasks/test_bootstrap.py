"""Intervals of means over classes, compared with resampled metrics and with repeated draws of a split."""

import numpy as np
import pytest

from mmaction_lite.tasks import bootstrap
from mmaction_lite.tasks.bootstrap import bootstrap_intervals
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.single_label import SingleLabel

NAMES = {SingleLabel(): ("top1", "mean_class"), MultiLabel(): ("mean_average_precision", "top1")}


def single(rng: np.random.Generator, num_videos: int = 120) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.choice(4, num_videos, p=[0.4, 0.4, 0.15, 0.05])
    scores = rng.random((num_videos, 4))
    scores[np.arange(num_videos), labels] += 0.4
    return scores / scores.sum(1, keepdims=True), labels


def multi(rng: np.random.Generator, num_videos: int = 120) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.random((num_videos, 3)) < [0.5, 0.2, 0.1]
    return np.round(rng.random(labels.shape) * 0.7 + 0.3 * labels, 1), labels  # with equal scores


@pytest.mark.parametrize(
    ("task", "draw", "name"),
    [(SingleLabel(), single, "mean_class"), (MultiLabel(), multi, "mean_average_precision")],
)
def test_intervals_equal_those_of_resampled_metrics(task, draw, name, monkeypatch):
    monkeypatch.setattr(bootstrap, "MOST_VIDEOS", 37_000)  # several blocks of resamples
    rng = np.random.default_rng(0)
    scores, targets = draw(rng)
    scores[7] = np.nan  # an unreadable video
    found = bootstrap_intervals(task, scores, targets, NAMES[task])
    assert found.keys() == {name}
    assert found == bootstrap_intervals(task, scores, targets, NAMES[task])
    values = []
    for _ in range(1000):
        rows = rng.integers(0, len(scores), len(scores))
        values.append(task.metrics(scores[rows], targets[rows])[name])
    assert found[name] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.02)
    assert found[name][0] < task.metrics(scores, targets)[name] < found[name][1]


def test_large_splits_and_other_metrics_have_none(monkeypatch):
    scores, targets = single(np.random.default_rng(0))
    assert bootstrap_intervals(SingleLabel(), scores, targets, ["top1"]) == {}
    monkeypatch.setattr(bootstrap, "MOST_VALUES", 799)
    assert bootstrap_intervals(SingleLabel(), scores, targets, ["mean_class"]) == {}
    monkeypatch.setattr(bootstrap, "MOST_VALUES", 800)
    assert bootstrap_intervals(SingleLabel(), scores, targets, ["mean_class"])


def test_equal_resamples_claim_no_certainty():
    labels = np.arange(6) % 3
    for scores in (np.eye(3)[labels], np.full((6, 3), np.nan)):
        assert not bootstrap_intervals(SingleLabel(), scores, labels, ["mean_class"])
        names = ["mean_average_precision"]
        assert not bootstrap_intervals(MultiLabel(), scores, np.eye(3)[labels] > 0, names)

"""Comparison of two models: flipped videos, McNemar's exact test and the bootstrap."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite.tasks.comparison import compare, mcnemar, predicted_names
from mmaction_lite.tasks.verb_noun import VerbNoun
from tests.tasks.test_fusion import table_of


@pytest.mark.parametrize(
    ("fixed", "broken"), [(0, 0), (1, 0), (5, 1), (1, 5), (10, 10), (21, 9), (0, 12), (300, 250)]
)
def test_the_exact_test_is_the_binomial_sum(fixed, broken):
    number = fixed + broken
    tail = sum(math.comb(number, k) for k in range(min(fixed, broken) + 1))
    assert mcnemar(fixed, broken) == pytest.approx(min(1, 2 * tail / 2**number), rel=1e-10)


def test_values_by_hand_and_many_videos():
    assert mcnemar(5, 1) == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar(8, 0) == pytest.approx(2 / 256)
    assert 0 < mcnemar(500_000, 497_000) < 0.01
    assert mcnemar(1_000_000, 0) == 0


def test_flipped_videos_and_the_interval():
    before, after = table_of("before", 1, 400), table_of("after", 0, 400)
    after.scores[0] = np.nan
    found = compare(before, after)
    was = before.scores.argmax(1) == before.labels
    now = (after.scores.argmax(1) == after.labels) & (np.arange(400) > 0)
    assert found.fixed.tolist() == np.flatnonzero(~was & now).tolist()
    assert found.broken.tolist() == np.flatnonzero(was & ~now).tolist()
    assert found.both_correct + found.both_incorrect + len(found.fixed) + len(found.broken) == 400
    assert found.difference == pytest.approx(after.metrics["top1"] - before.metrics["top1"])
    assert found.low < found.difference < found.high
    # The standard error of a paired difference.
    error = np.std(now.astype(float) - was) / 20
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert compare(before, after, seed=0).low == found.low
    same = compare(before, before)
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_predictions_of_unreadable_videos_and_of_actions_have_names():
    table = table_of("a")
    table.scores[1] = np.nan
    names = predicted_names(table, [0, 1])
    assert names == [table.class_names[table.scores[0].argmax()], "unreadable"]
    classes = ["verb: open", "verb: close", "noun: door", "noun: box"]
    pairs = replace(table, task=VerbNoun().for_classes(classes), class_names=classes)
    assert predicted_names(pairs, [0])[0].split()[1] in ("door", "box")
    labeled = replace(pairs, labels=np.ones((40, 2), np.int64))
    assert compare(labeled, labeled).p_value == 1

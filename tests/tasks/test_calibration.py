"""The expected calibration error and the bins of the reliability picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmaction_lite.tasks.calibration import NUM_BINS, reliability, reliability_of
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.verb_noun import VerbNoun


def test_the_error_of_calibrated_predictions_is_near_zero_and_that_of_overconfident_ones_is_not():
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    correct = rng.random(200_000) < confidence
    assert reliability(confidence, correct).error < 0.005
    assert reliability(confidence, rng.random(200_000) < confidence**2).error == pytest.approx(
        1 / 6, abs=0.01
    )


def test_the_error_of_a_few_decisions_is_that_by_hand():
    confidence = np.array([0.9, 0.95, 0.6, 0.62, 1.0, 0.0])
    correct = np.array([True, False, True, False, True, False])
    found = reliability(confidence, correct, 5)  # (0.8, 1.0] holds three, (0.4, 0.6] one, (0.6, 0.8] one
    assert found.counts.tolist() == [1, 0, 1, 1, 3]
    by_hand = (1 * 0.0 + 1 * (1 - 0.6) + 1 * 0.62 + 3 * abs(2 / 3 - 2.85 / 3)) / 6
    assert found.error == pytest.approx(by_hand)
    assert np.isnan(found.accuracies[1])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_every_decision_is_in_one_bin_and_the_error_is_a_share(decisions):
    confidence, correct = (np.array(column) for column in zip(*decisions, strict=True))
    found = reliability(confidence.astype(float), correct.astype(bool))
    assert found.counts.sum() == len(decisions)
    assert len(found.counts) == NUM_BINS
    assert 0 <= found.error <= 1


def test_the_decisions_of_every_task_and_unreadable_videos():
    scores = np.array([[0.7, 0.3], [np.nan, np.nan], [0.4, 0.6]])
    single = reliability_of(SingleLabel(), scores, np.array([0, 0, 0]))
    assert (single.counts.sum(), single.error) == (2, pytest.approx((0.3 + 0.6) / 2))
    labels = np.array([[1, 0], [1, 1], [0, 0]], bool)
    multi = reliability_of(MultiLabel(), scores, labels)
    assert multi.counts.sum() == 4  # two readable videos of two classes
    pairs = reliability_of(
        VerbNoun(num_verbs=1),
        np.array([[1.0, 0.7, 0.3], [1.0, 0.2, 0.8]]),
        np.array([[0, 0], [0, 0]]),
    )
    assert pairs.error == pytest.approx((0.3 + 0.8) / 2)  # the probability of the action

import numpy as np
import pytest

from mmaction_lite.tasks.metrics import LONG_TITLES, TITLES, describe, ranks, top_k, worst_videos


def test_a_tie_is_no_gain_and_an_unreadable_video_is_last():
    scores = np.array([[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [np.nan] * 3])
    rank = ranks(scores, np.array([1, 0, 0]))
    assert rank.tolist() == [1, 1, np.inf]
    assert top_k(rank, 1) == 0
    assert top_k(rank, 2) == pytest.approx(2 / 3)


def test_metrics_are_described_in_the_given_order():
    assert describe({"top1": 0.5, "top5": 1.0}, ["top5", "top1"], 0) == "top-5 100%, top-1 50%"
    assert TITLES.keys() == LONG_TITLES.keys()


def test_worst_videos_are_incorrect_ones_with_the_lowest_score():
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [np.nan, np.nan], [0.7, 0.3], [0.8, 0.2]])
    is_true = np.array([[1, 0], [0, 1], [0, 1], [0, 1], [0, 0]], bool)
    indices, true_scores = worst_videos(scores, is_true, 5)
    assert indices.tolist() == [3, 1]
    assert true_scores.tolist() == [0.3, 0.4]

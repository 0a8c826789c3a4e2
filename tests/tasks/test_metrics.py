import numpy as np
import pytest

from mmaction_lite.tasks.metrics import (
    LONG_TITLES,
    TITLES,
    class_results,
    confusion,
    describe,
    most_confused,
    ranks,
    top_k,
    worst_videos,
)


def test_ties_do_not_improve_the_rank_and_unreadable_videos_are_last():
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


def test_confusion_and_class_metrics_by_hand():
    labels, predictions = np.array([0, 0, 0, 1, 1, 3]), np.array([0, 0, 1, 1, 0, 1])
    matrix = confusion(labels, predictions, 4)
    np.testing.assert_array_equal(matrix, [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    classes = class_results(
        np.diag(matrix), matrix.sum(0), np.array([4, 2, 0, 1])
    )  # one more video of class 0 was unreadable
    np.testing.assert_allclose(classes.recall, [2 / 4, 1 / 2, np.nan, 0])
    np.testing.assert_allclose(classes.precision, [2 / 3, 1 / 3, np.nan, np.nan])
    np.testing.assert_allclose(classes.f1, [4 / 7, 2 / 5, np.nan, 0])


def test_most_confused_pairs_are_off_the_diagonal_and_most_frequent_first():
    matrix = np.array([[90, 2, 0], [5, 0, 1], [0, 0, 7]])
    assert most_confused(matrix, 20) == [(1, 0, 5), (0, 1, 2), (1, 2, 1)]
    assert most_confused(matrix, 1) == [(1, 0, 5)]

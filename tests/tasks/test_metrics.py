import numpy as np
import pytest

from mmaction_lite.tasks.metrics import (
    LONG_TITLES,
    TITLES,
    class_results,
    confusion,
    count_mistakes,
    describe,
    ranks,
    single_label_results,
    top_k,
    wilson_interval,
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
    indices, true_scores = worst_videos(scores, np.array([0, 1, 1, 1, 0]), 1)
    assert (indices.tolist(), true_scores.tolist()) == ([3], [0.3])


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
    true, predicted = (np.repeat(index, matrix.ravel()) for index in np.indices(matrix.shape).reshape(2, -1))
    assert count_mistakes(true, predicted, 3).tolist() == [[1, 0, 5], [0, 1, 2], [1, 2, 1]]
    assert count_mistakes(true[:90], predicted[:90], 3).tolist() == []


def test_wilson_interval_by_hand_and_at_the_ends():
    assert wilson_interval(6, 8) == pytest.approx((0.4093, 0.9285), abs=1e-4)
    assert wilson_interval(8, 8) == (pytest.approx(0.6756, abs=1e-4), 1.0)
    assert wilson_interval(0, 8) == (0.0, pytest.approx(0.3244, abs=1e-4))
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(np.array([6, 0, 0]), np.array([8, 0, 8]))
    np.testing.assert_allclose([low, high], [[0.4093, 0, 0], [0.9285, 1, 0.3244]], atol=1e-4)


def test_a_description_with_intervals():
    values = {"top1": 1.0, "mean_class": 1.0}
    assert describe(values, ["top1", "mean_class"], 2, videos=8) == (
        "top-1 100.00% (95% interval 67.6 to 100.0%), mean class 100.00%"
    )


def test_results_of_many_classes_have_no_dense_matrix():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((60, 1200), np.float32), rng.integers(0, 1200, 60)
    scores[5] = np.nan
    scores[np.arange(30, 60), labels[30:]] = 2
    found = single_label_results(scores, labels)
    assert found.confusion is None
    assert found.mistakes is not None
    assert found.mistakes[:, 2].sum() == 60 - 1 - found.correct.sum()
    assert (found.videos.sum(), found.correct.sum() >= 30) == (60, True)

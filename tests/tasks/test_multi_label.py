import numpy as np
import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.single_label import SingleLabel

BINARY = SingleLabel(criterion="binary_cross_entropy")


def test_every_class_by_itself():
    logits = torch.tensor([[0.0, 2.0]])
    p = torch.tensor(2.0).sigmoid()
    expected = -(torch.tensor(0.5).log() + p.log()) / 2
    torch.testing.assert_close(MultiLabel().loss(logits, torch.tensor([[1.0, 1.0]]))[0], expected)
    one = BINARY.loss(logits, torch.tensor([1]))
    torch.testing.assert_close(one, MultiLabel().loss(logits, torch.tensor([[0.0, 1.0]])))
    smooth = BINARY.loss(logits, torch.tensor([1]), label_smoothing=0.2)
    torch.testing.assert_close(smooth, BINARY.loss(logits, torch.tensor([[0.1, 0.9]])))


def test_correct_is_any_of_the_classes():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    several = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    assert MultiLabel().correct(logits, several).tolist() == [1, 0]


def test_targets_of_clips_with_two_classes_and_with_none():
    assert MultiLabel().target(np.array([0, 2]), 3).tolist() == [1, 0, 1]
    targets = MultiLabel().targets(np.array([0, 2]), np.array([2, 0]), 3)
    assert targets.tolist() == [[True, False, True], [False] * 3]


def test_recall_and_precision_at_a_half():
    scores = np.array([[0.9, 0.6], [0.8, 0.4], [np.nan, np.nan]])
    targets = np.array([[1, 0], [0, 1], [1, 0]], bool)
    (results,) = MultiLabel().class_results(scores, targets)
    assert results.confusion is None
    assert results.recall.tolist() == [0.5, 0]
    assert results.precision.tolist() == [0.5, 0]
    assert results.average_precision is not None


def test_a_mistake_names_all_true_classes():
    scores = np.array([[0.2, 0.1, 0.7]])
    (mistake,) = MultiLabel().mistakes(scores, np.array([[True, True, False]]), ["a", "b", "c"], 5)
    assert (mistake.true, mistake.true_score, mistake.predicted) == ("a, b", 0.1, "c")


def test_separate_columns_are_refused():
    MultiLabel().check_labels(("label",), "train.csv")
    with pytest.raises(UserError, match=r"train\.csv: .* verb and noun.*task=verb_noun"):
        MultiLabel().check_labels(("verb", "noun"), "train.csv")

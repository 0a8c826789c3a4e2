import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mmaction_lite.errors import UserError
from mmaction_lite.tasks.single_label import SingleLabel

CROSS_ENTROPY = SingleLabel()
BINARY = SingleLabel(criterion="binary_cross_entropy")


def test_cross_entropy_is_that_of_pytorch():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 0])
    losses = CROSS_ENTROPY.loss(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(losses.mean(), cross_entropy(logits, labels, label_smoothing=0.1))
    torch.testing.assert_close(
        losses, CROSS_ENTROPY.loss(logits, CROSS_ENTROPY.dense(labels, 4), label_smoothing=0.1)
    )


@pytest.mark.parametrize("task", [CROSS_ENTROPY, BINARY])
def test_the_loss_of_a_clip_is_independent_of_other_clips(task):
    logits, labels, weights = (
        torch.randn(6, 3),
        torch.tensor([0, 1, 2, 0, 0, 1]),
        torch.tensor([0.5, 1.0, 2.0]),
    )
    whole = task.loss(logits, labels, class_weights=weights)
    parts = [task.loss(logits[i : i + 2], labels[i : i + 2], class_weights=weights) for i in (0, 2, 4)]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert not torch.allclose(whole, task.loss(logits, labels))


def test_correct_of_indices_and_of_shares():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    assert CROSS_ENTROPY.correct(logits, torch.tensor([1, 2])).tolist() == [1, 0]
    several = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    assert CROSS_ENTROPY.correct(logits, several).tolist() == [1, 0]  # shares after mixing


def test_probabilities_are_those_of_the_criterion():
    logits = torch.randn(2, 3)
    torch.testing.assert_close(CROSS_ENTROPY.probabilities(logits), logits.softmax(-1))
    torch.testing.assert_close(BINARY.probabilities(logits), logits.sigmoid())


def test_log_loss_is_that_of_the_true_class():
    scores = np.array([[0.5, 0.5], [0.1, 0.9]])
    assert CROSS_ENTROPY.log_loss(scores, np.array([0, 1])) == pytest.approx(-np.log([0.5, 0.9]).mean())


def test_a_target_is_the_class_index():
    assert CROSS_ENTROPY.target(np.array([3]), 5) == 3
    assert CROSS_ENTROPY.targets(np.array([3, 1]), np.array([1, 1]), 5).tolist() == [3, 1]


def test_other_labels_are_refused():
    CROSS_ENTROPY.check_labels(("label",), "train.csv")
    with pytest.raises(UserError, match=r"train\.csv: clips have any number of classes.*task=multi_label"):
        CROSS_ENTROPY.check_labels(("labels",), "train.csv")
    with pytest.raises(UserError, match=r"train\.csv: .* verb and noun.*task=verb_noun"):
        CROSS_ENTROPY.check_labels(("verb", "noun"), "train.csv")


def test_an_unknown_criterion_is_refused():
    with pytest.raises(UserError, match="criterion"):
        SingleLabel(criterion="hinge")  # pyright: ignore[reportArgumentType]

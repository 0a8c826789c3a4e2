import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mmaction_lite.tasks.losses import balanced_weights
from mmaction_lite.tasks.multi_label import MultiLabel
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


def test_every_class_by_itself():
    logits = torch.tensor([[0.0, 2.0]])
    p = torch.tensor(2.0).sigmoid()
    expected = -(torch.tensor(0.5).log() + p.log()) / 2
    torch.testing.assert_close(MultiLabel().loss(logits, torch.tensor([[1.0, 1.0]]))[0], expected)
    one = BINARY.loss(logits, torch.tensor([1]))
    torch.testing.assert_close(one, MultiLabel().loss(logits, torch.tensor([[0.0, 1.0]])))
    smooth = BINARY.loss(logits, torch.tensor([1]), label_smoothing=0.2)
    torch.testing.assert_close(smooth, BINARY.loss(logits, torch.tensor([[0.1, 0.9]])))


def test_balanced_weights_make_classes_equally_important():
    counts = np.array([90, 10, 0])
    weights = balanced_weights(counts)
    assert weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[2] == 0


@pytest.mark.parametrize("task", [CROSS_ENTROPY, BINARY])
def test_weights_do_not_depend_on_the_clips_beside(task):
    logits, labels, weights = (
        torch.randn(6, 3),
        torch.tensor([0, 1, 2, 0, 0, 1]),
        torch.tensor([0.5, 1.0, 2.0]),
    )
    whole = task.loss(logits, labels, class_weights=weights)
    parts = [task.loss(logits[i : i + 2], labels[i : i + 2], class_weights=weights) for i in (0, 2, 4)]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert not torch.allclose(whole, task.loss(logits, labels))


def test_hits():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    assert CROSS_ENTROPY.correct(logits, torch.tensor([1, 2])).tolist() == [1, 0]
    several = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    assert CROSS_ENTROPY.correct(logits, several).tolist() == [1, 0]  # shares after mixing
    assert MultiLabel().correct(logits, several).tolist() == [1, 0]

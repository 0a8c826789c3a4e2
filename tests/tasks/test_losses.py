import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mmaction_lite.tasks.losses import balanced_weights, clip_losses, correct, dense


def test_cross_entropy_is_that_of_pytorch():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 0])
    losses = clip_losses(logits, labels, "cross_entropy", 0.1)
    torch.testing.assert_close(losses.mean(), cross_entropy(logits, labels, label_smoothing=0.1))
    torch.testing.assert_close(losses, clip_losses(logits, dense(labels, 4), "cross_entropy", 0.1))


def test_every_class_by_itself():
    logits = torch.tensor([[0.0, 2.0]])
    p = torch.tensor(2.0).sigmoid()
    expected = -(torch.tensor(0.5).log() + p.log()) / 2
    torch.testing.assert_close(
        clip_losses(logits, torch.tensor([[1.0, 1.0]]), "binary_cross_entropy")[0], expected
    )
    one = clip_losses(logits, torch.tensor([1]), "binary_cross_entropy")
    torch.testing.assert_close(one, clip_losses(logits, torch.tensor([[0.0, 1.0]]), "binary_cross_entropy"))
    smooth = clip_losses(logits, torch.tensor([1]), "binary_cross_entropy", 0.2)
    torch.testing.assert_close(
        smooth, clip_losses(logits, torch.tensor([[0.1, 0.9]]), "binary_cross_entropy")
    )


def test_balanced_weights_make_classes_equally_important():
    counts = np.array([90, 10, 0])
    weights = balanced_weights(counts)
    assert weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[2] == 0


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_weights_do_not_depend_on_the_clips_beside(name):
    logits, labels, weights = (
        torch.randn(6, 3),
        torch.tensor([0, 1, 2, 0, 0, 1]),
        torch.tensor([0.5, 1.0, 2.0]),
    )
    whole = clip_losses(logits, labels, name, weights=weights)
    parts = [clip_losses(logits[i : i + 2], labels[i : i + 2], name, weights=weights) for i in (0, 2, 4)]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert not torch.allclose(whole, clip_losses(logits, labels, name))


def test_hits():
    logits = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
    assert correct(logits, torch.tensor([1, 2])).tolist() == [1, 0]
    assert correct(logits, torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])).tolist() == [1, 0]

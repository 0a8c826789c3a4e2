import numpy as np
import pytest
import torch

from mmaction_lite.tasks.losses import balanced_weights, binary_cross_entropy, one_hot_shares


def test_balanced_weights_make_classes_equally_important():
    counts = np.array([90, 10, 0])
    weights = balanced_weights(counts)
    assert weights[0] * 90 == pytest.approx(weights[1] * 10)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[2] == 0


def test_smoothing_spreads_a_share_over_all_classes():
    logits, shares = torch.randn(4, 5), one_hot_shares(torch.tensor([0, 1, 2, 4]), 5)
    smoothed = binary_cross_entropy(logits, shares, label_smoothing=0.1)
    torch.testing.assert_close(smoothed, binary_cross_entropy(logits, 0.9 * shares + 0.02))

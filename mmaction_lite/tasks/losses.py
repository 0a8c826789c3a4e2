"""Losses of single clips, and class weights for them."""

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """Return class weights, float32 (K,), that give all classes the same total weight.

    Their mean over the clips is 1.

    Args:
        counts: clips of each class, int (K,). A class without clips gets weight 0.
    """
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * counts.clip(1)), 0).astype(np.float32)


def one_hot_shares(labels: Tensor, num_classes: int) -> Tensor:
    """Convert class indices, int64 (B,), to shares of the classes, float32 (B, K)."""
    return one_hot(labels, num_classes).float()


def binary_cross_entropy(
    logits: Tensor, shares: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Return the mean over the classes of the binary cross entropy of every clip, float32 (B,).

    Args:
        logits: (B, K).
        shares: shares of the classes, float (B, K).
        label_smoothing: share of the target that is spread over all classes.
        class_weights: one weight per class, float (K,).
    """
    logits = logits.float()
    shares = shares * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    return binary_cross_entropy_with_logits(logits, shares, class_weights, reduction="none").mean(1)

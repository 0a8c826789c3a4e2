"""What training makes small: cross entropy of one class, or of each class by itself."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

LossName = Literal["cross_entropy", "binary_cross_entropy"]


def balanced_weights(counts: np.ndarray) -> np.ndarray:
    """Loss weights of the classes, float32 (K,), that make all equally important; their mean over clips is 1.

    Args:
        counts: clips of each class, int (K,). A class without clips gets weight 0.
    """
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * counts.clip(1)), 0).astype(np.float32)


def dense(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as shares of the classes, float32 (B, K): from int64 (B,), or as they are."""
    return one_hot(labels, num_classes).float() if labels.ndim == 1 else labels


def clip_losses(
    logits: Tensor,
    targets: Tensor,
    name: LossName,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """The loss of every clip, float32 (B,).

    Class weights multiply the terms, and nothing is divided by their sum: the loss of a clip does not
    depend on the clips beside it, so a batch may be divided in any way.

    Args:
        logits: (B, K).
        targets: int64 (B,), or the shares of the classes, float (B, K).
        name: "cross_entropy", or "binary_cross_entropy": every class is a question of its own, whose terms
            are averaged.
        label_smoothing: share of the target that is spread over all classes.
        weights: of the classes, float (K,).
    """
    logits = logits.float()
    if name == "cross_entropy":
        return cross_entropy(logits, targets, weights, label_smoothing=label_smoothing, reduction="none")
    targets = dense(targets, logits.shape[1])
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[1]
    return binary_cross_entropy_with_logits(logits, targets, weights, reduction="none").mean(1)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether the best class of each clip is right, float32 (B,), for labels int64 (B,) or float (B, K)."""
    best = logits.argmax(1)
    if labels.ndim == 1:
        return (best == labels).float()
    return (labels.gather(1, best[:, None])[:, 0] > 0).to(torch.float32)

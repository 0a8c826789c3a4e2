"""Batch normalization in training: which running statistics are updated, and how they are measured."""

from collections.abc import Collection, Iterable
from typing import Literal

import torch
from torch import Tensor, nn

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
BatchNormMode = Literal["train", "frozen", "partial", "sync"]


def set_batch_norm(model: nn.Module, mode: BatchNormMode) -> list[nn.Module]:
    """Freeze batch normalization as `mode` demands; return the modules that must stay in evaluation mode.

    Args:
        model: the network.
        mode: "train" and "sync": freeze nothing. "frozen": freeze the running statistics of all modules;
            weights and biases are trained. "partial": freeze statistics, weights and biases of all modules
            but the first (Wang et al. 2016, arXiv:1608.00859, section 3.2).
    """
    norms = _batch_norms(model)
    if mode == "frozen":
        return [*norms]
    if mode == "partial":
        for norm in norms[1:]:
            norm.requires_grad_(False)
        return [*norms[1:]]
    return []


@torch.no_grad()
def measure_statistics(
    model: nn.Module, inputs: Iterable[Tensor], frozen: Collection[nn.Module] = ()
) -> None:
    """Set the running statistics of batch normalization to their mean over `inputs`, in place.

    Precise batch normalization (Wu & Johnson 2021, arXiv:2105.07576, section 3): the running averages of a
    training lag behind the weights. All other modules run in evaluation mode.

    Args:
        model: the network; left in evaluation mode, except for its batch normalization.
        inputs: one batch each, as the network takes them.
        frozen: modules whose running statistics do not change. If no others are left, `inputs` are not read.
    """
    norms = [norm for norm in _batch_norms(model) if norm not in frozen]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average instead of an exponential one
        norm.train()
    for batch in inputs:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _batch_norms(model: nn.Module) -> list[BatchNorm]:
    return [module for module in model.modules() if isinstance(module, BatchNorm)]

"""Frozen and measured running statistics."""

import torch
from torch import nn

from mmaction_lite.models import tsm_r10
from mmaction_lite.optim.batch_norm import BatchNormMode, measure_statistics, set_batch_norm


def test_modes_freeze_what_they_name():
    norms = [module for module in tsm_r10().modules() if isinstance(module, nn.BatchNorm2d)]
    cases: list[tuple[BatchNormMode, int, int]] = [
        ("train", 0, len(norms)),
        ("sync", 0, len(norms)),
        ("frozen", len(norms), len(norms)),
        ("partial", len(norms) - 1, 1),
    ]
    for mode, frozen, trained in cases:
        model = tsm_r10()
        assert len(set_batch_norm(model, mode)) == frozen
        of_model = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        assert sum(norm.weight.requires_grad for norm in of_model) == trained


def test_statistics_are_the_mean_over_all_batches():
    norm = nn.BatchNorm1d(3, momentum=0.2)
    model = nn.Sequential(norm, nn.Dropout(0.5))
    model(torch.rand(4, 3) + 5)  # statistics to be forgotten
    batches = [torch.rand(4, 3) for _ in range(3)]
    measure_statistics(model, batches)
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert norm.momentum == 0.2
    assert not model[1].training

"""Optimizers built from settings."""

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10
from mmaction_lite.optim.optimizers import SGD, AdamW, set_lr


def test_settings_reach_the_optimizer():
    model = tsm_r10()
    sgd = SGD(lr=0.1, momentum=0.8, weight_decay=0.01, nesterov=True).build(model)
    assert isinstance(sgd, torch.optim.SGD)
    (group,) = sgd.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.8, 0.01)
    assert group["nesterov"]
    adamw = AdamW(lr=0.1, betas=(0.8, 0.9), groups="no_decay").build(model)
    assert isinstance(adamw, torch.optim.AdamW)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.05, 0.0]
    assert adamw.param_groups[0]["betas"] == (0.8, 0.9)


def test_groups_keep_their_factor_of_the_learning_rate():
    optimizer = AdamW(lr=0.1, layer_decay=0.5).build(tsm_r10())
    set_lr(optimizer, 0.32)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx(
        [0.01, 0.02, 0.04, 0.08, 0.16, 0.32]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": -1}, "AdamW: lr is -1; expected a number, at least 0"),
        ({"lr": float("inf")}, "AdamW: lr is inf; expected a number"),
        ({"weight_decay": -0.1}, "AdamW: weight_decay is -0.1; expected a number, at least 0"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5; expected a number, above 0 and at most 1"),
        ({"betas": (0.9, 1.0)}, "betas is .*each a number, at least 0 and below 1"),
    ],
)
def test_rates_have_bounds(arguments, message):
    with pytest.raises(UserError, match=message):
        AdamW(**{"lr": 0.1} | arguments)

"""Gradual unfreezing: what is frozen, and what the optimizer knows of it."""

import pytest
import torch
from torch import nn

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10
from mmaction_lite.optim import SGD, AdamW, freeze
from mmaction_lite.optim.unfreezing import Unfreeze, freeze_backbone


def test_everything_but_the_classifier_is_frozen_until_it_is_unfrozen():
    model = tsm_r10(width=8)
    freeze(model, 1)
    first = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    frozen = freeze_backbone(model)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    norms = {module for module in model.modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms < set(frozen.modules)
    assert not {model, model.get_submodule("dropout"), model.get_submodule("fc")} & set(frozen.modules)
    frozen.unfreeze()
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == first


class Plain(nn.Module):
    """A network without a method `layers`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Dropout(0.5))
        self.fc = nn.Linear(4, 2)


def test_a_network_without_layers_keeps_its_last_linear_layer_trained():
    model = Plain()
    frozen = freeze_backbone(model)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    assert frozen.modules == [model.stem[0], model.stem[1]]


@pytest.mark.parametrize("optimizer", [SGD(lr=1.0, groups="tsm"), AdamW(lr=1.0, layer_decay=0.5)])
def test_layers_below_the_classifier_have_a_share_of_its_learning_rate(optimizer):
    model = tsm_r10(width=8)
    plain, shared = optimizer.build(model), optimizer.build(model, 0.1)

    def rates(built: torch.optim.Optimizer) -> dict[nn.Parameter, tuple[float, float]]:
        groups = built.param_groups
        return {p: (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}

    before, after = rates(plain), rates(shared)
    for name, parameter in model.named_parameters():
        factor = 1.0 if name.startswith("fc.") else 0.1
        assert after[parameter] == pytest.approx((before[parameter][0] * factor, before[parameter][1])), name


def test_settings_are_checked():
    with pytest.raises(UserError, match="Unfreeze: epoch is 0; expected an integer, at least 1"):
        Unfreeze(epoch=0)
    with pytest.raises(UserError, match="Unfreeze: lr_share is 0"):
        Unfreeze(lr_share=0.0)

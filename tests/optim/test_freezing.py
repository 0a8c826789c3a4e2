"""Freezing by name and by layer."""

import pytest
from torch import nn

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10
from mmaction_lite.optim.freezing import freeze


def trained(model: nn.Module) -> set[str]:
    """The first two words of the names of trained parameters."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {".".join(name.split(".")[:2]) for name in names}


def test_layers_are_frozen_from_the_stem():
    model = tsm_r10()
    modules = freeze(model, 3)
    assert trained(model) == {"backbone.layer3", "backbone.layer4", "fc.weight", "fc.bias"}
    assert {model.backbone.bn1, *model.backbone.layer2.modules()} <= set(modules)  # pyright: ignore
    assert not set(model.backbone.layer3.modules()) & set(modules)  # pyright: ignore
    assert freeze(tsm_r10(), 0) == []


def test_modules_are_frozen_by_name():
    model = tsm_r10()
    modules = freeze(model, ("backbone.conv1", "backbone.bn1"))
    assert trained(model) & {"backbone.conv1", "backbone.bn1"} == set()
    assert set(modules) == {model.backbone.conv1, model.backbone.bn1}  # pyright: ignore
    with pytest.raises(UserError, match=r"nothing named 'backbone\.con'; nearest: backbone\.conv1"):
        freeze(model, ("backbone.con",))


def test_something_is_left_to_train():
    with pytest.raises(UserError, match="freeze: backbone, fc leave nothing to train"):
        freeze(tsm_r10(), ("backbone", "fc"))
    with pytest.raises(UserError, match="freeze is 6; expected 0 to 5 layers of Recognizer, or names"):
        freeze(tsm_r10(), 6)

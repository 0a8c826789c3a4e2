"""Gradual unfreezing: train only the classifier first, and the whole network from a later epoch."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import nn

from mmaction_lite.models.network import head_layer, layers
from mmaction_lite.settings import PositiveFraction, PositiveInt, check_fields


@dataclass(frozen=True, kw_only=True)
class Unfreeze:
    """Train only the classifier at first, then all layers, with a smaller learning rate below the classifier.

    A classifier with random weights sends large, useless gradients into the trained layers below it. These
    layers stay unchanged until the classifier fits the data (Howard & Ruder 2018, arXiv:1801.06146,
    section 3.3).

    Args:
        epoch: epoch from which all layers are trained. If the training has no more epochs than this, only the
            classifier is trained.
        lr_share: learning rate of the layers below the classifier, as a share of that of the classifier. With
            `layer_decay`, both factors apply.
    """

    epoch: PositiveInt = 1
    lr_share: PositiveFraction = 0.1

    def __post_init__(self):
        check_fields(self)


class FrozenBackbone(NamedTuple):
    """Everything below the classifier, while it is frozen.

    Args:
        parameters: parameters that are not trained yet.
        modules: modules that stay in evaluation mode: their running statistics do not change, and they drop
            nothing.
    """

    parameters: list[nn.Parameter]
    modules: list[nn.Module]

    def unfreeze(self) -> None:
        """Train the parameters from now on."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)


def freeze_backbone(model: nn.Module) -> FrozenBackbone:
    """Exclude everything but the classifier from training, in place.

    Modules without parameters between the layers and the classifier, such as its dropout, stay in training
    mode.

    Args:
        model: the network. Parameters that are frozen already stay frozen after `FrozenBackbone.unfreeze`.

    Raises:
        UserError: the network has no classifier, see `models.network.head_layer`.
    """
    classifier = head_layer(model)
    trained = set(classifier.parameters())
    parameters = [p for p in model.parameters() if p.requires_grad and p not in trained]
    for parameter in parameters:
        parameter.requires_grad_(False)
    inside = {module for layer in layers(model)[:-1] for module in layer.modules()}
    kept = set(classifier.modules())
    modules = []
    for module in model.modules():
        has_tensors = bool(module._parameters) or bool(module._buffers)
        is_above = any(child in kept for child in module.modules())  # contains the classifier, or is in it
        if module in inside or (has_tensors and not is_above):
            modules.append(module)
    return FrozenBackbone(parameters, modules)

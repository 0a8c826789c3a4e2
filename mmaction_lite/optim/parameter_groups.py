"""Parameter groups: which parameters share a learning rate and a weight decay.

A group holds, besides `params` and `weight_decay`, the factor `lr_scale` of its learning rate.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.network import head, head_layer, layers

Group = dict[str, Any]

BIAS_TABLE = "relative_position_bias_table"
"""Last part of the names of tables with a bias for every relative position."""


def uniform_groups(model: nn.Module, weight_decay: float) -> list[Group]:
    """Return one group with all trained parameters."""
    params = [p for p in model.parameters() if p.requires_grad]
    return [{"params": params, "lr_scale": 1.0, "weight_decay": weight_decay}]


def no_decay_groups(model: nn.Module, weight_decay: float) -> list[Group]:
    """Return two groups: weights with weight decay, all other parameters without.

    The others are those of one dimension (biases, normalization), tables of relative position biases, and
    parameters that belong to the network itself and to none of its submodules, such as class tokens and
    position embeddings.
    """
    own = set(model.parameters(recurse=False))
    own |= {p for name, p in model.named_parameters() if name.endswith(BIAS_TABLE)}
    params = [p for p in model.parameters() if p.requires_grad]
    parts = (
        [p for p in params if p.ndim > 1 and p not in own],
        [p for p in params if p.ndim <= 1 or p in own],
    )
    return [
        {"params": part, "lr_scale": 1.0, "weight_decay": decay}
        for part, decay in zip(parts, (weight_decay, 0.0), strict=True)
        if part
    ]


def tsm_groups(model: nn.Module, weight_decay: float) -> list[Group]:
    """Return the groups of TSM's published training.

    Source: `get_optim_policies` of mit-han-lab/temporal-shift-module.
    Factors of the learning rate: weights of convolutions 1, with weight decay; their biases 2, without;
    normalization 1, without; the weight of the classifier 5, with weight decay; its bias 10, without. For RGB
    the first convolution has the same factors as the others.

    Raises:
        UserError: the network has no classifier, see `models.network.head`.
    """
    classifier = set(head(model).modules())
    parts: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                lr_scale, decays = _tsm_factors(module, name == "bias", module in classifier)
                parts.setdefault((lr_scale, weight_decay if decays else 0.0), []).append(parameter)
    return [
        {"params": params, "lr_scale": lr_scale, "weight_decay": decay}
        for (lr_scale, decay), params in parts.items()
    ]


def swin_groups(model: nn.Module, weight_decay: float) -> list[Group]:
    """Return the groups of the published training of Video Swin.

    The learning rate below the classifier has the factor 0.1. Layer normalization and tables of relative
    position biases have no weight decay, all other parameters do. Source: the configurations of
    SwinTransformer/Video-Swin-Transformer, as MMAction2 applies them. The older MMCV, with which the authors
    trained, applies only the longest matching rule to a parameter: there, bias tables have the whole learning
    rate, and layer normalization below the classifier has weight decay.

    Raises:
        UserError: the network has no classifier, see `models.network.head_layer`.
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                is_exempt = isinstance(module, nn.LayerNorm) or name == BIAS_TABLE
                (others if is_exempt else decayed).append(parameter)
    groups = [
        {"params": params, "lr_scale": 1.0, "weight_decay": decay}
        for params, decay in ((decayed, weight_decay), (others, 0.0))
        if params
    ]
    return scale_backbone(model, groups, 0.1)


def _tsm_factors(module: nn.Module, is_bias: bool, is_classifier: bool) -> tuple[float, bool]:
    """Return the factor of the learning rate of a parameter, and whether weight decay applies."""
    if is_classifier:
        return (10.0, False) if is_bias else (5.0, True)
    if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
        return (2.0, False) if is_bias else (1.0, True)
    return (1.0, False)


GROUPS: dict[str, Callable[[nn.Module, float], list[Group]]] = {
    "uniform": uniform_groups,
    "no_decay": no_decay_groups,
    "tsm": tsm_groups,
    "swin": swin_groups,
}


def decay_layers(model: nn.Module, groups: list[Group], decay: float) -> list[Group]:
    """Split groups by layer, and multiply the learning rate of a layer by `decay` per layer above it.

    The head keeps its learning rate; the stem, which depends least on the data set, changes least (Howard &
    Ruder 2018, arXiv:1801.06146, section 3.2). In a network of one layer nothing changes.

    Args:
        model: the network.
        groups: of its parameters.
        decay: above 0, at most 1.

    Raises:
        UserError: see `layer_numbers`.
    """
    if decay == 1:
        return groups
    numbers = layer_numbers(model)
    top = max(numbers.values())
    split: dict[tuple[int, int], Group] = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            number = numbers[parameter]
            lr_scale = group["lr_scale"] * decay ** (top - number)
            part = split.setdefault((index, number), group | {"params": [], "lr_scale": lr_scale})
            part["params"].append(parameter)
    return list(split.values())


def scale_backbone(model: nn.Module, groups: list[Group], share: float) -> list[Group]:
    """Split groups into classifier and rest, and multiply the learning rate of the rest by `share`.

    Args:
        model: the network.
        groups: of its parameters.
        share: learning rate of all layers below the classifier, relative to that of the classifier.

    Raises:
        UserError: the network has no classifier, see `models.network.head_layer`.
    """
    if share == 1:
        return groups
    classifier = set(head_layer(model).parameters())
    split = []
    for group in groups:
        parts = (
            ([p for p in group["params"] if p not in classifier], share),
            ([p for p in group["params"] if p in classifier], 1.0),
        )
        split += [
            group | {"params": part, "lr_scale": group["lr_scale"] * factor} for part, factor in parts if part
        ]
    return split


def layer_numbers(model: nn.Module) -> dict[nn.Parameter, int]:
    """Return the layer of every parameter: 0 for the stem, increasing to the head.

    Layers are those of `models.network.layers`. A parameter outside of all of them belongs to the layer of
    the parameter that is registered before it, or to the stem: position embeddings, which the network itself
    holds, to the stem, the normalization after the last block to that block.

    Raises:
        UserError: a parameter belongs to two layers.
    """
    numbers: dict[nn.Parameter, int] = {}
    for number, layer in enumerate(layers(model)):
        for name, parameter in layer.named_parameters():
            if numbers.setdefault(parameter, number) != number:
                raise UserError(
                    f"{type(model).__name__}.layers(): layers {numbers[parameter]} and {number} share the "
                    f"parameter {name}; expected every parameter in one layer"
                )
    before = 0
    for parameter in model.parameters():
        before = numbers.setdefault(parameter, before)
    return numbers

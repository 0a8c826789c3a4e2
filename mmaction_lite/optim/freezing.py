"""Freezing of parameters and running statistics."""

from collections.abc import Sequence

from torch import nn

from mmaction_lite.errors import UserError, nearest
from mmaction_lite.models.network import has_layers, layers
from mmaction_lite.optim.parameter_groups import layer_numbers


def freeze(model: nn.Module, frozen: Sequence[str] | int) -> list[nn.Module]:
    """Exclude parameters from training; return the modules whose running statistics must not change either.

    Args:
        model: the network.
        frozen: names of modules or parameters, as in `named_parameters`, or prefixes that end before a dot:
            "backbone.layer1", "backbone". Or the number of layers, counted from the stem, as in
            `models.network.layers`.

    Raises:
        UserError: no module has that name, or no parameter is left to train.
    """
    modules = _first_layers(model, frozen) if isinstance(frozen, int) else _named(model, frozen)
    if not any(p.requires_grad for p in model.parameters()):
        shown = frozen if isinstance(frozen, int) else ", ".join(frozen)
        raise UserError(f"freeze: {shown} leave nothing to train; freeze fewer modules")
    return modules


def _first_layers(model: nn.Module, count: int) -> list[nn.Module]:
    found = layers(model)
    if not 0 <= count < len(found):
        single = ". A network without a method layers() is one layer" * (not has_layers(model))
        raise UserError(
            f"freeze is {count}; expected 0 to {len(found) - 1} layers of {type(model).__name__}, or names "
            f"of modules{single}"
        )
    for parameter, number in layer_numbers(model).items():
        if number < count:
            parameter.requires_grad_(False)
    return [module for layer in found[:count] for module in layer.modules()]


def _named(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    for name in names:
        parameters = [p for full, p in model.named_parameters() if f"{full}.".startswith(f"{name}.")]
        if not parameters:
            valid = {
                ".".join(full.split(".")[:depth])
                for full, _ in model.named_parameters()
                for depth in (1, 2, 3)
            }
            raise UserError(f"freeze: the network has nothing named {name!r}; {nearest(name, valid)}")
        for parameter in parameters:
            parameter.requires_grad_(False)
    return [
        module
        for full, module in model.named_modules()
        if any(f"{full}.".startswith(f"{name}.") for name in names)
    ]

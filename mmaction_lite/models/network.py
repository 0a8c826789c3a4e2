"""Layers and classifier of any network: the interface that training and weight conversion rely on.

Every network of this package defines three members besides `forward(x: (B, C, T, H, W)) -> (B, num_classes)`:

* `layers() -> list[nn.Module]`: its layers from the stem to the head. Every parameter belongs to exactly one
  layer. A layer that is not a single module is an `nn.ModuleList`;
* `head: nn.Module`: the classifier, which is the last layer, or a part of it beside a normalization;
* `features(x: (B, C, T, H, W)) -> (B, T', D)`: the input of the classifier.

Transformers define two more:

* `grid(T, H, W) -> (t, h, w)`: tokens along time, height and width for clips of this size;
* `tokens(x: (B, C, T, H, W)) -> (B, t·h·w, D)`: the tokens that are pooled to the input of the classifier,
  ordered by time, then row, then column.

They name the modules between the tokens and the classifier, such as a pooling, as `after_tokens`, a tuple of
names. Probes on the tokens leave them out.

Transformers whose layers output tokens of another number or order than `grid` define one more:

* `token_map(x, clips: (B, C, T, H, W)) -> (B, D, t, h, w) | None`: the output `x` of a layer for clips of
  this shape, as a feature map; None if it has no place in the clip. See `inference.layer_outputs`.

Layer-wise learning-rate decay, freezing, sharding, recomputation and the conversion of weights use `layers`
and `head` below, which also accept networks defined elsewhere.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.recompute import keep_statistics
from mmaction_lite.models.resnet import Stage


def layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a network from the stem to the head.

    A network without a method `layers` is one layer.

    Raises:
        UserError: the method returns something else than a list of modules.
    """
    if not has_layers(model):
        return [model]
    kind = type(model).__name__
    found = model.layers()  # pyright: ignore[reportCallIssue]
    if not isinstance(found, Iterable) or isinstance(found, nn.Module):
        raise UserError(
            f"{kind}: layers() returned a {type(found).__name__}; expected a list of modules from the stem "
            "to the head"
        )
    found = list(found)
    for number, layer in enumerate(found):
        if not isinstance(layer, nn.Module):
            raise UserError(
                f"{kind}: item {number} of layers() is a {type(layer).__name__}; expected an nn.Module. Put "
                "several modules of one layer into an nn.ModuleList"
            )
    if not found:
        raise UserError(
            f"{kind}: layers() returned no layer; expected its modules from the stem to the head. Remove the "
            "method to treat the network as one layer"
        )
    return found


def has_layers(model: nn.Module) -> bool:
    """Whether a network defines a method `layers`."""
    return has_method(model, "layers")


def has_method(model: nn.Module, name: str) -> bool:
    """Whether a network defines a method of this name; a submodule of that name is something else."""
    method = getattr(model, name, None)
    return callable(method) and not isinstance(method, nn.Module)


def layer_modules(layer: nn.Module) -> list[nn.Module]:
    """Return the modules that compute a layer: the items of an `nn.ModuleList`, or the layer itself."""
    return list(layer) if isinstance(layer, nn.ModuleList) else [layer]


def head(model: nn.Module, num_classes: int | None = None) -> nn.Module:
    """Return the classifier of a network.

    This is the attribute `head`. A network without such a module needs an `nn.Linear`, of which the last one
    counts.

    Args:
        model: the network.
        num_classes: output features that the `nn.Linear` must have; None accepts any number.

    Raises:
        UserError: the network has neither.
    """
    found = getattr(model, "head", None)
    if isinstance(found, nn.Module) and any(True for _ in found.parameters()):
        return found
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    linear = [module for module in linear if num_classes in (None, module.out_features)]
    if not linear:
        wanted = "nn.Linear" if num_classes is None else f"nn.Linear with {num_classes} outputs"
        raise UserError(
            f"{type(model).__name__}: no classifier found; expected an attribute `head`, or an {wanted}. "
            "Assign the classifier to self.head"
        )
    return linear[-1]


def head_layer(model: nn.Module) -> nn.Module:
    """Return the last layer of a network: the classifier, with a normalization that belongs to it.

    For a network of one layer this is its classifier; see `head`.

    Raises:
        UserError: the network has no classifier.
    """
    found = layers(model)
    return found[-1] if len(found) > 1 else head(model)


def recompute_layers(model: nn.Module) -> None:
    """Recompute the activations inside of layers in the backward pass instead of storing them, in place.

    A `Stage` of this package stores the inputs of its blocks. In any other network the layers before the head
    store their inputs (`torch.utils.checkpoint`). Gradients and running statistics do not change.

    Raises:
        UserError: the network has neither stages nor layers.
    """
    stages = [module for module in model.modules() if isinstance(module, Stage)]
    for stage in stages:
        stage.recompute = True
    if stages:
        return
    inner = [module for layer in layers(model)[:-1] for module in layer_modules(layer)]
    if len(inner) < 2:
        raise UserError(
            f"recompute: {type(model).__name__} is a single layer; expected a method layers() that returns "
            "its modules from the stem to the head. Define it, or set recompute=false"
        )
    for module in inner:
        module.forward = _Recomputed(module, module.forward)


class _Recomputed:
    """The forward method of a module, with its activations recomputed in the backward pass."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        self.module = module
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not (self.module.training and torch.is_grad_enabled()):
            return self.forward(*args, **kwargs)
        contexts = lambda: (nullcontext(), keep_statistics(self.module))  # noqa: E731
        return checkpoint(self.forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

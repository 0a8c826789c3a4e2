"""Outputs of any layer of a network, in one layout: (B, C, T, H, W).

Layers have the names of `nn.Module.named_modules`. Layers of the package output frames (B·T, C, H, W), 3-D
networks of other projects (B, C, T, H, W), classifiers (B, T, C), transformers tokens (B, T·H·W, C).
`as_clips` converts all of them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmaction_lite.errors import UserError, nearest, printable
from mmaction_lite.models.fast.inference import is_optimized
from mmaction_lite.models.network import has_method, head
from mmaction_lite.models.tokens import Pool
from mmaction_lite.weights.exported import check_has_layers

HEAD_INPUT = "head input"
"""Name of the default layer: the input of the classifier, `features(x)`."""

_POOLED: dict[Pool, tuple[int, ...]] = {"all": (2, 3, 4), "time": (2,), "space": (3, 4), "none": ()}
# Containers without a forward pass.
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


class LayerOutput(NamedTuple):
    """A layer and the shape of its output.

    Args:
        name: name of the module, or "head input".
        kind: class of the module.
        shape: (C, T, H, W) of the output for one view.
    """

    name: str
    kind: str
    shape: tuple[int, ...]


def layer_names(model: nn.Module) -> list[str]:
    """Return the names of all modules that may have an output, in the order of `named_modules`."""
    named = model.named_modules(remove_duplicate=False)
    return [name for name, module in named if name and not isinstance(module, _CONTAINERS)]


def check_layer(model: nn.Module, layer: str | None) -> None:
    """Check that a network has a layer.

    Args:
        model: the network.
        layer: name of a module; None: the input of the classifier.

    Raises:
        UserError: no module has this name, the model is optimized and merges its layers, or it is an exported
            file.
    """
    check_has_layers(model)
    if layer is None:
        if not has_method(model, "features"):
            head(model)
        return
    _check_separate(model)
    names = layer_names(model)
    if layer not in names:
        inner = [name for name in names if name.startswith(f"{layer}.")]
        hint = nearest(layer, inner or names)
        raise UserError(f"{type(model).__name__} has no layer {printable(layer)!r}; {hint}")


def _check_separate(model: nn.Module) -> None:
    if is_optimized(model):
        raise UserError(
            "the model is optimized for inference, which merges layers; pass the model that "
            "mmaction_lite.load returned"
        )


def pooled_outputs(model: nn.Module, x: Tensor, layer: str | None = None, pool: Pool = "all") -> Tensor:
    """Run a forward pass and return the output of one layer.

    Args:
        model: the network, in evaluation mode.
        x: normalized clips, float (B, C, T, H, W).
        layer: name of a module. Of a module that runs several times, the last output counts. None: the
            input of the classifier, which is `features(x)` if the network has this method.
        pool: axes over which the mean is taken: "time", "space", "all" (both) or "none".

    Returns:
        float32 (B, C, T, H, W) without the pooled axes.

    Raises:
        UserError: see `check_layer`; or the layer does not run, or its output has no batch dimension.
    """
    check_layer(model, layer)
    name = layer or HEAD_INPUT
    if layer is None and has_method(model, "features"):
        return _pooled(model.features(x), len(x), pool, name)  # pyright: ignore[reportCallIssue]
    found: list[Tensor] = []
    grid = token_grid(model, x)

    def keep(value: Any) -> None:
        # Pool at once: the next layer may write to the same memory.
        found[:] = [_pooled(place_tokens(model, value, x), len(x), pool, name, grid)]

    module = head(model) if layer is None else model.get_submodule(layer)
    with _hooked(module, keep, is_input=layer is None):
        model(x)
    if not found:
        raise UserError(f"layer {printable(name)!r} does not run in the forward pass; choose another layer")
    return found[0]


def list_layers(model: nn.Module, x: Tensor) -> list[LayerOutput]:
    """Return all layers that run in a forward pass of `x` (B, C, T, H, W), in order, and the head input.

    Raises:
        UserError: the model is optimized, or has no classifier.
    """
    check_layer(model, None)
    _check_separate(model)
    found: dict[str, LayerOutput] = {}
    grid = token_grid(model, x)

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            try:
                shape = as_clips(place_tokens(model, output, x), len(x), name, grid).shape[1:]
            except UserError:
                return  # cannot be extracted
            found.pop(name, None)
            found[name] = LayerOutput(name=name, kind=type(module).__name__, shape=tuple(shape))

        return keep

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in layer_names(model)]
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    shape = pooled_outputs(model, x, None, "none").shape[1:]
    default = LayerOutput(name=HEAD_INPUT, kind=f"input of {type(head(model)).__name__}", shape=tuple(shape))
    return [*found.values(), default]


def as_clips(
    output: Any, batch_size: int, name: str = HEAD_INPUT, grid: tuple[int, int, int] | None = None
) -> Tensor:
    """Convert the output of a layer to (B, C, T, H, W).

    Accepted shapes are (B, C, T, H, W), frames (B·T, C, H, W), frame vectors (B·T, C), sequences (B, T, C),
    tokens (B, T·H·W, C), and sequences of frames (B·T, P, C), whose P positions become H. Of a tuple or dict,
    the first tensor counts.

    Args:
        output: what the layer returned.
        batch_size: B.
        name: name of the layer, for messages.
        grid: number of tokens (T, H, W) of a transformer; a sequence of as many vectors has a place in the
            clip. None: sequences are sequences of frames.

    Raises:
        UserError: the output is not a tensor, or has another shape.
    """
    x = _first_tensor(output)
    if x is None:
        raise UserError(
            f"layer {printable(name)!r}: its output is a {type(output).__name__}; expected a tensor. "
            "Choose another layer"
        )
    shape = tuple(x.shape)
    if not 2 <= len(shape) <= 5 or shape[0] % batch_size or (len(shape) == 5 and shape[0] != batch_size):
        raise UserError(
            f"layer {printable(name)!r}: its output has the shape {shape} for a batch of {batch_size}; "
            "expected (B, C, T, H, W), (B·T, C, H, W), (B, T, C) or (B·T, C). Choose another layer"
        )
    if len(shape) == 5:
        return x
    if grid is not None and len(shape) == 3 and shape[:2] == (batch_size, math.prod(grid)):
        return x.unflatten(1, grid).permute(0, 4, 1, 2, 3)
    x = x.unflatten(0, (batch_size, -1))  # (B, T, ...)
    if len(shape) == 4:
        return x.transpose(1, 2)
    if len(shape) == 2:
        return x.transpose(1, 2)[..., None, None]
    if shape[0] == batch_size:  # (B, 1, T, C)
        return x[:, 0].transpose(1, 2)[..., None, None]
    return x.permute(0, 3, 1, 2)[..., None]


def _pooled(
    output: Any, batch_size: int, pool: Pool, name: str, grid: tuple[int, int, int] | None = None
) -> Tensor:
    x = as_clips(output, batch_size, name, grid).float()
    axes = _POOLED[pool]
    return x.mean(axes) if axes else x.clone()


def token_grid(model: nn.Module, x: Tensor) -> tuple[int, int, int] | None:
    """Return the number of tokens along T, H and W, if the network has the method `grid`."""
    grid: Any = getattr(model, "grid", None)
    return None if grid is None else grid(*x.shape[2:])


def place_tokens(model: nn.Module, output: Any, x: Tensor) -> Any:
    """Return the tokens that a layer returned as a feature map, or its output unchanged.

    Args:
        model: the network; its method `token_map` converts tokens, see `models.network`.
        output: what the layer returned.
        x: the clips, (B, C, T, H, W).

    Returns:
        (B, D, t, h, w), or `output` if the network has no such method, or the output no place in the clip.
    """
    if not isinstance(output, Tensor) or not has_method(model, "token_map"):
        return output
    placed = model.token_map(output, x.shape)  # pyright: ignore[reportCallIssue]
    return output if placed is None else placed


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, list | tuple):
        output = next((item for item in output if isinstance(item, Tensor)), None)
    return output if isinstance(output, Tensor) else None


@contextmanager
def _hooked(module: nn.Module, keep: Callable[[Any], None], *, is_input: bool) -> Iterator[None]:
    """Call `keep` with every output, or every first input, of a module while the block runs."""
    if is_input:
        handle = module.register_forward_pre_hook(lambda _, inputs: keep(inputs))
    else:
        handle = module.register_forward_hook(lambda _, inputs, output: keep(output))
    try:
        yield
    finally:
        handle.remove()

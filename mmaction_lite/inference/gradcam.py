"""Grad-CAM in space and time (Selvaraju et al., arXiv:1610.02391, equations 1 and 2).

The paper averages gradients over the positions of an image. For clips, positions are those of space and time:

    weight of channel k     a_k = mean over t, y, x of d(logit of the class) / d(A[k, t, y, x])
    map                     M[t, y, x] = max(0, sum over k of a_k · A[k, t, y, x])

where A is the output of a layer. Layers output frames (B·T, C, H, W) in the convolutional networks of this
package, tokens (B, T·H·W, C) in transformers, and clips (B, C, T, H, W) in other networks.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError, printable
from mmaction_lite.inference.layer_outputs import check_layer, place_tokens, token_grid
from mmaction_lite.inference.map_geometry import Alignment, cell_positions, resize_cells
from mmaction_lite.models import network
from mmaction_lite.models.attentive_pool import AttentivePool
from mmaction_lite.models.fast.inference import is_optimized
from mmaction_lite.models.mobilenet import MobileNetV2
from mmaction_lite.models.network import has_method
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import ResNet
from mmaction_lite.models.slowfast import SlowFast
from mmaction_lite.models.vit import Block
from mmaction_lite.models.x3d import X3DBackbone
from mmaction_lite.weights.exported import check_has_layers

FEWEST_CELLS = 7  # on the shorter side of the map of a layer that is chosen by default, as of 224 pixels


def gradcam(
    model: nn.Module, inputs: Tensor, target: int, layers: tuple[str, ...], window: int | None = None
) -> np.ndarray:
    """Compute the Grad-CAM of one clip.

    The map of each layer is resampled to the clip (see `resize_cells`) and multiplied by the number of the
    layer's cells per position of the clip. The maps of several layers are added. If pooling and a linear
    classifier follow a layer, the sum over its map is then its contribution to the logit, except for the
    maximum with 0. Both pathways of SlowFast are added in this proportion.

    Args:
        model: maps (1, C, T, H, W) to logits (1, K), in evaluation mode.
        inputs: one normalized clip, float (1, C, T, H, W), on the device of the model.
        target: index of the class.
        layers: names of modules, as in `nn.Module.named_modules`.
        window: see `Recognizer.forward`; the logits of the windows are averaged.

    Returns:
        float32 (T, H, W), at least 0, not normalized.

    Raises:
        UserError: see `check_differentiable` and `check_layer`; or the layer does not run, does not affect
            the logit, or has no feature map.
    """
    check_differentiable(model)
    for layer in layers:
        check_layer(model, layer)
    shape = (inputs.shape[2], inputs.shape[3], inputs.shape[4])
    total = np.zeros(shape, np.float32)
    for layer in layers:
        cells = layer_map(model, inputs, target, layer, window)
        frames = cell_frames(model, layer, len(cells), shape[0])
        per_frame = cells.size / (shape[0] * shape[1] * shape[2])
        total += resize_cells(cells, frames, shape, alignment_of(model)) * per_frame
    return total


def layer_map(
    model: nn.Module, inputs: Tensor, target: int, layer: str, window: int | None = None
) -> np.ndarray:
    """Return the Grad-CAM of one clip in one layer, float32 (T', H', W'), at least 0; see `gradcam`.

    Raises:
        UserError: the layer does not run, does not affect the logits, or see `as_feature_map`.
    """
    grid = token_grid(model, inputs)
    as_map = lambda output: as_feature_map(place_tokens(model, output, inputs), layer, grid)  # noqa: E731
    with _recording(model, layer, as_map) as outputs:
        logits = model(inputs) if window is None else model(inputs, window=window)
        logit = logits.flatten(0, -2).mean(0)[target]
        if not outputs:
            raise UserError(
                f"layer {printable(layer)!r} does not run in the forward pass; choose another layer"
            )
        (gradient,) = torch.autograd.grad(logit, outputs[-1], allow_unused=True)
    if gradient is None:
        raise UserError(f"layer {printable(layer)!r} does not affect the logits; choose another layer")
    features, gradient = (as_map(x).double() for x in (outputs[-1].detach(), gradient))
    weights = gradient.mean((1, 2, 3))
    return torch.einsum("k,ktyx->tyx", weights, features).clamp(min=0).float().cpu().numpy()


def as_feature_map(output: Any, layer: str, grid: tuple[int, int, int] | None = None) -> Tensor:
    """Convert the output of a layer for one clip to (C, T, H, W).

    Args:
        output: clips (1, C, T, H, W), frames (T, C, H, W), or tokens (parts, tokens, C) of one or more parts
            of the clip in time.
        layer: for messages.
        grid: number of tokens of the clip (T, H, W), if the network is a transformer.

    Raises:
        UserError: the output has another shape.
    """
    if isinstance(output, Tensor) and output.ndim == 5 and output.shape[0] == 1:
        return output[0]
    if isinstance(output, Tensor) and output.ndim == 4:
        return output.transpose(0, 1)
    if grid is not None and _is_token_map(output, grid):
        return output.flatten(0, 1).unflatten(0, grid).permute(3, 0, 1, 2)
    found = (
        f"the shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
    )
    raise UserError(
        f"layer {printable(layer)!r}: its output has {found} for one clip; expected the feature map of a "
        "convolution, (1, C, T, H, W) or (T, C, H, W), or the tokens of a clip. Choose another layer"
    )


def _is_token_map(output: Any, grid: tuple[int, int, int]) -> bool:
    is_sequence = isinstance(output, Tensor) and output.ndim == 3
    return is_sequence and output.shape[0] * output.shape[1] == math.prod(grid)


def default_layers(model: nn.Module, inputs: Tensor, window: int | None = None) -> tuple[str, ...]:
    """Return the layers that a map is computed in by default.

    These are the last stage of a convolutional network of this package (in SlowFast, of both pathways), the
    last block of a transformer, and the last convolution of any other network. If its feature map has fewer
    than 7 cells on a side, as for small frames, the last earlier stage or convolution that has as many is
    chosen.

    Args:
        model: the network.
        inputs: one normalized clip, float (1, C, T, H, W), on the device of the model.
        window: see `Recognizer.forward`.

    Raises:
        UserError: the network has no convolution.
    """
    sizes = _map_sizes(model, inputs, window)
    found = [names for names in _candidates(model, list(sizes)) if all(name in sizes for name in names)]
    if not found:
        raise UserError(
            f"{type(model).__name__} has no convolution, and Grad-CAM needs the feature map of one; pass the "
            "name of a layer with a feature map (--layer), or use --method occlusion, or rollout for a "
            "transformer"
        )
    fitting = [names for names in found if sizes[names[0]] >= FEWEST_CELLS]
    return fitting[0] if fitting else max(found, key=lambda names: sizes[names[0]])


def check_differentiable(model: nn.Module) -> None:
    """Check that gradients of a model can be computed.

    Raises:
        UserError: the model is optimized for inference, or is not a network of PyTorch.
    """
    check_has_layers(model, ", or use --method occlusion")
    if is_optimized(model):
        raise UserError(
            "the model is optimized for inference, and its kernels have no gradients; pass the model that "
            "mmaction_lite.load returned"
        )
    if not any(True for _ in model.parameters()):
        raise UserError(
            f"{type(model).__name__} has no parameters, so Grad-CAM cannot compute gradients; pass a weights "
            "file, or use --method occlusion"
        )


def alignment_of(model: nn.Module) -> Alignment:
    """Return the alignment of the feature maps of a network; see `Alignment`."""
    ours = ResNet | MobileNetV2 | SlowFast | X3DBackbone
    is_ours = isinstance(model, Recognizer) and isinstance(model.backbone, ours)
    return "first" if is_ours else "center"


def cell_frames(model: nn.Module, layer: str, num_cells: int, num_frames: int) -> np.ndarray:
    """Return the positions of the cells of a layer in time, in frames of the clip, float64 (num_cells,)."""
    if isinstance(model, Recognizer) and isinstance(model.backbone, SlowFast):
        slow = model.backbone.slow_indices(num_frames)
        if layer.startswith("backbone.slow.") and len(slow) == num_cells:
            return slow.double().numpy()
    return cell_positions(num_cells, num_frames, "center" if num_cells == 1 else alignment_of(model))


def _candidates(model: nn.Module, run: list[str]) -> list[tuple[str, ...]]:
    """Return the layers for maps, the last one of the network first; `run` are those that run, in order."""
    backbone = model.backbone if isinstance(model, Recognizer) else None
    if isinstance(backbone, SlowFast):
        return [(f"backbone.slow.layer{n}", f"backbone.fast.layer{n}") for n in (4, 3, 2, 1)]
    if isinstance(backbone, ResNet | X3DBackbone):
        return [(f"backbone.layer{n}",) for n in (4, 3, 2, 1)]
    if isinstance(backbone, MobileNetV2):
        blocks = range(len(backbone.blocks))
        return [("backbone",), *((f"backbone.blocks.{n}",) for n in reversed(blocks))]
    if has_method(model, "token_map"):
        # The first module of a layer computes its map; the others are normalizations and class tokens.
        found = {network.layer_modules(layer)[0] for layer in network.layers(model)[:-1]}
        named = {name for name, module in model.named_modules() if module in found}
        return [(name,) for name in reversed(run) if name in named]
    pools = tuple(f"{n}." for n, module in model.named_modules() if isinstance(module, AttentivePool))
    blocks = {
        name
        for name, module in model.named_modules()
        if isinstance(module, Block) and not name.startswith(pools)
    }
    if blocks:
        return [(name,) for name in reversed(run) if name in blocks]
    convolutions = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Conv1d)
    }
    return [(name,) for name in reversed(run) if name in convolutions]


@torch.no_grad()
def _map_sizes(model: nn.Module, inputs: Tensor, window: int | None) -> dict[str, int]:
    """Return the shorter side of the feature map of every layer that has one, in the order of execution."""
    sizes: dict[str, int] = {}
    grid = token_grid(model, inputs)

    def note(name: str) -> Any:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            output = place_tokens(model, output, inputs)
            if isinstance(output, Tensor) and output.ndim in (4, 5):
                sizes.pop(name, None)
                sizes[name] = min(output.shape[-2:])
            elif grid is not None and _is_token_map(output, grid):
                sizes.pop(name, None)
                sizes[name] = min(grid[1:])

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        _ = model(inputs) if window is None else model(inputs, window=window)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


@contextmanager
def _recording(model: nn.Module, layer: str, as_map: Callable[[Any], Tensor]) -> Iterator[list[Tensor]]:
    """Record the outputs of a layer, and compute gradients from there on.

    The layers before it store no activations for the backward pass. `as_map` raises an error for outputs
    without a feature map.
    """
    outputs: list[Tensor] = []

    def hook(module: nn.Module, given: Any, output: Any) -> Tensor:
        as_map(output)
        torch.set_grad_enabled(True)
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # later modules may work in place

    handle = model.get_submodule(layer).register_forward_hook(hook)
    try:
        with torch.inference_mode(False), torch.no_grad():  # which restores the mode at its end
            yield outputs
    finally:
        handle.remove()

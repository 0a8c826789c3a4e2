"""Parameters, multiply-adds and memory traffic of a network."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from mmaction_lite import models

Shape = tuple[int, int, int, int, int]

# Published (frames, height, width) of one view; those of *_r10 are for the generated data set.
PUBLISHED_INPUTS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "tsn_r10": ((8, 42, 56),),
    "tsn_r18": ((3, 224, 224),),
    "tsn_r34": ((3, 224, 224),),
    "tsn_r50": ((3, 224, 224),),
    "tsn_r101": ((3, 224, 224),),
    "tsm_r10": ((8, 42, 56),),
    "tsm_r18": ((8, 224, 224),),
    "tsm_r34": ((8, 224, 224),),
    "tsm_r50": ((8, 224, 224), (16, 224, 224)),
    "tsm_r101": ((8, 224, 224),),
    "tsm_mobilenetv2": ((8, 224, 224),),
    "tsm_online_r10": ((8, 42, 56),),
    "tsm_online_r50": ((8, 224, 224),),
    "tsm_online_mobilenetv2": ((8, 224, 224),),
    "i3d_r50": ((32, 224, 224),),
    "i3d_r50_heavy": ((8, 224, 224),),
    "c2d_r50": ((8, 224, 224),),
    "slowonly_r50": ((4, 224, 224), (8, 224, 224)),
    "slowonly_r101": ((8, 224, 224),),
    "slowfast_r50_4x16": ((32, 224, 224),),
    "slowfast_r50_8x8": ((32, 224, 224),),
    "slowfast_r101_8x8": ((32, 224, 224),),
    "r2plus1d_r18": ((16, 112, 112),),
    "r2plus1d_r34": ((8, 224, 224), (32, 224, 224)),
    "r2plus1d_r50": ((16, 224, 224),),
    "r3d_r18": ((16, 112, 112),),
    "mc3_r18": ((16, 112, 112),),
    "mvit_v1_base": ((16, 224, 224),),
    "mvit_v2_small": ((16, 224, 224),),
    "mvit_v2_base": ((32, 224, 224),),
    "videomae_small": ((16, 224, 224),),
    "videomae_base": ((16, 224, 224),),
    "videomae_large": ((16, 224, 224),),
    "swin3d_tiny": ((32, 224, 224),),
    "swin3d_small": ((32, 224, 224),),
    "swin3d_base": ((32, 224, 224),),
    "uniformerv2_base": ((8, 224, 224),),
    "uniformerv2_large": ((8, 224, 224),),
    "hiera_base": ((16, 224, 224),),
    "hiera_base_plus": ((16, 224, 224),),
    "hiera_large": ((16, 224, 224),),
    "vjepa2_large": ((16, 256, 256),),
    "vjepa2_huge": ((64, 256, 256),),
    "vjepa2_giant": ((64, 384, 384),),
    "vjepa21_base": ((16, 384, 384),),
    "vjepa21_large": ((16, 384, 384),),
    "vjepa21_giant": ((64, 384, 384),),
    "vjepa21_gigantic": ((64, 384, 384),),
    "x3d_xs": ((4, 160, 160),),
    "x3d_s": ((13, 160, 160),),
    "x3d_m": ((16, 224, 224),),
    "x3d_l": ((16, 312, 312),),
}


@dataclass(frozen=True)
class Complexity:
    """Size and cost of a network with the default arguments of its builder.

    Attributes:
        builder: name in `mmaction_lite.models`.
        parameters: number of trainable values.
        multiply_adds: for one input of `input_shape`.
        input_shape: (B, C, T, H, W).
    """

    builder: str
    parameters: int
    multiply_adds: int
    input_shape: Shape


def parameters(model: nn.Module) -> int:
    """Return the number of trainable values; running statistics are not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, input_shape: Shape) -> int:
    """Return the multiply-adds of all convolutions and matrix products for one input (B, C, T, H, W).

    Publications call this "FLOPs" and give it for one view. Normalization, activations and pooling are not
    counted. The forward pass runs on the meta device, without data.
    """
    return _count(model, input_shape).flops // 2  # PyTorch counts a multiply-add as two


def traffic(model: nn.Module, input_shape: Shape) -> int:
    """Return the bytes that the forward pass reads and writes, if every operator reads its inputs once."""
    return _count(model, input_shape).bytes


def _count(model: nn.Module, input_shape: Shape) -> "_Counter":
    tensors = {
        name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    clip = torch.empty(input_shape, device="meta")
    with torch.no_grad(), _Counter() as counter:
        torch.func.functional_call(model, tensors, (clip,))
    return counter


class _Counter(TorchDispatchMode):
    """Sums the FLOPs of operators, by the formulas of PyTorch, and the bytes of their inputs and outputs.

    The layers of a network repeat: an operator that had inputs of the same form before is not run again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.bytes = 0
        self._known: dict[Any, tuple[int, int, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.native_batch_norm.default:
            self.bytes += 2 * args[0].nbytes
            return args[0], None, None  # skipped: the shape stays, and it takes 80 % of the time
        if func.is_view or func._schema.is_mutable:
            out = func(*args, **kwargs)  # shares memory with an input, as in the network
            flops, moved = _cost(func, args, kwargs, out)
        else:
            leaves, structure = tree_flatten((args, kwargs))
            form = (func, structure, *map(_form, leaves))
            if form not in self._known:
                out = func(*args, **kwargs)
                self._known[form] = *_cost(func, args, kwargs, out), out
            flops, moved, first = self._known[form]
            out = tree_map_only(torch.Tensor, _empty_like, first)
        self.flops += flops
        self.bytes += moved
        return out


def _cost(func: Any, args: Any, kwargs: Any, out: Any) -> tuple[int, int]:
    """Return the FLOPs of an operator, and the bytes of its inputs and outputs; views move none."""
    formula = flop_registry.get(func.overloadpacket)
    tensors = [] if func.is_view else tree_leaves((args, kwargs, out))
    moved = sum(x.nbytes for x in tensors if isinstance(x, torch.Tensor))
    return formula(*args, **kwargs, out_val=out) if formula else 0, moved


def _form(leaf: Any) -> Any:
    """Return what the form of an output depends on: of a tensor, everything but its values."""
    if isinstance(leaf, torch.Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return type(leaf), leaf  # 1, 1.0 and True are equal, but not their results


def _empty_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device)


def list_models() -> Iterator[Complexity]:
    """Yield size and cost of every network of the package, for its published inputs and default classes."""
    for builder in PUBLISHED_INPUTS:
        yield from _complexities(builder)


@cache
def _complexities(builder: str) -> tuple[Complexity, ...]:
    with torch.device("meta"):
        model = getattr(models, builder)()
    shapes = [(1, 3, *view) for view in PUBLISHED_INPUTS[builder]]
    return tuple(
        Complexity(builder, parameters(model), multiply_adds(model, shape), shape) for shape in shapes
    )

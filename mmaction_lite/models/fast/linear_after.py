"""Linear layers whose backward pass recomputes their input instead of storing it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from mmaction_lite.models.fast.linear import LEAST_WORK, Linear, is_wrapped, linear


def linear_after(before: nn.Module | None, x: Tensor, layer: nn.Module, bias: Tensor | None = None) -> Tensor:
    """Return `layer(before(x))` without storing `before(x)` for the backward pass.

    `nn.LayerNorm` and `nn.GELU` store x for their own gradient. The backward pass computes `before(x)` from x
    again, with bitwise the same result. A training step of a transformer takes up to a fifth less memory and
    a few percent more time. Other modules, modules with hooks, frozen layers, which need no input in the
    backward pass, and small products are not changed. Under `torch.compile`, the compiler chooses what to
    store.

    Args:
        before: normalization or activation; None: `layer(x)`.
        x: (..., in_features).
        layer: linear layer or a module in its place.
        bias: (out_features,) to add to the output of a layer without bias; None: nothing.

    Returns:
        (..., out_features).
    """
    if before is None or not (isinstance(layer, Linear) and _can_recompute(before, x, layer)):
        y = layer(x if before is None else before(x))
        return y if bias is None else y + bias.to(y.dtype)
    weight, bias = layer.weight, layer.bias if bias is None else bias
    if _is_autocast(x):  # outside of the function, so that the parameters get gradients in their own type
        dtype = torch.get_autocast_dtype(x.device.type)
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    of_norm = (getattr(before, name, None) for name in ("weight", "bias"))
    found = _LinearAfter.apply(before, x, weight, bias, *of_norm)
    return found  # pyright: ignore[reportReturnType]


def _can_recompute(before: nn.Module, x: Tensor, layer: Linear) -> bool:
    """Whether the input of the layer would be stored, and can be recomputed."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or not layer.weight.requires_grad:
        return False
    if type(before) not in (nn.LayerNorm, nn.GELU) or type(layer) is not Linear:
        return False
    if _has_any_global_hook() or _has_hooks(before) or _has_hooks(layer):
        return False
    is_plain = type(x) is Tensor and type(layer.weight) is nn.Parameter and not is_wrapped(x, layer.weight)
    return is_plain and x.numel() * layer.out_features >= LEAST_WORK


def _has_hooks(module: nn.Module) -> bool:
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(forward or module._backward_hooks or module._backward_pre_hooks)


def _is_autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


class _LinearAfter(torch.autograd.Function):
    """The layer and its gradients; the parameters of a normalization are arguments, for their gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        before: nn.LayerNorm | nn.GELU,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        *of_norm: Tensor | None,
    ) -> Tensor:
        ctx.before = before
        ctx.autocast = (x.device.type, weight.dtype) if _is_autocast(x) else None
        ctx.save_for_backward(x, weight, *of_norm)
        return linear(_run(before, x, of_norm)[0], weight, bias)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight, *of_norm = ctx.saved_tensors
        _, needs_x, _, needs_bias, *norm_needs = ctx.needs_input_grad
        autocast: AbstractContextManager = torch.autocast(*ctx.autocast) if ctx.autocast else nullcontext()
        with autocast:
            y, *statistics = _run(ctx.before, x, of_norm)
        rows, dtype = grad.flatten(0, -2), y.dtype
        grad_weight = linear(rows.t(), y.flatten(0, -2).to(grad.dtype).t())
        grad_bias = rows.sum(0) if needs_bias else None
        del y  # before the gradient of the same size
        if not (needs_x or any(norm_needs)):
            return None, None, grad_weight, grad_bias, None, None
        grad_y, x = linear(grad, weight.t()).to(dtype), x.to(dtype)
        if isinstance(ctx.before, nn.GELU):
            operator, approximate = torch.ops.aten.gelu_backward.grad_input, ctx.before.approximate
            grad_x = operator(grad_y, x, approximate=approximate, grad_input=grad_y)
            return None, grad_x, grad_weight, grad_bias, None, None
        shape, mask = ctx.before.normalized_shape, [needs_x, *norm_needs]
        found = torch.ops.aten.native_layer_norm_backward(grad_y, x, shape, *statistics, *of_norm, mask)
        return None, found[0], grad_weight, grad_bias, found[1], found[2]


def _run(before: nn.LayerNorm | nn.GELU, x: Tensor, of_norm: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Return `before(x)`; for a normalization also the mean and the inverse standard deviation."""
    if isinstance(before, nn.GELU):
        return (before(x),)
    weight, bias = of_norm
    return torch.native_layer_norm(x, before.normalized_shape, weight, bias, before.eps)

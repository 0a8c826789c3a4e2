"""Training on CPUs: a 1×1 convolution, batch normalization, the sum with the shortcut and ReLU in one kernel.

Batch normalization after a 1×1 convolution y = W x needs no pass over y. Mean and variance of y over all
pixels follow from the mean of x and its covariance matrix C:

    mean(y) = W mean(x)        var(y)_o = w_o C w_oᵀ        w_o: row of W

The normalization is folded into weight and bias, as in inference, and oneDNN adds the shortcut and applies
ReLU while the result is in the caches. The backward pass needs neither y nor the normalized y, so that the
largest tensor of a bottleneck block is neither stored nor read. The gradient through the statistics is one
more product with a matrix of the size of C.

The result differs from that of the separate operators by rounding. The statistics are computed in float64:
where w_o nearly cancels x, the variance is a small difference of large numbers. Second derivatives and
forward-mode derivatives do not exist.

A training step of TSN takes a tenth to a quarter less memory.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmaction_lite.models.convolution import Conv2d, Conv3d
from mmaction_lite.models.fast.linear import is_wrapped
from mmaction_lite.models.fast.operators import (
    ONE_BY_ONE,
    convolution_gradients,
    convolve_add_fused,
    convolve_fused,
    has_fused,
    pack_weight,
)

# Output channels per input channel, and pixels per input channel, from which on the additional products with
# matrices of input channels cost less than the passes that they replace.
LEAST_EXPANSION, LEAST_PIXELS = 4, 32


def can_fold(x: Tensor, conv: nn.Module, norm: nn.Module) -> bool:
    """Whether `project` computes `norm(conv(x))` faster: in float32 training on CPUs, without a compiler."""
    if not (
        torch.is_grad_enabled() and norm.training and x.device.type == "cpu" and x.dtype == torch.float32
    ):
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or not has_fused():
        return False
    if not _is_projection(conv) or not _is_batch_norm(norm) or has_hooks(conv) or has_hooks(norm):
        return False
    parameters = conv.weight, norm.weight, norm.bias
    pays = (
        conv.out_channels >= LEAST_EXPANSION * conv.in_channels
        and x.numel() >= LEAST_PIXELS * conv.in_channels**2
    )
    return pays and all(p.dtype == torch.float32 for p in parameters) and not is_wrapped(x, *parameters)


def is_plain_relu(activation: nn.Module) -> bool:
    """Whether `project` may apply the activation, which nobody watches."""
    return type(activation) is nn.ReLU and not has_hooks(activation)


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module calls anything else, which a fused kernel would leave out."""
    hooks = (
        module._forward_hooks,
        module._forward_pre_hooks,
        module._backward_hooks,
        module._backward_pre_hooks,
    )
    return any(hooks) or bool(torch.nn.modules.module._has_any_global_hook())


def project(x: Tensor, conv: nn.Module, norm: nn.Module, shortcut: Tensor | None = None) -> Tensor:
    """Return `norm(conv(x))`, or `relu(norm(conv(x)) + shortcut)` with a shortcut, where `can_fold` holds.

    Args:
        x: (N, C, H, W).
        conv: 1×1 convolution.
        norm: batch normalization of its output; its running statistics are updated.
        shortcut: (N, C', H, W).

    Returns:
        (N, C', H, W), channels-last.
    """
    assert isinstance(conv, Conv2d | Conv3d)
    assert isinstance(norm, nn.BatchNorm2d)
    weight = conv.weight.flatten(1)
    out, mean, variance = _Projection.apply(x, weight, norm.weight, norm.bias, norm.eps, shortcut)  # pyright: ignore
    _update_statistics(norm, mean, variance, x.numel() // x.shape[1])
    return out


def _is_projection(conv: nn.Module) -> TypeGuard[Conv2d | Conv3d]:
    if type(conv) not in (Conv2d, Conv3d) or getattr(conv, "share", 0):
        return False
    assert isinstance(conv, Conv2d | Conv3d)
    return max(conv.kernel_size) == max(conv.stride) == conv.groups == 1 and conv.bias is None


def _is_batch_norm(norm: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    if type(norm) is not nn.BatchNorm2d:
        return False
    return norm.track_running_stats and norm.weight is not None and norm.bias is not None


@torch.no_grad()
def _update_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics as `nn.BatchNorm2d` does."""
    momentum = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1 / float(norm.num_batches_tracked) if momentum is None else momentum
    if momentum:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), momentum)


class _Projection(torch.autograd.Function):
    """Return the output, and mean and variance of the convolution before normalization."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
        shortcut: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = _rows(x).double()
        mean_x = rows.mean(0)
        covariance = rows.t() @ rows / len(rows) - torch.outer(mean_x, mean_x)
        del rows
        exact = weight.double()
        weight_covariance = exact @ covariance
        mean, variance = exact @ mean_x, (weight_covariance * exact).sum(1).clamp_min_(0)
        found = mean_x, weight_covariance, mean, variance, (variance + eps).rsqrt()
        mean_x, weight_covariance, mean, variance, inverse = (value.float() for value in found)
        scale = gamma * inverse
        folded, bias = _as_kernel(weight * scale[:, None]), beta - scale * mean
        packed = pack_weight(folded, ONE_BY_ONE, x.shape)
        if shortcut is None:
            out = convolve_fused(x, packed, bias, ONE_BY_ONE, False)
        else:
            out = convolve_add_fused(x, packed, bias, ONE_BY_ONE, True, other=shortcut, in_place=False)
        kept = None if shortcut is None else out
        ctx.save_for_backward(x, weight, gamma, kept, mean_x, weight_covariance, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight, gamma, out, mean_x, weight_covariance, mean, inverse = ctx.saved_tensors
        grad = grads[0]
        if out is not None:  # the gradient of ReLU
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        scale, count = gamma * inverse, x.numel() // x.shape[1]
        grad_bias = _rows(grad).sum(0)
        direct, grad_folded = convolution_gradients(
            grad, x, _as_kernel(weight * scale[:, None]), ONE_BY_ONE, ctx.needs_input_grad[0], True
        )
        assert grad_folded is not None
        grad_folded = grad_folded.flatten(1)
        grad_scale = (grad_folded * weight).sum(1) - grad_bias * mean
        grad_mean = -scale * grad_bias
        grad_variance = -0.5 * grad_scale * gamma * inverse**3
        grad_weight = grad_folded * scale[:, None] + grad_mean[:, None] * mean_x
        grad_weight += 2 * grad_variance[:, None] * weight_covariance
        grad_x = None
        if direct is not None:
            # Through the covariance, x - mean(x) times a symmetric matrix; through the mean, a constant.
            matrix = weight.t() @ (weight * (grad_variance * (2 / count))[:, None])
            offset = weight.t() @ grad_mean / count - matrix @ mean_x
            rows = torch.addmm(_rows(direct), _rows(x), matrix).add_(offset)
            grad_x = rows.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        grad_shortcut = None if out is None else grad
        return grad_x, grad_weight, grad_scale * inverse, grad_bias, None, grad_shortcut


def _rows(x: Tensor) -> Tensor:
    """View channels-last frames (N, C, H, W) as rows (N·H·W, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _as_kernel(matrix: Tensor) -> Tensor:
    """View (C', C) as the weight (C', C, 1, 1) of a convolution."""
    return matrix[:, :, None, None]

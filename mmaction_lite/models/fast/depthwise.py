"""Depthwise convolution over frames and pixels, on CPUs by oneDNN in both directions.

PyTorch runs the backward pass of such a convolution group by group, or in a generic kernel. Here the gradient
of the input is another convolution, with the reversed kernel, and that of the weight is computed frame by
frame with the kernels of 2-D convolutions, once for each temporal distance. Forward and backward pass of the
stages of X3D-S take a seventh of the time.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mmaction_lite.models.fast.linear import is_wrapped
from mmaction_lite.models.fast.operators import (
    Geometry,
    convolution_gradients,
    convolve_onednn,
    has_onednn,
)
from mmaction_lite.models.fast.safe_convolution import convolve
from mmaction_lite.models.fast.temporal import can_use_products, spans


def convolve_depthwise(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], batch_size: int
) -> Tensor:
    """Convolve every channel over frames and pixels by itself, with "same" padding.

    Args:
        x: frames (B·T, C, H, W).
        weight: (C, 1, K, S, S), K and S odd.
        bias: (C) or None.
        stride: in frames, then in pixels per dimension.
        batch_size: B.

    Returns:
        Frames (B·T', C, H', W'), every length divided by its stride and rounded up.
    """
    if weight.shape[3] == 1 and stride[1] == 1:
        return _convolve_time(x, weight.squeeze(4), bias, stride[0], batch_size)
    if _is_faster(x, weight) and stride[0] == 1:
        return _Depthwise.apply(x, weight, bias, stride, batch_size)  # pyright: ignore[reportReturnType]
    clip = _as_clips(x, batch_size)
    return _as_frames(convolve(clip, weight, bias, stride, len(weight)))


def _convolve_time(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, batch_size: int) -> Tensor:
    """Convolve along time, as images with a row of all pixels for each frame."""
    rows = x.permute(0, 2, 3, 1).reshape(batch_size, -1, x.shape[2] * x.shape[3], x.shape[1])
    out = functional.conv2d(
        rows.permute(0, 3, 1, 2),
        weight,
        bias,
        (stride, 1),
        (weight.shape[2] // 2, 0),
        groups=len(weight),
    )
    return out.permute(0, 2, 3, 1).reshape(-1, *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2)


def _as_clips(x: Tensor, batch_size: int) -> Tensor:
    """View frames (B·T, C, H, W) as clips (B, C, T, H, W)."""
    return x.unflatten(0, (batch_size, -1)).transpose(1, 2)


def _as_frames(clip: Tensor) -> Tensor:
    """View clips (B, C, T, H, W) as frames (B·T, C, H, W)."""
    return clip.transpose(1, 2).flatten(0, 1)


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes the convolution and its gradients."""
    is_float32 = x.dtype == weight.dtype == torch.float32
    return is_float32 and can_use_products(x) and not is_wrapped(x, weight) and has_onednn()


class _Depthwise(torch.autograd.Function):
    """Convolution with stride 1 in time, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], batch_size: int
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.batch_size = stride, batch_size
        return _as_frames(_convolve(_as_clips(x, batch_size), weight, bias, stride))

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_x = _input_gradient(grad, weight, ctx.stride, ctx.batch_size, x.shape) if needs_x else None
        grad_weight = _weight_gradient(grad, x, weight, ctx.stride, ctx.batch_size) if needs_weight else None
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs_bias else None, None, None


def _convolve(clip: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> Tensor:
    padding = tuple(length // 2 for length in weight.shape[2:])
    return convolve_onednn(clip, weight, bias, Geometry(stride, padding, len(weight)))


def _input_gradient(
    grad: Tensor, weight: Tensor, stride: tuple[int, ...], batch_size: int, shape: torch.Size
) -> Tensor:
    """Return the gradient of the frames: the gradient of the output convolved with the reversed kernel."""
    if stride[1:] != (1, 1):  # zeros between the pixels
        spread = grad.new_zeros(shape).contiguous(memory_format=torch.channels_last)
        spread[:, :, :: stride[1], :: stride[2]] = grad
        grad = spread
    return _as_frames(_convolve(_as_clips(grad, batch_size), weight.flip(2, 3, 4), None, (1, 1, 1)))


def _weight_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, ...], batch_size: int
) -> Tensor:
    """Return the gradient of the weight: for each temporal distance, that of a convolution of frames."""
    x = x.contiguous(memory_format=torch.channels_last)
    taps, frames, channels = weight.shape[2], len(x) // batch_size, len(weight)
    clips, grads = x.unflatten(0, (batch_size, frames)), grad.unflatten(0, (batch_size, frames))
    found = []
    for tap in range(taps):
        distance = tap - taps // 2
        if abs(distance) >= frames:
            found.append(torch.zeros_like(weight[:, :, tap]))
            continue
        target, source = spans(frames, distance)
        pairs = (
            [(grad, x)]
            if distance == 0
            else [(g[target], c[source]) for g, c in zip(grads, clips, strict=True)]
        )
        found.append(sum(_frame_gradient(*pair, weight[:, :, tap], stride[1:], channels) for pair in pairs))
    return torch.stack(found, 2)


def _frame_gradient(
    grad: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, ...], channels: int
) -> Tensor:
    """Return the gradient of the weight (C, 1, S, S) of a convolution of frames."""
    geometry = Geometry(stride, tuple(length // 2 for length in weight.shape[2:]), channels)
    found = convolution_gradients(grad, x, weight, geometry, needs_x=False, needs_weight=True)[1]
    assert found is not None
    return found

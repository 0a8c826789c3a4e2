"""Temporal convolution, and temporal shift followed by a 1×1 convolution: as convolutions or matrix products.

On CPUs of AMD with AVX-512, oneDNN's convolutions are up to twice as fast as the matrix products of MKL,
which uses AVX2 there. On CPUs of Intel with AVX-512, temporal convolutions are up to 1.25 times as fast by
oneDNN, but a shift with its convolution is up to 1.8 times as fast by matrix products, which do not copy the
frames. On CPUs without AVX-512, matrix products are faster for both.

Both layers are sums over taps. A tap multiplies some channels of the frame at some temporal distance by a
matrix. In channels-last memory format, the frames of a clip are rows of one matrix; a tap is then the product
of two views, accumulated into the result, without copying activations.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mmaction_lite.models.fast.linear import is_wrapped
from mmaction_lite.models.fast.operators import (
    ONE_BY_ONE,
    Geometry,
    convolution_gradients,
    has_onednn_linear,
    is_mkl_faster,
    multiply_onednn,
)
from mmaction_lite.models.fast.safe_convolution import convolve

Tap = tuple[int, int, int, int]
"""(distance in frames, index of the matrix, first channel, end channel)."""

# For smaller inputs, PyTorch convolves by an implementation of its own, which is slow.
LEAST_VALUES = 1 << 16


def spans(frames: int, distance: int) -> tuple[slice, slice]:
    """Return output frames, and the input frames at `distance` from them, that both lie inside the clip."""
    first, end = max(0, -distance), min(frames, frames - distance)
    return slice(first, end), slice(first + distance, end + distance)


class _SumOfTaps(torch.autograd.Function):
    """Map rows (B, T, P, C), matrices (K, C, O) and bias (O) to rows (B, T, P, O)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrices: Tensor, bias: Tensor | None, taps: Sequence[Tap]) -> Tensor:
        ctx.save_for_backward(rows, matrices)
        ctx.taps = taps
        batch, frames, positions, _ = rows.shape
        out = rows.new_empty(batch, frames, positions, matrices.shape[2])
        (_, index, first, end), *others = taps  # the first tap has distance 0 and fills every frame
        start = matrices.new_zeros(1) if bias is None else bias
        torch.addmm(
            start,
            rows.flatten(0, 2)[:, first:end],
            matrices[index, first:end],
            beta=0 if bias is None else 1,
            out=out.flatten(0, 2),
        )
        for distance, index, first, end in others:
            target, source = spans(frames, distance)
            for clip_out, clip in zip(out, rows, strict=True):
                clip_out[target].flatten(0, 1).addmm_(
                    clip[source].flatten(0, 1)[:, first:end], matrices[index, first:end]
                )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, matrices = ctx.saved_tensors
        grad = grads[0].contiguous()
        frames = rows.shape[1]
        whole = sum(end - first for _, _, first, end in ctx.taps) > rows.shape[3]
        rows_grad = matrices_grad = None
        if ctx.needs_input_grad[0]:
            rows_grad = torch.empty_like(rows)
            for position, (distance, index, first, end) in enumerate(ctx.taps):
                target, source = spans(frames, distance)
                columns = rows_grad[..., first:end]
                if position and not whole:
                    # No output frame depends on these frames: their channels were shifted out of the clip.
                    columns[:, : source.start].zero_()
                    columns[:, source.stop :].zero_()
                for clip_grad, clip_out in zip(columns, grad, strict=True):
                    product = clip_grad[source].view(-1, end - first)
                    product.addmm_(
                        clip_out[target].flatten(0, 1),
                        matrices[index, first:end].T,
                        beta=1 if position and whole else 0,
                    )
        if ctx.needs_input_grad[1]:
            matrices_grad = torch.zeros_like(matrices)
            for distance, index, first, end in ctx.taps:
                target, source = spans(frames, distance)
                for clip, clip_out in zip(rows, grad, strict=True):
                    matrices_grad[index, first:end].addmm_(
                        clip[source].flatten(0, 1)[:, first:end].T, clip_out[target].flatten(0, 1)
                    )
        bias_grad = grad.sum((0, 1, 2)) if ctx.needs_input_grad[2] else None
        return rows_grad, matrices_grad, bias_grad, None


def _sum_of_taps(
    x: Tensor, matrices: Tensor, bias: Tensor | None, taps: Sequence[Tap], batch_size: int
) -> Tensor:
    """Map frames (B·T, C, H, W) to (B·T, O, H, W), both channels-last."""
    rows = x.permute(0, 2, 3, 1).contiguous().flatten(1, 2).unflatten(0, (batch_size, -1))
    out = _SumOfTaps.apply(rows, matrices, bias, taps)
    return out.flatten(0, 1).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)  # pyright: ignore


def can_use_products(x: Tensor) -> bool:
    """Whether matrix products may replace PyTorch's operators: on CPUs, without a compiler or autocast."""
    return (
        x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")
    )


def are_products_faster(x: Tensor, *, after_shift: bool = False) -> bool:
    """Whether matrix products are faster than PyTorch's convolution of `x`, gradients included.

    Args:
        x: input.
        after_shift: for the convolution after a temporal shift, which products do not copy.
    """
    if not can_use_products(x):
        return False
    if x.dtype != torch.float32 or x.numel() < LEAST_VALUES or not has_onednn_linear():
        return True
    return after_shift and is_mkl_faster()


def subsample_frames(x: Tensor, batch_size: int, stride: int) -> Tensor:
    """Return frames 0, stride, 2·stride … of each clip: (B·T, C, H, W) to (B·ceil(T / stride), C, H, W)."""
    if stride == 1:
        return x
    # A slice of channels-last memory, so that the gradient, and all that follows, is channels-last as well.
    return x.permute(0, 2, 3, 1).unflatten(0, (batch_size, -1))[:, ::stride].flatten(0, 1).permute(0, 3, 1, 2)


def convolve_time(
    x: Tensor, weight: Tensor, bias: Tensor | None, batch_size: int, stride: int, path: str = "auto"
) -> Tensor:
    """Convolve along time with "same" padding.

    Args:
        x: frames (B·T, C, H, W).
        weight: (O, C, K, 1, 1), K odd.
        bias: (O) or None.
        batch_size: B.
        stride: in frames.
        path: "products" for K shifted matrix products (stride 1 only), "native" for PyTorch's conv3d, "auto"
            for the fastest in measurements: with gradients, in eager mode on CPUs, `_TimeConvolution` with
            AVX-512 and products without. Without gradients, conv3d was as fast or faster in every family.

    Returns:
        Frames (B·T', O, H, W), T' = ceil(T / stride).
    """
    taps = weight.shape[2]
    in_training = torch.is_grad_enabled()
    if path == "auto" and stride == 1 and in_training and _has_fast_gradients(x, weight, batch_size):
        out = _TimeConvolution.apply(view_as_images(x, batch_size), weight, bias)
        return view_as_frames(out, x.shape[2:])  # pyright: ignore[reportArgumentType]
    if stride == 1 and (path == "products" or (path == "auto" and in_training and are_products_faster(x))):
        matrices = weight.flatten(2).permute(2, 1, 0)
        if matrices.stride(1) != 1:
            matrices = matrices.contiguous()
        middle = taps // 2
        order = sorted(range(taps), key=lambda tap: abs(tap - middle))
        return _sum_of_taps(
            x, matrices, bias, [(tap - middle, tap, 0, x.shape[1]) for tap in order], batch_size
        )
    if x.shape[0] == batch_size:  # clips of one frame: all taps but the middle one read padding only
        return functional.conv2d(x, weight[:, :, taps // 2], bias)
    clip = x.unflatten(0, (batch_size, -1)).transpose(1, 2)
    out = convolve(clip, weight, bias, (stride, 1, 1))
    return out.transpose(1, 2).flatten(0, 1)


def view_as_images(x: Tensor, batch_size: int) -> Tensor:
    """View channels-last frames (B·T, C, H, W) as images (B, C, T, H·W)."""
    images = x.permute(0, 2, 3, 1).reshape(batch_size, -1, x.shape[2] * x.shape[3], x.shape[1])
    return images.permute(0, 3, 1, 2)


def view_as_frames(images: Tensor, size: Sequence[int]) -> Tensor:
    """View images (B, C, T, H·W) as channels-last frames (B·T, C, H, W) of `size` (H, W)."""
    return images.permute(0, 2, 3, 1).reshape(-1, *size, images.shape[1]).permute(0, 3, 1, 2)


def _has_fast_gradients(x: Tensor, weight: Tensor, batch_size: int) -> bool:
    """Whether `_TimeConvolution` is faster than matrix products and PyTorch's gradients."""
    has_fast_kernels = can_use_products(x) and not are_products_faster(x)
    is_known = weight.dtype == x.dtype and x.shape[0] > batch_size
    return has_fast_kernels and is_known and not is_wrapped(x, weight)


class _TimeConvolution(torch.autograd.Function):
    """Map images (B, C, T, P), weight (O, C, K, 1, 1) and bias (O) to images (B, O, T, P).

    oneDNN takes up to four times as long for the gradient of the weight of all taps at once as for one tap
    after the other.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        return functional.conv2d(images, weight.squeeze(4), bias, padding=(weight.shape[2] // 2, 0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (grad,) = grads
        images, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        grad_x = grad_weight = None
        if needs_x:
            geometry = Geometry((1, 1), (weight.shape[2] // 2, 0), 1)
            grad_x, _ = convolution_gradients(grad, images, weight.squeeze(4), geometry, True, False)
        if needs_weight:
            grad_weight = _gradient_per_tap(grad, images, weight)
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs_bias else None


def _gradient_per_tap(grad: Tensor, images: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of the weight (O, C, K, 1, 1), in channels-last memory format."""
    outputs, channels, taps = weight.shape[:3]
    frames = images.shape[2]
    found = weight.new_zeros(outputs, taps, channels)
    for tap in range(taps):
        distance = tap - taps // 2
        if abs(distance) >= frames:
            continue
        target, source = spans(frames, distance)
        grad_tap, images_tap = grad[:, :, target], images[:, :, source]
        if grad_tap.numel() < 2 * outputs * channels:  # few pixels: a product with short rows
            left, right = (part.permute(0, 2, 3, 1).flatten(0, 2) for part in (grad_tap, images_tap))
            found[:, tap] = multiply_onednn(left.t(), right.t(), None)
            continue
        kernel = weight[:, :, tap, :, :]
        _, part = convolution_gradients(grad_tap, images_tap, kernel, ONE_BY_ONE, False, True)
        assert part is not None
        found[:, tap] = part.flatten(1)
    return found.transpose(1, 2)[..., None, None]


def shift(x: Tensor, batch_size: int, share: int, causal: bool = False) -> Tensor:
    """Move `share` channels one frame back and the next `share` channels one frame ahead, padded with zeros.

    Temporal Shift Module (Lin et al., arXiv:1811.08383), section 3. With `causal`, the first `share` channels
    move one frame ahead and all others stay (section 4.2, the shift of online models).

    Args:
        x: frames (B·T, C, H, W).
        batch_size: B.
        share: number of channels that move in each direction.
        causal: only move channels ahead, so that no frame receives features of a later one.

    Returns:
        Frames (B·T, C, H, W), channels-last.
    """
    back, ahead = _shifted_channels(share, causal)
    if can_use_products(x) and not is_wrapped(x):
        return _as_frames(_Shift.apply(_as_rows(x, batch_size), back, ahead))  # pyright: ignore
    time = x.unflatten(0, (batch_size, -1))
    parts = []
    if back.stop:
        parts.append(functional.pad(time[:, 1:, back], (0, 0, 0, 0, 0, 0, 0, 1)))
    parts.append(functional.pad(time[:, :-1, ahead], (0, 0, 0, 0, 0, 0, 1, 0)))
    shifted = torch.cat([*parts, time[:, :, ahead.stop :]], dim=2).flatten(0, 1)
    return shifted.contiguous(memory_format=torch.channels_last)


class _Shift(torch.autograd.Function):
    """The shift of (B, T, H, W, C) in one pass, and its gradient: the shift in the opposite directions."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, back: slice, ahead: slice) -> Tensor:
        ctx.directions = ahead, back
        return _move(rows, back, ahead)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        return _move(grads[0], *ctx.directions), None, None


def _move(rows: Tensor, back: slice, ahead: slice) -> Tensor:
    """Move channels `back` of (B, T, H, W, C) one frame back, and channels `ahead` one frame ahead."""
    out = rows.clone(memory_format=torch.contiguous_format)
    out[:, :-1, ..., back], out[:, -1:, ..., back] = rows[:, 1:, ..., back], 0
    out[:, 1:, ..., ahead], out[:, :1, ..., ahead] = rows[:, :-1, ..., ahead], 0
    return out


def _shifted_channels(share: int, causal: bool) -> tuple[slice, slice]:
    """Return the channels that move one frame back, and those that move one frame ahead."""
    first = 0 if causal else share
    return slice(0, first), slice(first, first + share)


def shift_and_project(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    batch_size: int,
    share: int,
    path: str = "auto",
    *,
    causal: bool = False,
) -> Tensor:
    """Apply `shift`, then a 1×1 convolution.

    Args:
        x: frames (B·T, C, H, W).
        weight: (O, C, 1, 1).
        bias: (O) or None.
        batch_size: B.
        share: see `shift`.
        path: "products" for matrix products of shifted frames, "native" to move the channels in memory first,
            "auto" for the faster of the two, without storing the shifted channels for the backward pass.
        causal: see `shift`.

    Returns:
        Frames (B·T, O, H, W).
    """
    back, ahead = _shifted_channels(share, causal)
    if path == "products" or (path == "auto" and are_products_faster(x, after_shift=True)):
        taps = [(0, 0, ahead.stop, x.shape[1])]
        if back.stop:
            taps.append((1, 0, back.start, back.stop))
        taps.append((-1, 0, ahead.start, ahead.stop))
        return _sum_of_taps(x, weight.flatten(1).T.unsqueeze(0), bias, taps, batch_size)
    if path == "auto" and can_use_products(x) and not is_wrapped(x, weight):
        return _ShiftAndProject.apply(_as_rows(x, batch_size), weight, bias, back, ahead)  # pyright: ignore
    return functional.conv2d(shift(x, batch_size, share, causal), weight, bias)


class _ShiftAndProject(torch.autograd.Function):
    """Shift and 1×1 convolution of (B, T, H, W, C) to frames; the backward pass shifts again.

    Storing the shifted frames would take as much memory as their input, which is stored anyway.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, back: slice, ahead: slice
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.directions = back, ahead
        return functional.conv2d(_as_frames(_move(rows, back, ahead)), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (grad,) = grads
        rows, weight = ctx.saved_tensors
        back, ahead = ctx.directions
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        moved = _move(rows, back, ahead) if needs_weight else rows
        grad_rows, grad_weight = convolution_gradients(
            grad, _as_frames(moved), weight, ONE_BY_ONE, needs_x, needs_weight
        )
        if grad_rows is not None:
            grad_rows = _move(_as_rows(grad_rows, len(rows)), ahead, back)
        return grad_rows, grad_weight, grad.sum((0, 2, 3)) if needs_bias else None, None, None


def _as_rows(x: Tensor, batch_size: int) -> Tensor:
    """View frames (B·T, C, H, W) as (B, T, H, W, C)."""
    return x.permute(0, 2, 3, 1).unflatten(0, (batch_size, -1))


def _as_frames(rows: Tensor) -> Tensor:
    """View (B, T, H, W, C) as frames (B·T, C, H, W)."""
    return rows.flatten(0, 1).permute(0, 3, 1, 2)

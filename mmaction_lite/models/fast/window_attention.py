"""Attention in windows of tokens that shift cyclically (Liu et al., arXiv:2106.13230, section 3.2).

On a CPU in float32 or float64, few windows at a time are processed, so that their scores stay in the cache:
neither the scores nor the windows of the whole clip are stored. The backward pass computes the scores again.
For Swin-T, a training step takes half of the memory, and attention less than half of the time.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mmaction_lite.models.fast.linear import is_wrapped

MASKED = -100.0  # added to the scores of tokens that are no neighbors before the cyclic shift
CHUNK_BYTES = 2 << 20  # scores that are computed at once


class WindowGroup(NamedTuple):
    """Windows of one clip with the same mask.

    Args:
        places: tokens of each window, as indices of the flattened grid, int64 (windows, tokens).
        regions: part of the grid that each token of a window comes from, int64 (tokens,); tokens of different
            regions do not attend to each other. None: all tokens are of one region.
    """

    places: Tensor
    regions: Tensor | None


def window_attention(
    qkv: Tensor, bias: Tensor, heads: int, window: Sequence[int], shift: Sequence[int]
) -> Tensor:
    """Compute attention inside of windows.

    Args:
        qkv: queries, keys and values (B, T, H, W, 3 · C), of multiples of `window`.
        bias: added to the scores, (heads, tokens of a window, tokens of a window).
        heads: number of heads.
        window: tokens of a window along time, height and width.
        shift: tokens by which the windows are shifted; 0 on all axes: not shifted.

    Returns:
        (B, T, H, W, C).
    """
    if _is_faster(qkv, bias):
        grid = (qkv.shape[1], qkv.shape[2], qkv.shape[3])
        groups = window_groups(grid, tuple(window), tuple(shift))
        rows = qkv.flatten(1, 3)
        if torch.is_grad_enabled() and (qkv.requires_grad or bias.requires_grad):
            out = _WindowAttention.apply(rows, bias, heads, groups)
        else:
            out = _attend(rows, bias, heads, groups)
        return out.unflatten(1, grid)  # pyright: ignore[reportOptionalMemberAccess, reportReturnType]
    return _attend_at_once(qkv, bias, heads, window, shift)


def _is_faster(qkv: Tensor, bias: Tensor) -> bool:
    """Whether `_attend` can compute the attention, and faster."""
    if torch.compiler.is_compiling() or qkv.device.type != "cpu" or bias.device.type != "cpu":
        return False
    is_plain = type(qkv) is Tensor and type(bias) is Tensor and not is_wrapped(qkv, bias)
    return is_plain and qkv.dtype == bias.dtype and qkv.dtype in (torch.float32, torch.float64)


def _attend_at_once(
    qkv: Tensor, bias: Tensor, heads: int, window: Sequence[int], shift: Sequence[int]
) -> Tensor:
    """Compute `window_attention` with the operators of PyTorch."""
    is_shifted, grid = any(shift), qkv.shape[1:4]
    if is_shifted:
        qkv = qkv.roll([-step for step in shift], (1, 2, 3))
    q, k, v = split_windows(qkv, window).unflatten(3, (3, heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
    bias = bias.to(q.dtype)
    if is_shifted:  # by products: the fused operators have no mask for each window, nor ONNX for five axes
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(3, 4) + bias
        x = (scores + shift_mask(window, shift, grid, q.device).to(q.dtype)).softmax(4) @ v
    else:
        parts = (part.flatten(0, 1) for part in (q, k, v))
        x = functional.scaled_dot_product_attention(*parts, attn_mask=bias[None]).unflatten(0, q.shape[:2])
    # A copy, because the layout of the fused operators is another in the graphs of ONNX.
    x = x.transpose(2, 3).clone(memory_format=torch.contiguous_format).flatten(3)
    x = join_windows(x, window, grid)
    return x.roll(list(shift), (1, 2, 3)) if is_shifted else x


def split_windows(x: Tensor, window: Sequence[int]) -> Tensor:
    """Map (B, T, H, W, C) to windows (B, windows, tokens of a window, C)."""
    b, t, h, w, c = x.shape
    wt, wh, ww = window
    x = x.reshape(b, t // wt, wt, h // wh, wh, w // ww, ww, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, -1, wt * wh * ww, c)


def join_windows(x: Tensor, window: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Map windows (B, windows, tokens of a window, C) to (B, T, H, W, C), of which `grid` is T, H, W."""
    counts = [length // side for length, side in zip(grid, window, strict=True)]
    x = x.reshape(x.shape[0], *counts, *window, x.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape[0], *grid, x.shape[-1])


def shift_regions(
    window: Sequence[int], shift: Sequence[int], grid: Sequence[int], device: torch.device
) -> Tensor:
    """Return the region of each token of each window after the shift, int64 (windows, tokens).

    A cyclic shift moves the first tokens of an axis behind the last ones, into the same window. There, they
    are another region.
    """
    regions = torch.zeros(1, 1, 1, dtype=torch.int64, device=device)
    for axis, (length, step) in enumerate(zip(grid, shift, strict=True)):
        wrapped = torch.arange(length, device=device) >= length - step
        shape = [1, 1, 1]
        shape[axis] = length
        regions = 2 * regions + wrapped.reshape(shape)
    return split_windows(regions[None, ..., None], window)[0, :, :, 0]


def shift_mask(
    window: Sequence[int], shift: Sequence[int], grid: Sequence[int], device: torch.device
) -> Tensor:
    """Return what is added to the scores in shifted windows, float32 (windows, 1, tokens, tokens).

    This is `MASKED` for two tokens of different regions, and 0 for all others.
    """
    regions = shift_regions(window, shift, grid, device)
    return (regions[:, :, None] != regions[:, None, :])[:, None].float() * MASKED


@lru_cache(maxsize=64)
def window_groups(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> tuple[WindowGroup, ...]:
    """Return the windows of a grid, grouped by their masks, on the CPU."""
    cpu = torch.device("cpu")
    with torch.inference_mode(False), cpu:
        index = torch.arange(math.prod(grid)).reshape(1, *grid, 1)
        index = index.roll([-step for step in shift], (1, 2, 3))
        index = split_windows(index, window)[0, :, :, 0]
        if not any(shift):
            return (WindowGroup(index, None),)
        regions = shift_regions(window, shift, grid, cpu)
        counts = [length // side for length, side in zip(grid, window, strict=True)]
        # The last window of each shifted axis has two regions, the others have one.
        is_last = [
            [step > 0 and place == count - 1 for place in range(count)]
            for count, step in zip(counts, shift, strict=True)
        ]
        members: dict[tuple[bool, ...], list[int]] = {}
        for number, kind in enumerate(product(*is_last)):
            members.setdefault(kind, []).append(number)
        return tuple(
            WindowGroup(index[numbers], regions[numbers[0]] if any(kind) else None)
            for kind, numbers in members.items()
        )


class _Chunk(NamedTuple):
    """Windows whose scores are computed at once: indices of their tokens, q, k, v and the biases.

    q, k and v are (windows · heads, tokens, head_dim); q is not scaled. The bias has the shape of the scores,
    (windows · heads, tokens, tokens).
    """

    places: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    bias: Tensor


def _chunks(rows: Tensor, bias: Tensor, heads: int, groups: tuple[WindowGroup, ...]) -> Iterator[_Chunk]:
    """Yield the windows of all clips; `rows` is (B, tokens, 3 · C)."""
    size = bias.shape[-1]
    at_once = max(1, CHUNK_BYTES // (bias.numel() * bias.element_size()))
    flat = rows.flatten(0, 1)
    clips = torch.arange(len(rows), device=rows.device)[:, None, None] * rows.shape[1]
    for group in groups:
        of_kind = bias
        if group.regions is not None:
            is_separated = group.regions[:, None] != group.regions
            of_kind = bias + is_separated.to(bias.dtype) * MASKED
        windows = (clips + group.places).flatten(0, 1)
        of_kind = of_kind.repeat(min(at_once, len(windows)), 1, 1)
        for part in windows.split(at_once):
            index = part.flatten()
            found = flat.index_select(0, index).reshape(len(part), size, 3, heads, -1)
            q, k, v = found.permute(2, 0, 3, 1, 4).reshape(3, len(part) * heads, size, -1).unbind(0)
            yield _Chunk(index, q, k, v, of_kind[: len(part) * heads])


def _weights(chunk: _Chunk, buffer: Tensor) -> Tensor:
    """Return the attention weights of a chunk, in a part of `buffer`."""
    out = buffer[: len(chunk.q)]
    torch.baddbmm(chunk.bias, chunk.q, chunk.k.transpose(1, 2), alpha=chunk.q.shape[2] ** -0.5, out=out)
    return torch.softmax(out, -1, out=out)


def _tokens(x: Tensor, heads: int) -> Tensor:
    """Map (windows · heads, tokens, head_dim) to (windows · tokens, C)."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2).flatten(0, 1).flatten(1)


def _buffer(bias: Tensor) -> Tensor:
    """Return memory for the scores of a chunk."""
    at_once = max(1, CHUNK_BYTES // (bias.numel() * bias.element_size()))
    return bias.new_empty(at_once * bias.shape[0], *bias.shape[1:])


def _attend(rows: Tensor, bias: Tensor, heads: int, groups: tuple[WindowGroup, ...]) -> Tensor:
    """Map (B, tokens, 3 · C) to (B, tokens, C)."""
    out = rows.new_empty(rows.shape[0] * rows.shape[1], rows.shape[2] // 3)
    buffer = _buffer(bias)
    for chunk in _chunks(rows, bias, heads, groups):
        out.index_copy_(0, chunk.places, _tokens(torch.bmm(_weights(chunk, buffer), chunk.v), heads))
    return out.unflatten(0, rows.shape[:2])


class _WindowAttention(torch.autograd.Function):
    """`_attend` and its gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, bias: Tensor, heads: int, groups: tuple[WindowGroup, ...]) -> Tensor:
        ctx.heads, ctx.groups = heads, groups
        ctx.save_for_backward(rows, bias)
        return _attend(rows, bias, heads, groups)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        rows, bias = ctx.saved_tensors
        heads, size = ctx.heads, bias.shape[-1]
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[1] else None
        grad_rows = torch.empty_like(rows).flatten(0, 1)
        grad = grad.flatten(0, 1)
        weights_buffer, scores_buffer = _buffer(bias), _buffer(bias)
        for chunk in _chunks(rows, bias, heads, ctx.groups):
            index, q, k, v, _ = chunk
            weights = _weights(chunk, weights_buffer)
            grad_out = grad.index_select(0, index).reshape(-1, size, heads, q.shape[2])
            grad_out = grad_out.transpose(1, 2).flatten(0, 1)
            scores = torch.bmm(grad_out, v.transpose(1, 2), out=scores_buffer[: len(q)])
            torch.ops.aten._softmax_backward_data.out(scores, weights, -1, scores.dtype, grad_input=scores)
            if grad_bias is not None:
                grad_bias += scores.unflatten(0, (-1, heads)).sum(0) if len(q) > heads else scores
            found = rows.new_empty(3, *q.shape)
            torch.bmm(scores, k, out=found[0]).mul_(q.shape[2] ** -0.5)
            torch.bmm(scores.transpose(1, 2), q, out=found[1]).mul_(q.shape[2] ** -0.5)
            torch.bmm(weights.transpose(1, 2), grad_out, out=found[2])
            parts = found.unflatten(1, (-1, heads)).permute(1, 3, 0, 2, 4)
            grad_rows.index_copy_(0, index, parts.reshape(len(index), -1))
        return grad_rows.unflatten(0, rows.shape[:2]), grad_bias, None, None

"""Choose the implementation that runs a convolution: PyTorch's operator, matrix products, or a deep stem."""

from typing import Literal

import torch
from torch import Tensor

from mmaction_lite.models.fast.operators import Geometry, convolve_onednn, has_onednn
from mmaction_lite.models.fast.safe_convolution import convolve
from mmaction_lite.models.fast.stem import convolve_deep
from mmaction_lite.models.fast.temporal import (
    can_use_products,
    convolve_time,
    shift,
    shift_and_project,
    subsample_frames,
)

Path = Literal["auto", "native", "products"]
"""PyTorch's operator ("native"), shifted matrix products, or the faster of the two as measured ("auto")."""


def convolve_frames(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    batch_size: int,
    *,
    groups: int = 1,
    share: int = 0,
    causal: bool = False,
    path: Path = "auto",
) -> Tensor:
    """Convolve each frame with "same" padding, after a temporal shift of channels.

    Args:
        x: frames (B·T, C, H, W).
        weight: (O, C / groups, S, S), S odd.
        bias: (O) or None.
        stride: in pixels, per dimension.
        batch_size: B.
        groups: see `torch.nn.Conv2d`.
        share: see `shift`; 0 for no shift.
        causal: see `shift`.
        path: for the 1×1 convolution after a shift.

    Returns:
        Frames (B·T, O, ceil(H / stride), ceil(W / stride)).
    """
    if share:
        if weight.shape[2:] == (1, 1) and max(stride) == 1:
            return shift_and_project(x, weight, bias, batch_size, share, path, causal=causal)
        return convolve(shift(x, batch_size, share, causal), weight, bias, stride, groups)
    if _is_stem_on_gpu(x, weight, stride):
        return convolve_deep(x, weight.unsqueeze(2), bias, batch_size, 1)
    return convolve(x, weight, bias, stride, groups)


def convolve_clips(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    batch_size: int,
    *,
    path: Path = "auto",
) -> Tensor:
    """Convolve over frames and pixels with "same" padding.

    Args:
        x: frames (B·T, C, H, W).
        weight: (O, C, K, S, S), K and S odd.
        bias: (O) or None.
        stride: in frames, then in pixels per dimension.
        batch_size: B.
        path: for a convolution over frames alone.

    Returns:
        Frames (B·T', O, H', W'), every length divided by its stride and rounded up.
    """
    if _is_stem_on_gpu(x, weight, stride):
        return convolve_deep(x, weight, bias, batch_size, stride[0])
    if weight.shape[2] == 1:
        return convolve(subsample_frames(x, batch_size, stride[0]), weight.squeeze(2), bias, stride[1:])
    if weight.shape[3] == 1 and stride[1] == 1:
        return convolve_time(x, weight, bias, batch_size, stride[0], path)
    clip = x.unflatten(0, (batch_size, -1)).transpose(1, 2)
    return _convolve_clip(clip, weight, bias, stride).transpose(1, 2).flatten(0, 1)


def _convolve_clip(clip: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> Tensor:
    """Map (B, C, T, H, W) to (B, O, T', H', W')."""
    in_inference = clip.dtype == torch.float32 and not torch.is_grad_enabled()
    if not in_inference or not can_use_products(clip) or not has_onednn():
        return convolve(clip, weight, bias, stride)
    # For small inputs PyTorch chooses its native implementation, which takes twice as long as oneDNN.
    padding = tuple(length // 2 for length in weight.shape[2:])
    return convolve_onednn(clip, weight, bias, Geometry(stride, padding, 1))


def _is_stem_on_gpu(x: Tensor, weight: Tensor, stride: tuple[int, ...]) -> bool:
    """Whether the convolution is a 7×7 stem with stride 2, for which `convolve_deep` is faster."""
    return x.is_cuda and weight.shape[1] == 3 and weight.shape[-1] == 7 and stride[-1] == 2

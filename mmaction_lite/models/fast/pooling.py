"""Max pooling of frames, in float and in uint8."""

import torch
from torch import Tensor
from torch.nn import functional


def max_pool(x: Tensor, padding: int) -> Tensor:
    """Return the 3×3 maximum with stride 2 of frames (N, C, H, W); uint8 frames take `padding` 1 only."""
    return max_pool_uint8(x) if x.dtype == torch.uint8 else functional.max_pool2d(x, 3, 2, padding)


def max_pool_uint8(x: Tensor) -> Tensor:
    """Return the 3×3 maximum with stride 2 and padding 1 of channels-last uint8 frames.

    PyTorch has no such operator. Output pixel n covers the input pixels 2n - 1, 2n and 2n + 1 that exist.
    """
    x = x.permute(0, 2, 3, 1)
    for axis in (1, 2):
        even, odd = _every_second(x, axis, 0).clone(), _every_second(x, axis, 1)
        to, after = even.narrow(axis, 0, odd.shape[axis]), even.narrow(axis, 1, even.shape[axis] - 1)
        torch.maximum(to, odd, out=to)
        torch.maximum(after, odd.narrow(axis, 0, after.shape[axis]), out=after)
        x = even
    return x.permute(0, 3, 1, 2)


def _every_second(x: Tensor, axis: int, first: int) -> Tensor:
    return x[:, first::2] if axis == 1 else x[:, :, first::2]

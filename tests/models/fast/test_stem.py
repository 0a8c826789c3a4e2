"""The stem of GPUs, as a convolution over many channels."""

import pytest
import torch
from torch.nn import functional

from mmaction_lite.models.fast.stem import convolve_deep


@pytest.mark.parametrize(
    ("taps", "side", "stride_t", "frames", "size"),
    [
        (5, 7, 2, 8, (16, 18)),
        (5, 7, 1, 3, (15, 16)),
        (1, 7, 1, 2, (9, 11)),
        (5, 7, 4, 9, (8, 8)),
        (3, 5, 2, 4, (6, 7)),
    ],
)
def test_the_deep_convolution_is_the_stem(
    taps: int, side: int, stride_t: int, frames: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2 * frames, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, taps, side, side, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    batch_size = x.unflatten(0, (2, -1)).transpose(1, 2)
    padding = (taps // 2, side // 2, side // 2)
    plain = (
        functional.conv3d(batch_size, weight, bias, (stride_t, 2, 2), padding).transpose(1, 2).flatten(0, 1)
    )
    deep = convolve_deep(x, weight, bias, 2, stride_t)
    torch.testing.assert_close(deep, plain)
    for ours, theirs in zip(
        *(torch.autograd.grad(out.sin().sum(), (x, weight, bias)) for out in (deep, plain)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)

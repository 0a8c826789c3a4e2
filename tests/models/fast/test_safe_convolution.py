"""Convolutions in training on CPUs where oneDNN crashes or leaves gradients unwritten."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.nn import functional

from mmaction_lite.models.convolution import Conv2d, Conv3d
from mmaction_lite.models.fast import safe_convolution
from mmaction_lite.models.fast.safe_convolution import convolve

CRASH = """
import torch
from mmaction_lite.models.convolution import Conv2d, Conv3d
x = torch.randn(4, 8, 112, 112).contiguous(memory_format=torch.channels_last).requires_grad_()
for out_channels in (8, 16, 64):
    conv = Conv2d(8, out_channels, 1, 2)
    conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
    for _ in range(3):
        conv(x, 4).sum().backward()
print("finished")
"""


def test_a_strided_projection_of_few_channels_does_not_crash() -> None:
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True)
    assert "finished" in done.stdout, done.stderr[-1000:]


@pytest.mark.parametrize(("channels", "side", "is_sliced"), [(8, 50, True), (8, 40, False), (16, 50, False)])
def test_the_workaround_gives_the_same_numbers_where_the_crash_occurs(
    channels: int, side: int, is_sliced: bool, monkeypatch: Any
) -> None:
    seen = []

    def watch(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(x.shape[-1])
        return conv2d(x, *arguments, **options)

    conv2d = functional.conv2d
    monkeypatch.setattr(safe_convolution.functional, "conv2d", watch)
    torch.manual_seed(0)
    conv = Conv2d(channels, 12, 1, 2).double()
    x = torch.randn(2, channels, side, side, dtype=torch.float64, requires_grad=True)
    out = convolve(x, conv.weight, None, conv.stride)
    expected = conv2d(x, conv.weight, None, 2)
    assert seen == [side // 2 if is_sliced else side]
    torch.testing.assert_close(out, expected)
    inputs = (x, conv.weight)
    grads = [torch.autograd.grad(y.sin().sum(), inputs) for y in (out, expected)]
    torch.testing.assert_close(*grads)
    seen.clear()
    with torch.no_grad():
        convolve(x, conv.weight, None, conv.stride)
    assert seen == [side]


@pytest.mark.parametrize("is_cast", [True, False])
@pytest.mark.parametrize(("frames", "kernel"), [(2, 3), (1, 3), (3, 5)])
def test_gradients_in_bfloat16_are_right_where_a_kernel_is_longer_than_the_clip(
    frames: int, kernel: int, is_cast: bool
) -> None:
    """Some processors' kernels leave memory of the weights' gradient as it was; so it is filled before."""
    torch.manual_seed(0)
    conv = Conv3d(144, 64, (kernel, 1))
    x, grad = torch.randn(2 * frames, 144, 6, 6), torch.randn(2 * frames, 64, 6, 6)
    conv(x, 2).backward(grad)
    expected, conv.weight.grad = conv.weight.grad, None
    if is_cast:
        conv.path = "native"
        conv.bfloat16()
        out = conv(x.bfloat16(), 2)
    else:
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x, 2)
    left = [torch.full((conv.weight.numel() * n // 2,), torch.nan) for n in (1, 2, 4)]
    del left
    out.backward(grad.to(out.dtype))
    assert expected is not None
    assert conv.weight.grad is not None
    assert float((conv.weight.grad - expected).norm()) < 0.02 * float(expected.norm())

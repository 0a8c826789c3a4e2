"""Depthwise convolution over frames and pixels."""

import pytest
import torch
from torch.nn import functional

from mmaction_lite.models.fast import depthwise
from mmaction_lite.models.fast.depthwise import convolve_depthwise

GEOMETRIES = [
    ((3, 3), (1, 1), (7, 6)),
    ((3, 3), (1, 2), (7, 6)),
    ((3, 3), (1, 2), (8, 5)),
    ((3, 3), (2, 2), (8, 5)),
    ((5, 5), (1, 1), (3, 9)),
    ((5, 1), (1, 1), (4, 3)),
    ((3, 1), (2, 1), (4, 3)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize(("kernel", "stride", "size"), GEOMETRIES)
def test_outputs_and_gradients_are_those_of_conv3d(dtype, frames, kernel, stride, size):
    torch.manual_seed(0)
    (taps, side), (stride_t, pixels) = kernel, stride
    batch_size, channels = 2, 5
    clip = torch.randn(batch_size, channels, frames, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(channels, 1, taps, side, side, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(channels, dtype=torch.float64, requires_grad=True)
    steps, padding = (stride_t, pixels, pixels), (taps // 2, side // 2, side // 2)
    expected = functional.conv3d(clip, weight, bias, steps, padding, groups=channels)
    gradient = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (clip, weight, bias), gradient)

    x = clip.detach().to(dtype).transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    inputs = [x, weight.detach().to(dtype), bias.detach().to(dtype)]
    for tensor in inputs:
        tensor.requires_grad_()
    out = convolve_depthwise(inputs[0], inputs[1], inputs[2], steps, batch_size)
    found = torch.autograd.grad(out, inputs, gradient.to(dtype).transpose(1, 2).flatten(0, 1))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(
        out.unflatten(0, (batch_size, -1)).transpose(1, 2), expected.to(dtype), rtol=tolerance, atol=tolerance
    )
    grad_x = found[0].unflatten(0, (batch_size, -1)).transpose(1, 2)
    for ours, theirs in zip((grad_x, *found[1:]), wanted, strict=True):
        torch.testing.assert_close(ours, theirs.to(dtype), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_run_pytorchs_operator(dtype, monkeypatch):
    x, weight = torch.randn(2, 4, 6, 6, dtype=dtype), torch.randn(4, 1, 3, 3, 3, dtype=dtype)
    monkeypatch.setattr(depthwise, "convolve_onednn", None)
    out = convolve_depthwise(x, weight, None, (1, 1, 1), 1)
    assert out.shape == x.shape
    assert out.dtype == dtype


def test_only_what_is_needed_is_computed():
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(4, 1, 3, 3, 3)
    for tensors in ((x,), (weight,)):
        for tensor in tensors:
            tensor.requires_grad_()
        convolve_depthwise(x, weight, None, (1, 1, 1), 1).sum().backward()
        assert [t.grad is not None for t in (x, weight)] == [t.requires_grad for t in (x, weight)]
        for tensor in tensors:
            tensor.requires_grad_(False)
        x.grad = weight.grad = None

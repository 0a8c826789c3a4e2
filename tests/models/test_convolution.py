"""The convolutions of blocks against PyTorch's conv3d of whole clips."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.models.convolution import Conv2d, Conv2plus1d, Conv3d, conv2d, conv3d


def convolve_clip(x: Tensor, conv: nn.Conv2d | nn.Conv3d) -> Tensor:
    """The reference, from clips (B, C, T, H, W) to frames."""
    weight = conv.weight if conv.weight.ndim == 5 else conv.weight.unsqueeze(2)
    stride = conv.stride if len(conv.stride) == 3 else (1, *conv.stride)
    out = functional.conv3d(x, weight, conv.bias, stride, tuple(k // 2 for k in weight.shape[2:]))
    return out.transpose(1, 2).flatten(0, 1)


def fold(clip: Tensor) -> Tensor:
    return clip.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize(
    "conv",
    [
        conv2d(3)(6, 5, 2),
        conv2d(1)(6, 5, 1),
        conv3d(1, 3)(6, 5, 2),
        conv3d(3, 1)(6, 5, 1),
        conv3d(3, 1, 2)(6, 5, 1),
        conv3d(3, 1)(6, 5, 2),
        conv3d(3, 3, 2)(6, 5, 2),
        conv3d(1, 1, 2)(6, 5, 2),
        Conv3d(6, 5, (1, 1), bias=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("in_training", [True, False])
def test_frames_are_convolved_like_clips(conv: Conv2d | Conv3d, in_training: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 7, 8)
    with torch.set_grad_enabled(in_training):
        torch.testing.assert_close(conv(fold(x), 2), convolve_clip(x, conv))


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_shift_comes_before_the_convolution(kernel: int) -> None:
    torch.manual_seed(0)
    x, conv = torch.randn(2, 8, 4, 5, 6), conv2d(kernel, shift_div=4)(8, 5, 1)
    assert isinstance(conv, Conv2d)
    shifted = torch.zeros_like(x)
    shifted[:, :2, :-1] = x[:, :2, 1:]
    shifted[:, 2:4, 1:] = x[:, 2:4, :-1]
    shifted[:, 4:] = x[:, 4:]
    torch.testing.assert_close(conv(fold(x), 2), convolve_clip(shifted, conv))


@pytest.mark.parametrize("time_first", [True, False])
def test_a_factored_convolution_normalizes_between_its_halves(time_first: bool) -> None:
    torch.manual_seed(0)
    spatial, temporal = Conv3d(6, 6, (1, 3)), Conv3d(6, 6, (3, 1))
    unit = Conv2plus1d(spatial, 6, temporal, time_first=time_first).eval()
    nn.init.normal_(unit.bn.bias)
    x = torch.randn(2, 6, 4, 5, 6)
    first, second = (temporal, spatial) if time_first else (spatial, temporal)
    inner = unit.bn(convolve_clip(x, first)).relu()
    expected = convolve_clip(inner.unflatten(0, (2, 4)).transpose(1, 2), second)
    torch.testing.assert_close(unit(fold(x), 2), expected)
    assert unit.conv_norm_pairs == [("temporal" if time_first else "spatial", "bn")]

"""PyTorch's convolutions with "same" padding, around two defects of oneDNN in training on CPUs."""

from operator import ge

import torch
from torch import Tensor
from torch.nn import functional

# Seen to crash with 2 to 15 input channels and 3136 pixels or more; never with 16 channels or 2304 pixels.
CRASHING_CHANNELS, CRASHING_PIXELS = 16, 2048


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], groups: int = 1
) -> Tensor:
    """Convolve frames (N, C, H, W) or clips (B, C, T, H, W) with "same" padding.

    Both defects were seen with PyTorch 2.13:

    - On CPUs with AVX-512 BF16, the weight gradient of a bfloat16 convolution is partly uninitialized where
      the kernel is longer than the input (seen with 144 channels, 3 taps, 2 frames). That case runs in
      float32.
    - The backward pass of a strided 1×1 convolution with few input channels, in channels-last memory format,
      reads outside its input and may crash the process. That case takes every `stride`-th pixel first.
    """
    run = functional.conv2d if x.ndim == 4 else functional.conv3d
    padding = tuple(length // 2 for length in weight.shape[2:])
    if _may_crash(x, weight, stride):
        x = x.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]].permute(0, 3, 1, 2)
        stride = (1, 1)
    if not _is_bfloat16_on_cpu(x) or all(map(ge, x.shape[2:], weight.shape[2:])):
        return run(x, weight, bias, stride, padding, groups=groups)
    bias = None if bias is None else bias.float()
    with torch.autocast("cpu", enabled=False):
        out = run(x.float(), weight.float(), bias, stride, padding, groups=groups)
    return out.to(torch.bfloat16)


def _may_crash(x: Tensor, weight: Tensor, stride: tuple[int, ...]) -> bool:
    return (
        x.device.type == "cpu"
        and x.ndim == 4
        and max(stride) > 1
        and weight.shape[2:] == (1, 1)
        and weight.shape[1] < CRASHING_CHANNELS
        and torch.is_grad_enabled()
        and x.shape[2] * x.shape[3] > CRASHING_PIXELS
    )


def _is_bfloat16_on_cpu(x: Tensor) -> bool:
    if x.device.type != "cpu":
        return False
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype == torch.bfloat16 and x.is_floating_point()

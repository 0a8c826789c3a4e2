"""The convolutions that blocks are made of: each maps frames (B·T, C, H, W) and B to (B·T', C', H', W').

B, the number of clips, travels with the activations because it is the same in every layer, while T shrinks
wherever a layer strides in time. Parameters keep the shapes in which the field publishes them: 4-D in image
networks, 5-D in the others.
"""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from mmaction_lite.models.fast.fused import Epilogue, fused_work
from mmaction_lite.models.fast.int8 import Int8Epilogue
from mmaction_lite.models.fast.recompute import norm_act_then
from mmaction_lite.models.fast.stem import convolve_deep
from mmaction_lite.models.fast.temporal import (
    convolve,
    convolve_time,
    products_work,
    shift,
    shift_and_project,
    shift_bytes,
)

HAS_ONEDNN = torch.backends.mkldnn.is_available()


class Unit(Protocol):
    """Makes one convolution of a block, without bias and with "same" padding."""

    def __call__(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        """Build it; `stride` is in pixels."""
        ...


class Conv2d(nn.Conv2d):
    """A convolution of every frame by itself; with `share` > 0, of frames that were shifted in time before.

    Args:
        share: channels moved each way (Temporal Shift Module).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1, share: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.share = share
        self.path = "auto"
        self.epilogue: Epilogue | Int8Epilogue | None = None

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, batch_size: int, plus: Tensor | None = None
    ) -> Tensor:
        """Map (B·T, C, H, W) to (B·T, C', H', W'), to which an `epilogue` adds `plus`."""
        return _run(self, x, batch_size, plus)

    def _convolve_and_end(
        self, x: Tensor, batch_size: int, plus: Tensor | None, epilogue: Epilogue | Int8Epilogue
    ) -> Tensor:
        if self.share:
            if isinstance(
                epilogue, Epilogue
            ):  # products with shifted frames take less than moving them first
                return epilogue.finish(self._convolve(x, batch_size), plus)
            x = shift_bytes(x, batch_size, self.share, epilogue.source.zero)
        return epilogue.convolve(x, self.weight, self.bias, self.stride, self.groups, plus)

    def _convolve(self, x: Tensor, batch_size: int) -> Tensor:
        if not self.share:
            if _is_stem_on_gpu(self, x):
                return convolve_deep(x, self.weight.unsqueeze(2), self.bias, batch_size, 1)
            return convolve(x, self.weight, self.bias, self.stride, self.groups)
        if self.kernel_size == (1, 1) and self.stride == (1, 1):
            return shift_and_project(x, self.weight, self.bias, batch_size, self.share, self.path)
        return convolve(shift(x, batch_size, self.share), self.weight, self.bias, self.stride, self.groups)


class Conv3d(nn.Conv3d):
    """A convolution over frames and pixels, run by the cheapest means its kernel allows."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int] = (1, 1),
        bias: bool = False,
    ) -> None:
        (t, s), (stride_t, stride_s) = kernel, stride
        super().__init__(
            in_channels,
            out_channels,
            (t, s, s),
            (stride_t, stride_s, stride_s),
            (t // 2, s // 2, s // 2),
            bias=bias,
        )
        self.path = "auto"
        self.epilogue: Epilogue | Int8Epilogue | None = None

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, batch_size: int, plus: Tensor | None = None
    ) -> Tensor:
        """Map (B·T, C, H, W) to (B·T', C', H', W'), to which an `epilogue` adds `plus`."""
        return _run(self, x, batch_size, plus)

    def _convolve_and_end(
        self, x: Tensor, batch_size: int, plus: Tensor | None, epilogue: Epilogue | Int8Epilogue
    ) -> Tensor:
        if self.kernel_size[0] == 1:
            x = subsample_frames(x, batch_size, self.stride[0])
            weight, stride = self.weight.squeeze(2), self.stride[1:]
            return epilogue.convolve(x, weight, self.bias, stride, 1, plus)
        if self.kernel_size[1] == 1 and self.stride[1] == 1:
            weight, stride = self.weight.squeeze(4), self.stride[:2]
            added = None if plus is None else _over_time(plus, batch_size)
            out = epilogue.convolve(_over_time(x, batch_size), weight, self.bias, stride, 1, added)
            return out.permute(0, 2, 3, 1).reshape(-1, *x.shape[2:], out.shape[1]).permute(0, 3, 1, 2)
        clip, added = (
            t if t is None else t.unflatten(0, (batch_size, -1)).transpose(1, 2) for t in (x, plus)
        )
        assert clip is not None
        out = epilogue.convolve(clip, self.weight, self.bias, self.stride, 1, added)
        return out.transpose(1, 2).flatten(0, 1)

    def _convolve(self, x: Tensor, batch_size: int) -> Tensor:
        stride_t, stride_s = self.stride[:2]
        if _is_stem_on_gpu(self, x):
            return convolve_deep(x, self.weight, self.bias, batch_size, stride_t)
        if self.kernel_size[0] == 1:
            x = subsample_frames(x, batch_size, stride_t)
            return convolve(x, self.weight.squeeze(2), self.bias, self.stride[1:])
        if self.kernel_size[1] == 1 and stride_s == 1:
            return convolve_time(x, self.weight, self.bias, batch_size, stride_t, self.path)
        clip = x.unflatten(0, (batch_size, -1)).transpose(1, 2)
        return self._over_clip(clip).transpose(1, 2).flatten(0, 1)

    def _over_clip(self, clip: Tensor) -> Tensor:
        """Map (B, C, T, H, W) to (B, C', T', H', W')."""
        plainly = torch.is_grad_enabled() or clip.dtype != torch.float32 or not HAS_ONEDNN
        if plainly or not products_work(clip):
            return convolve(clip, self.weight, self.bias, self.stride)
        # For small inputs PyTorch would take a convolution of its own, which needs twice oneDNN's time.
        return torch.ops.aten.mkldnn_convolution(
            clip, self.weight, self.bias, self.padding, self.stride, self.dilation, 1
        )


def _run(conv: Conv2d | Conv3d, x: Tensor, batch_size: int, plus: Tensor | None) -> Tensor:
    """A convolution, and what follows on it where it has an ending."""
    if conv.epilogue is None:
        return conv._convolve(x, batch_size)
    if isinstance(conv.epilogue, Epilogue) and not fused_work(x):
        return conv.epilogue.finish(conv._convolve(x, batch_size), plus)
    return conv._convolve_and_end(x, batch_size, plus, conv.epilogue)


def _is_stem_on_gpu(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    """Whether a convolution is one of those that `convolve_deep` is for."""
    return x.is_cuda and conv.in_channels == 3 and conv.kernel_size[-1] == 7 and conv.stride[-1] == 2


class Conv2plus1d(nn.Module):
    """A space-time convolution factored into one over pixels and one over frames, normalised in between.

    Args:
        middle: channels between the two.
        time_first: the order of PyTorchVideo's R(2+1)D; the paper's is space first.

    Source: R(2+1)D (Tran et al., arXiv:1711.11248), section 3.5.
    """

    def __init__(self, spatial: Conv3d, middle: int, temporal: Conv3d, *, time_first: bool = False) -> None:
        super().__init__()
        self.spatial = spatial
        self.bn = nn.BatchNorm2d(middle)
        self.relu = nn.ReLU(inplace=True)
        self.temporal = temporal
        self.time_first = time_first

    @property
    def in_order(self) -> tuple[Conv3d, Conv3d]:
        """Both, as they follow on each other."""
        return (self.temporal, self.spatial) if self.time_first else (self.spatial, self.temporal)

    def forward(self, x: Tensor, batch_size: int, plus: Tensor | None = None) -> Tensor:
        """Map (B·T, C, H, W) to (B·T', C', H', W'), to which an `epilogue` of the second adds `plus`."""
        first, second = self.in_order
        if second.epilogue is not None:
            return second(first(x, batch_size), batch_size, plus)
        return norm_act_then(
            first(x, batch_size), self.bn, self.relu, partial(second, batch_size=batch_size), batch_size
        )


def store_channels_last(model: nn.Module, *, is_trained: bool) -> None:
    """Lay weights out in memory as kernels and `convolve_time` want them: every step is spared the copies.

    Shapes and numbers stay. Not for FSDP2, which divides contiguous weights only. In training, kernels over
    frames and pixels stay as they are: a step of R3D-18 takes 5 % less.
    """
    for module in model.modules():
        if isinstance(module, Conv2d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
        elif isinstance(module, Conv3d) and (1 in module.kernel_size or not is_trained):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last_3d)


def _over_time(x: Tensor, batch_size: int) -> Tensor:
    """Frames (B·T, C, H, W) as images (B, C, T, H·W), a view of channels-last frames."""
    images = x.permute(0, 2, 3, 1).reshape(batch_size, -1, x.shape[2] * x.shape[3], x.shape[1])
    return images.permute(0, 3, 1, 2)


def subsample_frames(x: Tensor, batch_size: int, stride: int) -> Tensor:
    """Frames 0, stride, 2·stride … of each clip: (B·T, C, H, W) to (B·ceil(T / stride), C, H, W)."""
    if stride == 1:
        return x
    # Sliced in the order of memory: the gradient's zeros come in that order, and so does all that follows.
    return x.permute(0, 2, 3, 1).unflatten(0, (batch_size, -1))[:, ::stride].flatten(0, 1).permute(0, 3, 1, 2)


def conv2d(kernel: int, shift_div: int = 0) -> Unit:
    """k×k over single frames; with `shift_div`, 1/shift_div of the channels moves each way in time before."""

    def unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        share = in_channels // shift_div if shift_div else 0
        return Conv2d(in_channels, out_channels, kernel, stride, share=share)

    return unit


def conv3d(frames: int, kernel: int, stride_t: int = 1) -> Unit:
    """frames×k×k, which also strides in time if told so."""

    def unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return Conv3d(in_channels, out_channels, (frames, kernel), (stride_t, stride))

    return unit

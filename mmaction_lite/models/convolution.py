"""The convolutions of residual blocks: each maps frames (B·T, C, H, W) to frames (B·T', C', H', W').

The batch size B is an argument of `forward`, because it is the same in every layer, while T shrinks in layers
that stride in time. Parameters have the shapes of the published networks: 4-D in image networks, 5-D in
others. `fast.dispatch` chooses the implementation of each convolution.
"""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from torch import Tensor, nn

from mmaction_lite.models.fast.depthwise import convolve_depthwise
from mmaction_lite.models.fast.dispatch import Path, convolve_clips, convolve_frames
from mmaction_lite.models.fast.recompute import norm_act_then


class Unit(Protocol):
    """Builder of one convolution of a block, without bias and with "same" padding."""

    def __call__(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        """Build the convolution; `stride` is in pixels."""
        ...


class Conv2d(nn.Conv2d):
    """Convolution of single frames, after a temporal shift if `share` is above 0.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel in pixels, odd.
        stride: in pixels.
        groups: see `torch.nn.Conv2d`.
        share: channels that move one frame back, and as many that move one frame ahead (Temporal Shift
            Module, Lin et al., arXiv:1811.08383, section 3).
        causal: only move channels one frame ahead, so that no output depends on a later frame; see
            `fast.temporal.shift`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        *,
        groups: int = 1,
        share: int = 0,
        causal: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.share = share
        self.causal = causal
        self.path: Path = "auto"

    def forward(self, x: Tensor, batch_size: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Map (B·T, C, H, W) to (B·T, C', H', W')."""
        return convolve_frames(
            x,
            self.weight,
            self.bias,
            self.stride,
            batch_size,
            groups=self.groups,
            share=self.share,
            causal=self.causal,
            path=self.path,
        )


class Conv3d(nn.Conv3d):
    """Convolution over frames and pixels.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: in frames and in pixels, both odd.
        stride: in frames and in pixels.
        bias: add a bias.
    """

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
        self.path: Path = "auto"

    def forward(self, x: Tensor, batch_size: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Map (B·T, C, H, W) to (B·T', C', H', W')."""
        return convolve_clips(x, self.weight, self.bias, self.stride, batch_size, path=self.path)


class DepthwiseConv3d(nn.Conv3d):
    """Convolution of every channel over frames and pixels by itself.

    Args:
        channels: channels of input and output.
        kernel: in frames and in pixels, both odd.
        stride: in frames and in pixels.
    """

    def __init__(self, channels: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> None:
        (t, s), (stride_t, stride_s) = kernel, stride
        super().__init__(
            channels,
            channels,
            (t, s, s),
            (stride_t, stride_s, stride_s),
            (t // 2, s // 2, s // 2),
            groups=channels,
            bias=False,
        )

    def forward(self, x: Tensor, batch_size: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Map (B·T, C, H, W) to (B·T', C, H', W')."""
        return convolve_depthwise(x, self.weight, self.bias, self.stride, batch_size)


class Conv2plus1d(nn.Module):
    """Space-time convolution factored into a spatial convolution, normalization, ReLU and a temporal one.

    Args:
        spatial: 1×k×k convolution.
        middle: channels between the two.
        temporal: k×1×1 convolution.
        time_first: run the temporal convolution first, as in PyTorchVideo; the paper runs it second.

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
        """Both convolutions, the one that runs first first."""
        return (self.temporal, self.spatial) if self.time_first else (self.spatial, self.temporal)

    @property
    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """See `ConvNormPairs`."""
        return [("temporal" if self.time_first else "spatial", "bn")]

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T', C', H', W')."""
        first, second = self.in_order
        return norm_act_then(
            first(x, batch_size), self.bn, self.relu, partial(second, batch_size=batch_size), batch_size
        )


class ConvNormPairs(Protocol):
    """A module that names its convolutions whose output goes to a normalization and nowhere else.

    `optimize_for_inference` folds each of these normalizations into its convolution. A module without this
    attribute runs as it is.
    """

    @property
    def conv_norm_pairs(self) -> Sequence[tuple[str, str]]:
        """Names of submodules: (convolution, normalization)."""
        ...


def conv2d(kernel: int, shift_div: int = 0, *, causal: bool = False) -> Unit:
    """Return a builder of k×k convolutions of single frames.

    Args:
        kernel: k.
        shift_div: 1 / shift_div of the channels moves each way in time first; 0 for no shift.
        causal: see `Conv2d`.
    """

    def unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        share = in_channels // shift_div if shift_div else 0
        return Conv2d(in_channels, out_channels, kernel, stride, share=share, causal=causal)

    return unit


def conv3d(frames: int, kernel: int, stride_t: int = 1) -> Unit:
    """Return a builder of frames×k×k convolutions with a stride of `stride_t` frames."""

    def unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return Conv3d(in_channels, out_channels, (frames, kernel), (stride_t, stride))

    return unit

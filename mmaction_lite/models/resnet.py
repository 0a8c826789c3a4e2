"""Residual network (He et al., arXiv:1512.03385, section 3), the backbone of most families of the package.

Activations are frames (B·T, C, H, W) in the channels-last memory format from the first layer to the last:
decoders write it, and convolutions are fastest in it. The families differ in the convolutions of the blocks,
which they pass as units.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.models.convolution import Unit
from mmaction_lite.models.fast.projection import can_fold, is_plain_relu, project
from mmaction_lite.models.fast.recompute import activate, checkpoint_forward, norm_act_then
from mmaction_lite.models.fast.temporal import subsample_frames

Norm = Callable[[int], nn.Module]


class Chain(nn.Module):
    """Two or more convolutions with normalization (conv1, bn1, conv2, bn2, …), and activations between them.

    Args:
        channels: channels of the input, then of the output of every convolution.
        strides: stride of every convolution in pixels.
        units: builders of the convolutions.
        norm: builder of a normalization for a number of channels.
        activation: in-place activation.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        units: Sequence[Unit],
        norm: Norm,
        activation: nn.Module,
    ) -> None:
        super().__init__()
        self.length = len(units)
        for number, (unit, stride) in enumerate(zip(units, strides, strict=True), 1):
            self.add_module(f"conv{number}", unit(channels[number - 1], channels[number], stride))
            self.add_module(f"bn{number}", norm(channels[number]))
        self.activation = activation

    @property
    def last_norm(self) -> nn.Module:
        """The normalization after the last convolution."""
        return self.get_submodule(f"bn{self.length}")

    @property
    def convolutions(self) -> list[nn.Module]:
        """The convolutions conv1, conv2, …"""
        return [self.get_submodule(f"conv{number}") for number in range(1, self.length + 1)]

    @property
    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """See `ConvNormPairs`."""
        return [(f"conv{number}", f"bn{number}") for number in range(1, self.length + 1)]

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T', C', H', W')."""
        conv = partial(self.convolutions[-1], batch_size=batch_size)
        return self.last_norm(self._finish(self._begin(x, batch_size), conv, batch_size))

    def _begin(self, x: Tensor, batch_size: int) -> Tensor:
        """Run the chain up to the last convolution but one."""
        first, *others, _ = self.convolutions
        x = first(x, batch_size)
        for number, conv in enumerate(others, 1):
            layer = partial(conv, batch_size=batch_size)
            x = norm_act_then(x, self.get_submodule(f"bn{number}"), self.activation, layer, batch_size)
        return x

    def _finish(self, x: Tensor, layer: Callable[[Tensor], Tensor], batch_size: int) -> Tensor:
        """Normalize and activate the output of `_begin`, then run `layer`, which has the last convolution."""
        norm = self.get_submodule(f"bn{self.length - 1}")
        return norm_act_then(x, norm, self.activation, layer, batch_size)


class Block(Chain):
    """Residual block: a chain, a shortcut and the activation of their sum. Parameter names are torchvision's.

    Args:
        channels: see `Chain`.
        strides: see `Chain`.
        units: builders of the convolutions, the last one for the projection of the shortcut. The shortcut is
            projected if the shape changes.
        norm: see `Chain`.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], units: Sequence[Unit], norm: Norm
    ) -> None:
        *convolutions, shortcut = units
        super().__init__(channels, strides, convolutions, norm, nn.ReLU(inplace=True))
        self.downsample = None
        if max(strides) != 1 or channels[0] != channels[-1]:
            projection = shortcut(channels[0], channels[-1], max(strides))
            self.downsample = nn.ModuleList([projection, norm(channels[-1])])

    @property
    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """See `ConvNormPairs`."""
        shortcut = [] if self.downsample is None else [("downsample.0", "downsample.1")]
        return super().conv_norm_pairs + shortcut

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T', C', H', W')."""
        shortcut = x
        if self.downsample is not None:
            conv, norm = self.downsample
            shortcut = project(x, conv, norm) if can_fold(x, conv, norm) else norm(conv(x, batch_size))
        last, norm = self.convolutions[-1], self.last_norm
        x = self._begin(x, batch_size)
        if can_fold(x, last, norm) and is_plain_relu(self.activation):
            layer = partial(project, conv=last, norm=norm, shortcut=shortcut)
            return self._finish(x, layer, batch_size)
        x = norm(self._finish(x, partial(last, batch_size=batch_size), batch_size))
        return activate(x.add_(shortcut), self.activation, batch_size)


def basic_block(in_channels: int, channels: int, stride: int, units: Sequence[Unit], norm: Norm) -> Block:
    """Return a block of two 3×3 convolutions (ResNet-18 and 34); the first one has the stride."""
    return Block((in_channels, channels, channels), (stride, 1), units, norm)


def bottleneck(in_channels: int, channels: int, stride: int, units: Sequence[Unit], norm: Norm) -> Block:
    """Return a block of 1×1, 3×3 and 1×1 convolutions (ResNet-50 and 101); the 3×3 one has the stride."""
    return Block((in_channels, channels, channels, 4 * channels), (1, stride, 1), units, norm)


# Number of layers to the builder of blocks, output channels per inner channel, and blocks of each stage.
DEPTHS = {
    10: (basic_block, 1, (1, 1, 1, 1)),
    18: (basic_block, 1, (2, 2, 2, 2)),
    34: (basic_block, 1, (3, 4, 6, 3)),
    50: (bottleneck, 4, (3, 4, 6, 3)),
    101: (bottleneck, 4, (3, 4, 23, 3)),
}


class MaxPool(nn.Module):
    """3×3 max pooling after the stem, with stride 2 in pixels.

    Args:
        stride_t: stride in frames; the kernel is one frame.
        padding: in pixels.
    """

    def __init__(self, stride_t: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.stride_t = stride_t
        self.padding = padding

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T', C, H/2, W/2)."""
        x = subsample_frames(x, batch_size, self.stride_t)
        return functional.max_pool2d(x, 3, 2, self.padding)


class Stage(nn.Sequential):
    """Blocks in sequence, and other modules between them (non-local blocks, pooling).

    Attributes:
        recompute: store the inputs of the blocks only, and recompute all other activations in the backward
            pass: a third more time for a fraction of the memory (Chen et al. 2016, arXiv:1604.06174).
    """

    recompute = False

    def forward(self, x: Tensor, batch_size: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Map (B·T, C, H, W) to (B·T', C', H', W')."""
        recomputes = self.recompute and self.training and torch.is_grad_enabled()
        for module in self:
            x = checkpoint_forward(module, x, batch_size) if recomputes else module(x, batch_size)
        return x


class ResNet(nn.Module):
    """Stem and four stages.

    Args:
        depth: number of layers, a key of `DEPTHS`.
        width: channels of the stem and inner channels of the first stage; each later stage has twice as many.
        stem: builder of the first convolution, which has stride 2.
        units: maps stage (0–3) and block to the builders of the convolutions of that block; the last one is
            for the projection of the shortcut.
        pool: pooling after the stem; None: no pooling.
        first_stride: stride of stage 0 in pixels; the other stages have stride 2.
        joined: channels concatenated to the input of each stage (lateral connections of SlowFast).
        norm_eps: epsilon of the batch normalization in stem and blocks.
        zero_init_residual: initialize every block as the identity.

    Attributes:
        channels: output channels of the stem and of each stage.
        features: output channels of the network.
    """

    conv_norm_pairs = (("conv1", "bn1"),)

    def __init__(
        self,
        depth: int,
        width: int,
        stem: Unit,
        units: Callable[[int, int], Sequence[Unit]],
        pool: nn.Module | None,
        *,
        first_stride: int = 1,
        joined: Sequence[int] = (0, 0, 0, 0),
        norm_eps: float = 1e-5,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        make_block, expansion, counts = DEPTHS[depth]
        norm = partial(nn.BatchNorm2d, eps=norm_eps)
        self.conv1 = stem(3, width, 2)
        self.bn1 = norm(width)
        self.relu: nn.Module = nn.ReLU(inplace=True)
        self.maxpool = pool
        self.channels = [width]
        for stage, count in enumerate(counts):
            inner, blocks = width << stage, Stage()
            for index in range(count):
                channels = inner * expansion if index else self.channels[-1] + joined[stage]
                stride = 1 if index else (2 if stage else first_stride)
                blocks.append(make_block(channels, inner, stride, units(stage, index), norm))
            self.add_module(f"layer{stage + 1}", blocks)
            self.channels.append(inner * expansion)
        self.features = self.channels[-1]
        initialize(self, zero_init_residual=zero_init_residual)

    @property
    def stages(self) -> list[nn.Module]:
        """The stages layer1 to layer4."""
        return [self.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]

    def layers(self) -> list[nn.Module]:
        """Return stem (conv1 and bn1) and stages; see `models.network`."""
        return [nn.ModuleList([self.conv1, self.bn1]), *self.stages]

    def run_stem(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, 3, H, W) to (B·T', width, H/4, W/4), or to H/2, W/2 without pooling."""
        x = self.conv1(x, batch_size)
        if self.maxpool is None:
            return self.relu(self.bn1(x))
        return norm_act_then(x, self.bn1, self.relu, partial(self.maxpool, batch_size=batch_size), batch_size)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, 3, H, W) to (B·T', features, H/32, W/32), with default strides."""
        x = self.run_stem(x, batch_size)
        for stage in self.stages:
            x = stage(x, batch_size)
        return x


def initialize(net: nn.Module, *, zero_init_residual: bool = False) -> None:
    """Initialize convolutions by He's normal distribution, fan-out mode (arXiv:1502.01852), in place.

    Args:
        net: the network.
        zero_init_residual: set the weight of the last normalization of every block to 0, so that the block is
            the identity (Goyal et al., arXiv:1706.02677, section 5.1).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual and isinstance(module, Block):
            nn.init.zeros_(module.last_norm.get_parameter("weight"))

"""One residual network (He et al., arXiv:1512.03385, section 3) under every family of the package.

Activations are frames, (B·T, C, H, W) channels-last, from the first layer to the last: the memory order in
which decoders write and in which convolutions run fastest. What a family adds, it adds by the convolutions
("units") that it puts into the blocks.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mmaction_lite.models.convolution import Unit
from mmaction_lite.models.fast.pooling import max_pool
from mmaction_lite.models.fast.recompute import activate, checkpoint_forward, norm_act_then
from mmaction_lite.models.fast.temporal import subsample_frames

Norm = Callable[[int], nn.Module]


class Chain(nn.Module):
    """Normalised convolutions conv1, bn1, conv2, bn2 …, an activation between two of them but not at the end.

    Args:
        channels: of the input, and of what every convolution yields.
        strides: of every convolution, in pixels.
        units: what makes the convolutions.
        norm: what makes the normalisations.
        activation: changes its input in place.
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
        """The normalisation at the end."""
        return self.get_submodule(f"bn{self.length}")

    @property
    def convolutions(self) -> list[nn.Module]:
        """conv1, conv2 …"""
        return [self.get_submodule(f"conv{number}") for number in range(1, self.length + 1)]

    @property
    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """See `ConvNormPairs`."""
        return [(f"conv{number}", f"bn{number}") for number in range(1, self.length + 1)]

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T', C', H', W')."""
        x = self.get_submodule("conv1")(x, batch_size)
        for number in range(1, self.length):
            conv = partial(self.get_submodule(f"conv{number + 1}"), batch_size=batch_size)
            x = norm_act_then(x, self.get_submodule(f"bn{number}"), self.activation, conv, batch_size)
        return self.last_norm(x)


class Block(Chain):
    """A chain, the sum with its input, and the activation; parameter names are torchvision's."""

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
            shortcut = norm(conv(x, batch_size))
        return activate(super().forward(x, batch_size).add_(shortcut), self.activation, batch_size)


def basic_block(in_channels: int, channels: int, stride: int, units: Sequence[Unit], norm: Norm) -> Block:
    """Two 3×3 convolutions (ResNet-18 and 34)."""
    return Block((in_channels, channels, channels), (stride, 1), units, norm)


def bottleneck(in_channels: int, channels: int, stride: int, units: Sequence[Unit], norm: Norm) -> Block:
    """1×1, 3×3, which carries the stride, and 1×1 (ResNet-50 and 101)."""
    return Block((in_channels, channels, channels, 4 * channels), (1, stride, 1), units, norm)


DEPTHS = {
    10: (basic_block, 1, (1, 1, 1, 1)),
    18: (basic_block, 1, (2, 2, 2, 2)),
    34: (basic_block, 1, (3, 4, 6, 3)),
    50: (bottleneck, 4, (3, 4, 6, 3)),
    101: (bottleneck, 4, (3, 4, 23, 3)),
}


class MaxPool(nn.Module):
    """The 3×3 maximum after the stem, with stride 2 in pixels and `stride_t` in frames."""

    def __init__(self, stride_t: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.stride_t = stride_t
        self.padding = padding

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T', C, H/2, W/2)."""
        x = subsample_frames(x, batch_size, self.stride_t)
        return max_pool(x, self.padding)


class Stage(nn.Sequential):
    """Blocks one after the other, and what else a family puts between them.

    Attributes:
        recompute: keep only what enters each block, and make the rest again in the backward pass: a third
            more time for a fraction of the memory (Chen et al. 2016, arXiv:1604.06174).
    """

    recompute = False

    def forward(self, x: Tensor, batch_size: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Map (B·T, C, H, W) to (B·T', C', H', W')."""
        is_again = self.recompute and self.training and torch.is_grad_enabled()
        for module in self:
            x = checkpoint_forward(module, x, batch_size) if is_again else module(x, batch_size)
        return x


class ResNet(nn.Module):
    """Stem and four stages.

    Args:
        depth: a key of `DEPTHS`.
        width: channels of the stem and of the first stage's blocks, doubled by every later stage.
        stem: the first convolution, which has stride 2.
        units: (stage 0–3, block) to the convolutions of that block, the shortcut's last.
        pool: what follows the stem; None keeps the resolution.
        first_stride: of stage 0, in pixels; the later stages have 2.
        joined: channels that join the input of each stage from outside.
        norm_eps: epsilon of the normalisations in stem and blocks.
        zero_init_residual: start every block as the identity.
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
        initialise(self, zero_init_residual=zero_init_residual)

    @property
    def stages(self) -> list[nn.Module]:
        """layer1 to layer4."""
        return [self.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]

    def layers(self) -> list[nn.Module]:
        """Return stem (conv1 and bn1) and stages; see `models.network`."""
        return [nn.ModuleList([self.conv1, self.bn1]), *self.stages]

    def run_stem(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, 3, H, W) to (B·T', width, H/4, W/4)."""
        x = self.conv1(x, batch_size)
        if self.maxpool is None:
            return self.relu(self.bn1(x))
        return norm_act_then(x, self.bn1, self.relu, partial(self.maxpool, batch_size=batch_size), batch_size)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, 3, H, W) to (B·T', features, H/32, W/32)."""
        x = self.run_stem(x, batch_size)
        for stage in self.stages:
            x = stage(x, batch_size)
        return x


def initialise(net: nn.Module, *, zero_init_residual: bool = False) -> None:
    """He's normal initialisation by fan-out; normalisations start as the identity (PyTorch's own default)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if zero_init_residual and isinstance(module, Block):
            nn.init.zeros_(module.last_norm.get_parameter("weight"))

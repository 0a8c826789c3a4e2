"""R(2+1)D (Tran et al., arXiv:1711.11248): 3-D convolutions factored into a spatial and a temporal one.

Three published networks have this name: torchvision's (18 layers, no pooling after the stem), MMAction2's (34
layers, shortcuts factored too) and PyTorchVideo's (50 layers; only the middle convolution of a block is
factored, with the temporal one first). They map (B, 3, T, H, W) to logits (B, num_classes).
"""

from collections.abc import Sequence

from torch import nn

from mmaction_lite.models.convolution import Conv2plus1d, Conv3d, Unit, conv3d
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import MaxPool, ResNet
from mmaction_lite.settings import PositiveInt, Probability


def middle_channels(in_channels: int, out_channels: int, kernel: int) -> int:
    """Return the channels between both convolutions that match the parameters of a 3×k×k one (section 3.5).

    Args:
        in_channels: of the spatial convolution.
        out_channels: of the temporal convolution.
        kernel: k.
    """
    space, time = in_channels * kernel * kernel, 3 * out_channels
    return 3 * space * out_channels // (space + time)


def factored(kernel: int, stride_t: int = 1, middle: int | None = None, frames: int = 3) -> Unit:
    """Return a unit of a 1×k×k convolution, normalization, ReLU and a temporal convolution.

    Args:
        kernel: k.
        stride_t: stride of the temporal convolution in frames.
        middle: channels between both; None: those of `middle_channels`.
        frames: kernel size of the temporal convolution.
    """

    def unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        between = middle or middle_channels(in_channels, out_channels, kernel)
        spatial = Conv3d(in_channels, between, (1, kernel), (1, stride))
        return Conv2plus1d(spatial, between, Conv3d(between, out_channels, (frames, 1), (stride_t, 1)))

    return unit


def time_first(stride_t: int) -> Unit:
    """Return a unit of a 3×1×1 convolution, normalization, ReLU and a 1×3×3 convolution.

    All have the same number of channels.

    Args:
        stride_t: stride of the temporal convolution in frames.
    """

    def unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        temporal = Conv3d(in_channels, out_channels, (3, 1), (stride_t, 1))
        spatial = Conv3d(out_channels, out_channels, (1, 3), (1, stride))
        return Conv2plus1d(spatial, out_channels, temporal, time_first=True)

    return unit


def _recognizer(backbone: ResNet, num_classes: int, dropout: float) -> Recognizer:
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def r2plus1d_r18(num_classes: int = 400, dropout: Probability = 0.0, width: PositiveInt = 64) -> Recognizer:
    """Build torchvision's R(2+1)D on ResNet-18, for clips of 16x112x112."""

    def units(stage: int, block: int) -> Sequence[Unit]:
        first = block == 0 and stage > 0
        planes, stride_t = width << stage, 2 if first else 1
        # Both convolutions of a block have the middle channels computed for the first one.
        middle = middle_channels(planes // 2 if first else planes, planes, 3)
        return factored(3, stride_t, middle), factored(3, 1, middle), conv3d(1, 1, stride_t)

    stem = factored(7, middle=45 * width // 64)
    return _recognizer(ResNet(18, width, stem, units, None), num_classes, dropout)


def r2plus1d_r34(num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64) -> Recognizer:
    """Build MMAction2's R(2+1)D on ResNet-34, for clips 8x8 and 32x2 (frames x interval)."""

    def units(stage: int, block: int) -> Sequence[Unit]:
        stride_t = 2 if block == 0 and stage > 0 else 1
        return factored(3, stride_t), factored(3), factored(1, stride_t, frames=1)

    backbone = ResNet(34, width, factored(7), units, MaxPool(), norm_eps=1e-3)
    return _recognizer(backbone, num_classes, dropout)


def r2plus1d_r50(num_classes: int = 400, dropout: Probability = 0.5, width: PositiveInt = 64) -> Recognizer:
    """Build PyTorchVideo's R(2+1)D on ResNet-50, for clips 16x4 (frames x interval)."""

    def units(stage: int, block: int) -> Sequence[Unit]:
        stride_t = 2 if block == 0 and stage > 1 else 1
        return conv3d(1, 1), time_first(stride_t), conv3d(1, 1), conv3d(1, 1, stride_t)

    backbone = ResNet(50, width, conv3d(1, 7), units, None, first_stride=2)
    return _recognizer(backbone, num_classes, dropout)

"""X3D (Feichtenhofer, arXiv:2004.04730): small networks of depthwise 3-D convolutions.

X3D-XS, S and M are one network for clips of different sizes; X3D-L is deeper. Public weights exist for two
forms: those of PySlowFast and MMAction2 normalize the shortcut of the first block, those of PyTorchVideo do
not (`shortcut_norm`). The networks map (B, 3, T, H, W) to logits (B, num_classes).

Clips larger than those of the training are classified in windows by PySlowFast and PyTorchVideo, and as a
whole by MMAction2; see the argument `window` of `Recognizer.forward`.
"""

import math
from functools import partial

from torch import Tensor, nn

from mmaction_lite.models.convolution import Conv3d, DepthwiseConv3d
from mmaction_lite.models.fast.recompute import activate, norm_act_then, recompute
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import Stage, initialize
from mmaction_lite.settings import PositiveFloat, PositiveInt, Probability

BLOCKS = (1, 2, 5, 3)  # blocks of each stage for a depth factor of 1
EXPANSION = 2.25  # inner channels of a block per output channel
FEATURES = 2048


def squeezed_channels(channels: int) -> int:
    """Return a sixteenth of `channels`, rounded to a multiple of 8 that is at least 90 % of it, from 8."""
    wanted = channels / 16
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded


class SqueezeExcitation(nn.Module):
    """Scale every channel by a function of the averages of all channels (Hu et al., arXiv:1709.01507).

    Args:
        channels: channels of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = squeezed_channels(channels)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to the same shape; averages are over the frames and pixels of a clip."""
        means = x.mean((2, 3)).unflatten(0, (batch_size, -1)).mean(1)
        scales = self.fc2(self.fc1(means).relu_()).sigmoid()
        return (x.unflatten(0, (batch_size, -1)) * scales[:, None, :, None, None]).flatten(0, 1)


class X3DBlock(nn.Module):
    """Residual block: 1×1×1 expansion, depthwise 3×3×3, squeeze-excitation, swish and 1×1×1 projection.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: stride of the depthwise convolution in pixels.
        squeezes: apply squeeze-excitation.
        shortcut_norm: apply batch normalization to a projected shortcut.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, squeezes: bool, shortcut_norm: bool
    ) -> None:
        super().__init__()
        inner = int(EXPANSION * channels)
        self.conv1 = Conv3d(in_channels, inner, (1, 1))
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = DepthwiseConv3d(inner, (3, 3), (1, stride))
        self.bn2 = nn.BatchNorm2d(inner)
        self.se = SqueezeExcitation(inner) if squeezes else None
        self.conv3 = Conv3d(inner, channels, (1, 1))
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.swish = nn.SiLU(inplace=True)
        self.downsample = None
        if stride > 1 or in_channels != channels:
            projection = Conv3d(in_channels, channels, (1, 1), (1, stride))
            norm = nn.BatchNorm2d(channels) if shortcut_norm else nn.Identity()
            self.downsample = nn.ModuleList([projection, norm])

    @property
    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """See `ConvNormPairs`."""
        pairs = [(f"conv{number}", f"bn{number}") for number in (1, 2, 3)]
        return pairs if self.downsample is None else [*pairs, ("downsample.0", "downsample.1")]

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T, C', H', W')."""
        shortcut = x
        if self.downsample is not None:
            conv, norm = self.downsample
            shortcut = norm(conv(x, batch_size))
        conv2 = partial(self.conv2, batch_size=batch_size)
        x = norm_act_then(self.conv1(x, batch_size), self.bn1, self.relu, conv2, batch_size)
        conv3 = partial(self.conv3, batch_size=batch_size)
        if self.se is None:
            x = norm_act_then(x, self.bn2, self.swish, conv3, batch_size)
        else:
            se = partial(self.se, batch_size=batch_size)
            x = recompute(lambda x: conv3(self.swish(se(self.bn2(x)))), x, self.bn2)
        x = self.bn3(x)
        return activate(x.add_(shortcut), self.relu, batch_size)


class X3DBackbone(nn.Module):
    """Stem, four stages and a 1×1×1 convolution.

    Args:
        width: channels of the stem and the first stage; each later stage has twice as many.
        depth_factor: factor of the number of blocks of each stage, rounded up.
        shortcut_norm: apply batch normalization to the shortcut of the first block.

    Attributes:
        channels: output channels.
    """

    conv_norm_pairs = (("conv1_t", "bn1"), ("conv5", "bn5"))

    def __init__(self, width: int, depth_factor: float, shortcut_norm: bool) -> None:
        super().__init__()
        self.conv1 = Conv3d(3, width, (1, 3), (1, 2))
        self.conv1_t = DepthwiseConv3d(width, (5, 1))
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        in_channels = width
        for stage, count in enumerate(BLOCKS):
            blocks, channels = Stage(), width << stage
            for index in range(math.ceil(count * depth_factor)):
                block = X3DBlock(
                    channels if index else in_channels,
                    channels,
                    1 if index else 2,
                    squeezes=index % 2 == 0,
                    shortcut_norm=shortcut_norm or stage > 0,
                )
                blocks.append(block)
            self.add_module(f"layer{stage + 1}", blocks)
            in_channels = channels
        self.channels = int(EXPANSION * in_channels)
        self.conv5 = Conv3d(in_channels, self.channels, (1, 1))
        self.bn5 = nn.BatchNorm2d(self.channels)

    @property
    def stages(self) -> list[nn.Module]:
        """The stages layer1 to layer4."""
        return [self.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]

    def adapt(self, shortcut_norm: bool) -> None:
        """Change to another published form, in place, with a newly initialized normalization."""
        block = self.get_submodule("layer1.0")
        assert isinstance(block, X3DBlock)
        assert block.downsample is not None
        if isinstance(block.downsample[1], nn.Identity) == shortcut_norm:
            norm = nn.BatchNorm2d(block.bn3.num_features) if shortcut_norm else nn.Identity()
            block.downsample[1] = norm.to(block.bn3.weight.device)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, 3, H, W) to (B·T, channels, H/32, W/32)."""
        x = self.relu(self.bn1(self.conv1_t(self.conv1(x, batch_size), batch_size)))
        for stage in self.stages:
            x = stage(x, batch_size)
        return self.relu(self.bn5(self.conv5(x, batch_size)))


class X3D(Recognizer):
    """`Recognizer` with a linear layer and ReLU between the pooling and the dropout."""

    backbone: X3DBackbone

    def __init__(self, backbone: X3DBackbone, num_classes: int, dropout: float) -> None:
        super().__init__(backbone, FEATURES, num_classes, dropout)
        self.projection = nn.Linear(backbone.channels, FEATURES, bias=False)
        initialize(self)
        # The published implementations initialize these linear layers as convolutions, which they are there.
        _initialize_convolution(self.projection)
        for module in self.modules():
            if isinstance(module, SqueezeExcitation):
                _initialize_convolution(module.fc1)
                _initialize_convolution(module.fc2)
            if isinstance(module, X3DBlock):
                nn.init.zeros_(module.bn3.weight)

    def project(self, pooled: Tensor) -> Tensor:
        """Map averages of the last feature map (..., C) to the input of the classifier (..., D)."""
        return self.projection(pooled).relu()

    def layers(self) -> list[nn.Module]:
        """Return the stem, the stages, the layers around the pooling, and the head; see `models.network`."""
        net = self.backbone
        stem = nn.ModuleList([net.conv1, net.conv1_t, net.bn1])
        return [stem, *net.stages, nn.ModuleList([net.conv5, net.bn5, self.projection]), self.head]


def _initialize_convolution(linear: nn.Linear) -> None:
    """Initialize a linear layer in place as `models.resnet.initialize` a convolution, with a bias of zero."""
    nn.init.kaiming_normal_(linear.weight, mode="fan_out", nonlinearity="relu")
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def x3d_xs(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 24,
    depth_factor: PositiveFloat = 2.2,
    shortcut_norm: bool = True,
) -> X3D:
    """Build X3D-XS, for clips of 4x160x160; for the arguments see `X3DBackbone`."""
    return X3D(X3DBackbone(width, depth_factor, shortcut_norm), num_classes, dropout)


def x3d_s(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 24,
    depth_factor: PositiveFloat = 2.2,
    shortcut_norm: bool = True,
) -> X3D:
    """Build X3D-S, for clips of 13x160x160; for the arguments see `X3DBackbone`."""
    return X3D(X3DBackbone(width, depth_factor, shortcut_norm), num_classes, dropout)


def x3d_m(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 24,
    depth_factor: PositiveFloat = 2.2,
    shortcut_norm: bool = True,
) -> X3D:
    """Build X3D-M, for clips of 16x224x224; for the arguments see `X3DBackbone`."""
    return X3D(X3DBackbone(width, depth_factor, shortcut_norm), num_classes, dropout)


def x3d_l(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 24,
    depth_factor: PositiveFloat = 5.0,
    shortcut_norm: bool = True,
) -> X3D:
    """Build X3D-L, for clips of 16x312x312; for the arguments see `X3DBackbone`."""
    return X3D(X3DBackbone(width, depth_factor, shortcut_norm), num_classes, dropout)

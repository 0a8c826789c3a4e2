"""MobileNetV2 (Sandler et al., arXiv:1801.04381) with the temporal shift of TSM."""

from torch import Tensor, nn

from mmaction_lite.models.convolution import Conv2d, Unit, conv2d
from mmaction_lite.models.resnet import Chain, Stage, initialize

# Expansion, channels, number of blocks, stride of the first block (table 2 of the paper).
SETTINGS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def depthwise(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return a depthwise 3×3 convolution."""
    return Conv2d(in_channels, out_channels, 3, stride, groups=in_channels)


class InvertedResidual(Chain):
    """Inverted residual block (section 3.3): 1×1 expansion, depthwise 3×3 and 1×1 projection.

    A block with a shortcut shifts channels in time before the expansion.

    Args:
        in_channels: of the input.
        channels: of the output.
        stride: of the depthwise convolution.
        expansion: channels inside of the block per input channel; 1: no expansion convolution.
        shift_div: 1/shift_div of the channels is shifted in each direction.
        causal: see `convolution.Conv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        expansion: int,
        *,
        shift_div: int,
        causal: bool = False,
    ) -> None:
        inner = in_channels * expansion
        has_shortcut = stride == 1 and in_channels == channels
        units: list[Unit] = [depthwise, conv2d(1)]
        widths, strides = [in_channels, inner, channels], [stride, 1]
        if expansion > 1:
            units.insert(0, conv2d(1, shift_div if has_shortcut else 0, causal=causal))
            widths.insert(1, inner)
            strides.insert(0, 1)
        super().__init__(widths, strides, units, nn.BatchNorm2d, nn.ReLU6(inplace=True))
        self.has_shortcut = has_shortcut

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T, C', H', W')."""
        out = super().forward(x, batch_size)
        return out.add_(x) if self.has_shortcut else out


class MobileNetV2(nn.Module):
    """Stem, seventeen blocks and a 1×1 convolution.

    Args:
        width: channels of the stem, 32 in the paper. The other layers scale with it, in multiples of 8.
        shift_div: 1/shift_div of the channels is shifted in each direction.
        causal: see `convolution.Conv2d`.
    """

    conv_norm_pairs = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, width: int, shift_div: int, *, causal: bool = False) -> None:
        super().__init__()

        def scaled(channels: int) -> int:
            return max(8, round(channels * width / 32 / 8) * 8)

        self.conv1 = Conv2d(3, width, 3, 2)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = Stage()
        channels = width
        for expansion, out_channels, count, first_stride in SETTINGS:
            for index in range(count):
                stride = 1 if index else first_stride
                out = scaled(out_channels)
                self.blocks.append(
                    InvertedResidual(channels, out, stride, expansion, shift_div=shift_div, causal=causal)
                )
                channels = out
        self.features = scaled(1280)
        self.conv2 = Conv2d(channels, self.features, 1, 1)
        self.bn2 = nn.BatchNorm2d(self.features)
        self.relu = nn.ReLU6(inplace=True)
        initialize(self)

    def layers(self) -> list[nn.Module]:
        """Return stem and blocks, the last one with the 1×1 convolution after it; see `models.network`."""
        *blocks, last = self.blocks
        return [
            nn.ModuleList([self.conv1, self.bn1]),
            *blocks,
            nn.ModuleList([last, self.conv2, self.bn2]),
        ]

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, 3, H, W) to (B·T, features, H/32, W/32)."""
        x = self.blocks(self.relu(self.bn1(self.conv1(x, batch_size))), batch_size)
        return self.relu(self.bn2(self.conv2(x, batch_size)))

"""SlowFast networks (Feichtenhofer et al., arXiv:1812.03982): a slow and a fast pathway.

The slow pathway is wide and sees few frames, the fast one is thin and sees all of them. Public weights exist
for two forms, which are different networks: that of the authors (PySlowFast, PyTorchVideo) and that of
MMAction2. They differ in four arguments, whose defaults are those of the authors. The networks map
(B, 3, T, H, W), with the T frames of the fast pathway, to logits (B, num_classes).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from mmaction_lite.models.convolution import Conv3d
from mmaction_lite.models.inflated import inflated_resnet
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import initialize
from mmaction_lite.settings import PositiveInt, Probability

SlowFrames = Literal["linspace", "strided"]
BETA = 8  # ratio of the channels of the slow pathway to those of the fast one; the paper's beta is 1/8


class Lateral(nn.Module):
    """Lateral connection: a time-strided convolution from the fast pathway to the slow one (section 3.4).

    Args:
        channels: channels of the fast pathway; the output has twice as many.
        kernel: kernel size in frames.
        alpha: frames of the fast pathway per frame of the slow one.
        norm: apply batch normalization and ReLU to the output.
    """

    def __init__(self, channels: int, kernel: int, alpha: int, norm: bool) -> None:
        super().__init__()
        self.conv = Conv3d(channels, 2 * channels, (kernel, 1), (alpha, 1))
        self.bn = nn.BatchNorm2d(2 * channels) if norm else None

    @property
    def conv_norm_pairs(self) -> list[tuple[str, str]]:
        """See `ConvNormPairs`."""
        return [] if self.bn is None else [("conv", "bn")]

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·T / alpha, 2·C, H, W)."""
        x = self.conv(x, batch_size)
        return x if self.bn is None else self.bn(x).relu_()


class SlowFast(nn.Module):
    """Both pathways and the lateral connections.

    Args:
        depth: number of layers of both ResNets.
        width: channels of the stem of the slow pathway.
        alpha: frames of the fast pathway per frame of the slow one.
        lateral_kernel: kernel size of the lateral connections in frames.
        lateral_norm: apply batch normalization and ReLU in the lateral connections; False in MMAction2.
        slow_frames: frames of the slow pathway. "linspace": T / alpha frames, evenly spaced from the first to
            the last. "strided": every alpha-th frame, beginning with the first (MMAction2).
        fast_first: concatenate the features of the fast pathway before those of the slow one; True in
            MMAction2.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        alpha: int,
        lateral_kernel: int,
        lateral_norm: bool,
        slow_frames: SlowFrames,
        fast_first: bool,
    ) -> None:
        super().__init__()
        thin = width // BETA
        # Input channels of the lateral connections, after the pooling and after stages 1 to 3.
        fast_channels = (thin, 4 * thin, 8 * thin, 16 * thin)
        joined = [2 * channels for channels in fast_channels]
        self.slow = inflated_resnet(depth, width, (0, 0, 1, 1), stem_frames=1, joined=joined)
        self.fast = inflated_resnet(depth, thin, (1, 1, 1, 1), stem_frames=5)
        self.features = self.slow.features + self.fast.features
        self.fast_channels = fast_channels
        self.alpha = alpha
        self.adapt(lateral_kernel, lateral_norm, slow_frames, fast_first)

    def adapt(
        self, lateral_kernel: int, lateral_norm: bool, slow_frames: SlowFrames, fast_first: bool
    ) -> None:
        """Change to another published form, in place, with newly initialized lateral connections."""
        self.lateral = nn.ModuleList(
            [Lateral(channels, lateral_kernel, self.alpha, lateral_norm) for channels in self.fast_channels]
        )
        initialize(self.lateral)
        self.slow_frames = slow_frames
        self.fast_first = fast_first

    def layers(self) -> list[nn.Module]:
        """Return the stems and the stages of both pathways; see `models.network`.

        A lateral connection belongs to the stage that its output enters.
        """
        stem = nn.ModuleList([*self.slow.layers()[0].children(), *self.fast.layers()[0].children()])
        stages = zip(self.lateral, self.slow.stages, self.fast.stages, strict=True)
        return [stem, *map(nn.ModuleList, stages)]

    def slow_indices(self, num_frames: int) -> Tensor:
        """Return which of `num_frames` frames of a clip the slow pathway reads, int64 on the CPU."""
        if self.slow_frames == "strided":
            return torch.arange(0, num_frames, self.alpha)
        return torch.linspace(0, num_frames - 1, num_frames // self.alpha).long()

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, 3, H, W) to (B, features, H/32, W/32), averaged over the frames of each pathway."""
        time = x.unflatten(0, (batch_size, -1))
        if self.slow_frames == "strided":
            slow = time[:, :: self.alpha]
        else:
            slow = time.index_select(1, self.slow_indices(time.shape[1]).to(x.device))
        slow, fast = self.slow.run_stem(slow.flatten(0, 1), batch_size), self.fast.run_stem(x, batch_size)
        for lateral, slow_stage, fast_stage in zip(
            self.lateral, self.slow.stages, self.fast.stages, strict=True
        ):
            slow = slow_stage(torch.cat([slow, lateral(fast, batch_size)], dim=1), batch_size)
            fast = fast_stage(fast, batch_size)
        pathways = [y.unflatten(0, (batch_size, -1)).mean(1) for y in (slow, fast)]
        return torch.cat(pathways[::-1] if self.fast_first else pathways, dim=1)


def slowfast_r50_4x16(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 64,
    lateral_kernel: int = 5,
    lateral_norm: bool = True,
    slow_frames: SlowFrames = "linspace",
    fast_first: bool = False,
) -> Recognizer:
    """Build SlowFast on ResNet-50 with 4 slow frames of 32; for the arguments see `SlowFast`."""
    backbone = SlowFast(50, width, 8, lateral_kernel, lateral_norm, slow_frames, fast_first)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def slowfast_r50_8x8(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 64,
    lateral_kernel: int = 7,
    lateral_norm: bool = True,
    slow_frames: SlowFrames = "linspace",
    fast_first: bool = False,
) -> Recognizer:
    """Build SlowFast on ResNet-50 with 8 slow frames of 32; for the arguments see `SlowFast`."""
    backbone = SlowFast(50, width, 4, lateral_kernel, lateral_norm, slow_frames, fast_first)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def slowfast_r101_8x8(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 64,
    lateral_kernel: int = 5,
    lateral_norm: bool = True,
    slow_frames: SlowFrames = "linspace",
    fast_first: bool = False,
) -> Recognizer:
    """Build SlowFast on ResNet-101 with 8 slow frames of 32; for the arguments see `SlowFast`."""
    backbone = SlowFast(101, width, 4, lateral_kernel, lateral_norm, slow_frames, fast_first)
    return Recognizer(backbone, backbone.features, num_classes, dropout)

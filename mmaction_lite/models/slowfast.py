"""SlowFast networks (Feichtenhofer et al., arXiv:1812.03982): a wide pathway on few frames, a thin on all.

The published weights come in two forms, which are different networks: PySlowFast's (the authors'; also
PyTorchVideo's) and MMAction2's. Four arguments tell them apart; their defaults are the authors'.
Every builder maps (B, 3, T, H, W), T the fast pathway's frames, to (B, num_classes).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from mmaction_lite.models.convolution import Conv3d
from mmaction_lite.models.inflated import inflated_resnet
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import initialise

SlowFrames = Literal["linspace", "strided"]
BETA = 8  # how much thinner the fast pathway is


class Lateral(nn.Module):
    """From the fast pathway to the slow one: twice the channels, every alpha-th frame (section 3.4).

    Args:
        channels: of the fast pathway.
        kernel: in frames.
        alpha: fast frames per slow frame.
        norm: normalise and rectify the result.
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
        depth: of both ResNets.
        width: channels of the slow stem.
        alpha: fast frames per slow frame.
        lateral_kernel: of the lateral convolutions, in frames.
        lateral_norm: lateral connections are normalised and rectified; False in MMAction2.
        slow_frames: "linspace": T / alpha frames from the first to the last; "strided": every alpha-th frame
            from the first, in MMAction2.
        fast_first: order of the pathways in the features; True in MMAction2.
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
        # Pooling and stages hand over to the next stage; the last one has none.
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
        """Change to another published form, in place; the lateral connections start anew."""
        self.lateral = nn.ModuleList(
            [Lateral(channels, lateral_kernel, self.alpha, lateral_norm) for channels in self.fast_channels]
        )
        initialise(self.lateral)
        self.slow_frames = slow_frames
        self.fast_first = fast_first

    def layers(self) -> list[nn.Module]:
        """Return the stems and the stages of both pathways; see `models.network`.

        A lateral connection belongs to the stage that its output enters.
        """
        stem = nn.ModuleList([*self.slow.layers()[0].children(), *self.fast.layers()[0].children()])
        stages = zip(self.lateral, self.slow.stages, self.fast.stages, strict=True)
        return [stem, *map(nn.ModuleList, stages)]

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, 3, H, W) to (B, features, H/32, W/32), averaged over the frames of each pathway."""
        time = x.unflatten(0, (batch_size, -1))
        frames = time.shape[1]
        if self.slow_frames == "strided":
            slow = time[:, :: self.alpha]
        else:
            picked = torch.linspace(0, frames - 1, frames // self.alpha).long()
            slow = time.index_select(1, picked.to(x.device))
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
    dropout: float = 0.5,
    width: int = 64,
    lateral_kernel: int = 5,
    lateral_norm: bool = True,
    slow_frames: SlowFrames = "linspace",
    fast_first: bool = False,
) -> Recognizer:
    """SlowFast on ResNet-50, 4 slow frames of 32; for the last four arguments see `SlowFast`."""
    backbone = SlowFast(50, width, 8, lateral_kernel, lateral_norm, slow_frames, fast_first)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def slowfast_r50_8x8(
    num_classes: int = 400,
    dropout: float = 0.5,
    width: int = 64,
    lateral_kernel: int = 7,
    lateral_norm: bool = True,
    slow_frames: SlowFrames = "linspace",
    fast_first: bool = False,
) -> Recognizer:
    """SlowFast on ResNet-50, 8 slow frames of 32; for the last four arguments see `SlowFast`."""
    backbone = SlowFast(50, width, 4, lateral_kernel, lateral_norm, slow_frames, fast_first)
    return Recognizer(backbone, backbone.features, num_classes, dropout)


def slowfast_r101_8x8(
    num_classes: int = 400,
    dropout: float = 0.5,
    width: int = 64,
    lateral_kernel: int = 5,
    lateral_norm: bool = True,
    slow_frames: SlowFrames = "linspace",
    fast_first: bool = False,
) -> Recognizer:
    """SlowFast on ResNet-101, 8 slow frames of 32; for the last four arguments see `SlowFast`."""
    backbone = SlowFast(101, width, 4, lateral_kernel, lateral_norm, slow_frames, fast_first)
    return Recognizer(backbone, backbone.features, num_classes, dropout)

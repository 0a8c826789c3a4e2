"""ResNets over space and time whose blocks look along time in their first 1×1 convolution, or not at all.

I3D, C2D, SlowOnly and both pathways of SlowFast are this network; what differs is which blocks do.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmaction_lite.models.convolution import Unit, conv3d
from mmaction_lite.models.resnet import MaxPool, ResNet


class PairMax(nn.Module):
    """The larger of two neighbouring frames, position by position: (B·T, …) to (B·(T // 2), …)."""

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·(T // 2), C, H, W)."""
        time = x.permute(0, 2, 3, 1).unflatten(0, (batch_size, -1))
        time = time[:, : time.shape[1] // 2 * 2]
        first, second = time.unflatten(1, (-1, 2)).unbind(2)
        if torch.is_grad_enabled():
            # The gradient of `maximum` is halved where both are equal, in six passes. Here the first one gets
            # it, as in pooling, in two.
            larger = torch.where(first >= second, first, second)
        else:
            larger = torch.maximum(first, second)
        return larger.flatten(0, 1).permute(0, 3, 1, 2)


def inflated_resnet(
    depth: int,
    width: int,
    inflate: Sequence[int | Sequence[int]],
    *,
    stem_frames: int,
    stem_stride: int = 1,
    pool: nn.Module | None = None,
    halve_time: bool = False,
    joined: Sequence[int] = (0, 0, 0, 0),
    zero_init_residual: bool = True,
) -> ResNet:
    """A bottleneck ResNet in three dimensions.

    Args:
        depth: 50 or 101.
        width: channels of the stem.
        inflate: per stage, or per stage and (repeating) block: 1 for a first convolution of
            3×1×1, 0 for 1×1×1.
        stem_frames: frames under the stem's kernel.
        stem_stride: its stride in frames.
        pool: after the stem; a 3×3 maximum by default.
        halve_time: a maximum over pairs of frames after the first stage.
        joined: channels that join the input of each stage (SlowFast).
        zero_init_residual: start every block as the identity.
    """

    def units(stage: int, block: int) -> Sequence[Unit]:
        pattern = inflate[stage]
        inflated = pattern if isinstance(pattern, int) else pattern[block % len(pattern)]
        return conv3d(3 if inflated else 1, 1), conv3d(1, 3), conv3d(1, 1), conv3d(1, 1)

    net = ResNet(
        depth,
        width,
        conv3d(stem_frames, 7, stem_stride),
        units,
        pool or MaxPool(),
        joined=joined,
        zero_init_residual=zero_init_residual,
    )
    if halve_time:
        net.get_submodule("layer1").add_module("halve_time", PairMax())
    return net

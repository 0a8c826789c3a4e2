"""Inflated ResNet: a bottleneck ResNet in which the first convolution of some blocks is 3×1×1.

I3D, C2D, SlowOnly and both pathways of SlowFast are this network with different blocks inflated.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmaction_lite.models.convolution import Unit, conv3d
from mmaction_lite.models.resnet import MaxPool, ResNet


class PairMax(nn.Module):
    """Max pooling over pairs of frames: kernel 2×1×1, stride 2 in time."""

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        """Map (B·T, C, H, W) to (B·(T // 2), C, H, W)."""
        time = x.permute(0, 2, 3, 1).unflatten(0, (batch_size, -1))
        time = time[:, : time.shape[1] // 2 * 2]
        first, second = time.unflatten(1, (-1, 2)).unbind(2)
        if torch.is_grad_enabled():
            # As in max pooling, the first of two equal values receives the gradient. `torch.maximum` divides
            # it between both, which takes six passes over memory instead of two.
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
    """Return an inflated ResNet.

    Args:
        depth: 50 or 101.
        width: channels of the stem.
        inflate: one value for each stage, or for each stage a sequence that repeats over its blocks: 1 for a
            first convolution of 3×1×1, 0 for 1×1×1.
        stem_frames: kernel size of the stem in frames.
        stem_stride: stride of the stem in frames.
        pool: pooling after the stem; by default a 3×3 max pooling.
        halve_time: pool pairs of frames after the first stage.
        joined: channels concatenated to the input of each stage (lateral connections of SlowFast).
        zero_init_residual: initialize every block as the identity.
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

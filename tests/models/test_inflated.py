"""The ResNet with temporal convolutions in some of its blocks."""

import pytest
import torch

from mmaction_lite.models.convolution import Conv3d
from mmaction_lite.models.inflated import PairMax, inflated_resnet
from mmaction_lite.models.resnet import Block


def temporal_blocks(pattern) -> list[list[int]]:
    """For each stage the kernel sizes in frames of the first convolutions."""
    stages = inflated_resnet(50, 8, pattern, stem_frames=1).stages
    blocks = [[block for block in stage.children() if isinstance(block, Block)] for stage in stages]
    return [[block.get_parameter("conv1.weight").shape[2] for block in stage] for stage in blocks]


def test_a_pattern_repeats_over_the_blocks_of_a_stage():
    assert temporal_blocks((1, (1, 0), 0, (0, 1))) == [[3] * 3, [3, 1, 3, 1], [1] * 6, [1, 3, 1]]


@pytest.mark.parametrize(("grad", "frames"), [(True, 6), (False, 6), (False, 7)])
def test_pairs_of_frames_are_pooled(grad, frames):
    torch.manual_seed(0)
    x = torch.randn(2 * frames, 3, 4, 5)
    with torch.set_grad_enabled(grad):
        pooled = PairMax()(x, 2)
    clips = x.unflatten(0, (2, frames))[:, : frames // 2 * 2]
    expected = torch.maximum(clips[:, ::2], clips[:, 1::2]).flatten(0, 1)
    assert torch.equal(pooled, expected)


def test_the_first_of_two_equal_frames_receives_the_gradient():
    x = torch.ones(2, 1, 1, 1, requires_grad=True)
    PairMax()(x, 1).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 0.0]


def test_the_stem_has_the_kernel_and_stride_asked_for():
    stem = inflated_resnet(50, 8, (0, 0, 0, 0), stem_frames=5, stem_stride=2).conv1
    assert isinstance(stem, Conv3d)
    assert (stem.kernel_size, stem.stride) == ((5, 7, 7), (2, 2, 2))

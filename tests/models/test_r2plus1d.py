"""R(2+1)D: factored convolutions of as many parameters as the full ones."""

import pytest
import torch

from mmaction_lite.models.convolution import Conv2plus1d
from mmaction_lite.models.r2plus1d import (
    factored,
    middle_channels,
    r2plus1d_r18,
    r2plus1d_r34,
    r2plus1d_r50,
    time_first,
)


@pytest.mark.parametrize(
    ("inside", "outside", "kernel", "middle"), [(64, 64, 3, 144), (64, 128, 3, 230), (3, 64, 7, 83)]
)
def test_middle_channels_match_the_parameters_of_a_full_convolution(inside, outside, kernel, middle):
    assert middle_channels(inside, outside, kernel) == middle
    full = 3 * kernel**2 * inside * outside
    spatial_and_temporal = kernel**2 * inside * middle + 3 * middle * outside
    assert full - (kernel**2 * inside + 3 * outside) < spatial_and_temporal <= full


def test_space_comes_before_time_except_in_pytorchvideos_form():
    x = torch.zeros(6, 4, 8, 8)
    unit = factored(3, stride_t=2)(4, 10, 2)
    assert unit(x, 1).shape == (3, 10, 4, 4)
    assert isinstance(unit, Conv2plus1d)
    assert not unit.time_first
    unit = time_first(2)(4, 10, 2)
    assert unit(x, 1).shape == (3, 10, 4, 4)
    assert isinstance(unit, Conv2plus1d)
    assert unit.time_first


@pytest.mark.parametrize(("builder", "frames"), [(r2plus1d_r18, 2), (r2plus1d_r34, 2), (r2plus1d_r50, 4)])
def test_strides_in_time(builder, frames):
    """In every stage but the first, or in PyTorchVideo's form in the last two."""
    model = builder(num_classes=2, width=8).eval()
    with torch.no_grad():
        assert len(model.backbone(torch.zeros(16, 3, 32, 32), 1)) == frames

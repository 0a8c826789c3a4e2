"""Image weights in networks over space and time."""

import torch
from torch.nn import functional

from mmaction_lite.weights.converters.inflate import inflate


def test_an_inflated_network_maps_a_constant_clip_like_an_image() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 3, 3)
    picture = torch.randn(1, 3, 8, 8)
    inflated = inflate(weight, (4, 3, 5, 3, 3))
    assert inflated.shape == (4, 3, 5, 3, 3)
    still = functional.conv3d(picture.unsqueeze(2).expand(-1, -1, 9, -1, -1), inflated)
    torch.testing.assert_close(still[:, :, 2], functional.conv2d(picture, weight))

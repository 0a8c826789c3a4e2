"""Image weights in networks over space and time."""

import torch
from torch.nn import functional

from mmaction_lite.weights.converters.inflate import inflate


def test_a_clip_of_one_picture_has_the_features_of_the_picture():
    torch.manual_seed(0)
    weight, picture = torch.randn(4, 3, 3, 3), torch.randn(2, 3, 8, 8)
    inflated = inflate(weight, (4, 3, 5, 3, 3))
    assert inflated.shape == (4, 3, 5, 3, 3)
    clip = picture.unsqueeze(2).expand(-1, -1, 7, -1, -1)
    features = functional.conv3d(clip, inflated)
    expected = functional.conv2d(picture, weight)
    for frame in features.unbind(2):
        torch.testing.assert_close(frame, expected, rtol=1e-4, atol=1e-5)

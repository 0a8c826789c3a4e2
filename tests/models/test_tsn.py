"""TSN: an image network on every frame."""

import torch
from torch import nn

from mmaction_lite import models
from mmaction_lite.models.tsn import EachFrame, tsn_r18
from tests.models.test_models import assert_same, clip


def test_any_image_network_is_a_backbone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = models.tsn(network, features=6, num_classes=4).eval()
    x = clip("tsn_r18")
    with torch.inference_mode():
        frames = torch.stack([model.fc(network(x[:, :, t])) for t in range(x.shape[2])])
        assert_same(model(x), frames.mean(0))


def test_logits_of_a_clip_are_the_mean_of_its_frames():
    torch.manual_seed(0)
    model, x = tsn_r18(num_classes=3, width=8).eval(), clip("tsn_r18")
    with torch.inference_mode():
        frames = torch.stack([model(x[:, :, t : t + 1]) for t in range(x.shape[2])])
        assert_same(model(x), frames.mean(0))


def test_features_without_space_become_maps_of_one_pixel():
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert EachFrame(flat)(torch.zeros(6, 3, 8, 8), 2).shape == (6, 3, 1, 1)
    assert EachFrame(nn.Conv2d(3, 5, 1))(torch.zeros(6, 3, 8, 8), 2).shape == (6, 5, 8, 8)

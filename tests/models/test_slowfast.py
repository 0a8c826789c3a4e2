"""SlowFast: two pathways and the connections between them."""

import pytest
import torch

from mmaction_lite.models.slowfast import Lateral, SlowFast, slowfast_r50_4x16, slowfast_r50_8x8
from tests.models.test_models import clip


@pytest.mark.parametrize(("builder", "alpha"), [(slowfast_r50_4x16, 8), (slowfast_r50_8x8, 4)])
def test_pathways_have_the_published_shares_of_frames_and_channels(builder, alpha):
    backbone = builder(num_classes=2, width=16).backbone
    assert isinstance(backbone, SlowFast)
    assert backbone.alpha == alpha
    assert backbone.slow.features == 8 * backbone.fast.features
    assert backbone.features == backbone.slow.features + backbone.fast.features


@pytest.mark.parametrize(
    ("slow_frames", "seen"), [("linspace", [0, 10, 20, 31]), ("strided", [0, 8, 16, 24])]
)
def test_frames_of_the_slow_pathway(slow_frames, seen):
    """Of 32 frames."""
    backbone = slowfast_r50_4x16(num_classes=2, width=8, slow_frames=slow_frames).backbone
    assert isinstance(backbone, SlowFast)
    frames: list[torch.Tensor] = []
    backbone.slow.conv1.register_forward_pre_hook(lambda _, inputs: frames.append(inputs[0]))
    x = torch.arange(32.0).reshape(32, 1, 1, 1).expand(-1, 3, 32, 32)
    with torch.no_grad():
        backbone.eval()(x, 1)
    assert [int(frame[0, 0, 0]) for frame in frames[0]] == seen


def test_a_lateral_connection_has_a_slow_frame_for_every_alpha_and_twice_the_channels():
    lateral = Lateral(8, kernel=5, alpha=4, norm=True).eval()
    assert lateral(torch.zeros(16, 8, 3, 3), 1).shape == (4, 16, 3, 3)
    assert lateral.conv_norm_pairs == [("conv", "bn")]
    assert Lateral(8, kernel=5, alpha=4, norm=False).conv_norm_pairs == []


def test_the_order_of_pathways_in_the_features():
    """MMAction2 puts the fast one first; its classifier's weights are in that order."""
    torch.manual_seed(0)
    model = slowfast_r50_4x16(num_classes=2, width=8).eval()
    backbone, x = model.backbone, clip("slowfast_r50_4x16")
    assert isinstance(backbone, SlowFast)
    slow = backbone.slow.features
    with torch.no_grad():
        features = model.features(x)
        backbone.fast_first = True
        exchanged = model.features(x)
    torch.testing.assert_close(exchanged, torch.cat([features[..., slow:], features[..., :slow]], -1))

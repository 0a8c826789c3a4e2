"""Weights for BGR compute the same on RGB after conversion."""

import pytest
import torch

from mmaction_lite import models
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.weights.converters import convert
from mmaction_lite.weights.converters.channels import input_weights, reverse_input_channels
from mmaction_lite.weights.converters.sources import stored_settings
from tests.weights.test_converters import build, thin_pair

MEAN, STD = [104.0, 117.0, 128.5], [1.0, 2.0, 1.5]
BGR_0X = f"img_norm_cfg = dict(mean={MEAN}, std={STD}, to_bgr=True)"
BGR_1X = f"data_preprocessor=dict(type='ActionDataPreprocessor', mean={MEAN}, std={STD}, to_rgb=True)"
PYSLOWFAST = """
DATA:
  MEAN:
  - 0.5
  - 0.25
  - 0.45
  REVERSE_INPUT_CHANNEL: true
  STD:
  - 0.225
  - 0.225
  - 0.2
"""


def moved(pixels: torch.Tensor, mean: list[float], std: list[float]) -> torch.Tensor:
    """Normalize (N, T, H, W, C) by values in the order of the channels, to (N, C, T, H, W)."""
    values = (pixels.float() - torch.tensor(mean)) / torch.tensor(std)
    return values.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("config", [BGR_0X, BGR_1X])
@pytest.mark.parametrize("public", ["mmaction2__tsn_r50_1x1x3", "mmaction2__slowfast_r50_4x16x1"])
def test_weights_of_mmaction2_for_bgr(public, config):
    """Channels are reversed before the normalization."""
    theirs, weights = thin_pair(public)
    ours = build(public, width=8, num_classes=5)
    conversion = convert({"state_dict": weights, "meta": {"config": config}}, ours)
    assert not conversion.other_form
    assert sum("in the order BGR" in note for note in conversion.notes) == 1
    pixels = torch.randint(0, 256, (1, 16, 40, 40, 3), dtype=torch.uint8)
    assert conversion.normalize is not None
    with torch.inference_mode():
        expected = theirs.eval()(moved(pixels.flip(4), MEAN, STD))
        found = ours.eval()(conversion.normalize(pixels))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("public", ["pyslowfast__SLOW_8x8_R50", "pyslowfast__SLOWFAST_8x8_R50", "mvit"])
def test_weights_of_pyslowfast_for_bgr(public):
    """Channels are reversed after the normalization."""
    if public == "mvit":
        sizes = {"width": 8, "depths": (1, 1, 1, 1), "num_classes": 5}
        torch.manual_seed(0)
        theirs, ours = models.mvit_v2_small(**sizes), models.mvit_v2_small(**sizes)
        weights = {
            key.replace("conv_proj.", "patch_embed.proj."): value
            for key, value in theirs.state_dict().items()
        }
    else:
        theirs, weights = thin_pair(public)
        ours = build(public, width=8, num_classes=5)
    conversion = convert({"model_state": weights, "cfg": PYSLOWFAST}, ours)
    assert conversion.source == "PySlowFast"
    assert any("in the order BGR" in note for note in conversion.notes)
    assert conversion.normalize == Normalize(mean=(127.5, 63.75, 114.75), std=(57.375, 57.375, 51.0))
    assert conversion.normalize is not None
    pixels = torch.randint(0, 256, (1, 16, 40, 40, 3), dtype=torch.uint8)
    with torch.inference_mode():
        normalized = moved(pixels, [127.5, 63.75, 114.75], [57.375, 57.375, 51.0])
        expected = theirs.eval()(normalized.flip(1))
        found = ours.eval()(conversion.normalize(pixels))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    plain = convert({"model_state": weights, "cfg": PYSLOWFAST.replace("true", "false")}, ours)
    assert not any("BGR" in note for note in plain.notes)


def test_networks_without_a_convolution_on_three_channels_are_refused():
    linear = torch.nn.Linear(3, 2)
    assert input_weights(linear) == set()
    assert reverse_input_channels(linear.state_dict(), linear)[1] == ""


def test_networks_that_read_rgb():
    for text in ("to_bgr=False", "ActionDataPreprocessor', to_rgb=False", "dict(to_rgb=True)"):
        assert not stored_settings({"meta": {"config": text}}).is_bgr

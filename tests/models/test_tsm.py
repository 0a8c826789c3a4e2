"""TSM: where and how far channels are shifted in time."""

import pytest
import torch

from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.convolution import Conv2d
from mmaction_lite.models.tsm import tsm_mobilenetv2, tsm_online_mobilenetv2, tsm_online_r10, tsm_r10, tsm_r50
from tests.models.test_models import build


def test_the_shift_is_in_the_published_blocks() -> None:
    shares = {
        name: [m.share for m in build(name).backbone.modules() if isinstance(m, Conv2d) and m.share]
        for name in ("tsm_r50", "tsm_r101", "tsm_mobilenetv2", "tsm_online_r50", "tsm_online_mobilenetv2")
    }
    assert len(shares["tsm_r50"]) == 16
    assert len(shares["tsm_r101"]) == 2 + 2 + 12 + 2
    assert len(shares["tsm_mobilenetv2"]) == 10
    assert shares["tsm_r50"][:4] == [1, 4, 4, 4]  # an eighth of 8 and of 32 channels
    for name in ("r50", "mobilenetv2"):
        assert shares[f"tsm_online_{name}"] == shares[f"tsm_{name}"]


@pytest.mark.parametrize(("shift_div", "share"), [(8, 8), (4, 16)])
def test_a_share_of_the_channels_is_shifted_each_way(shift_div, share):
    """In the second block, which has 64 channels here."""
    model = tsm_r50(num_classes=2, width=16, shift_div=shift_div)
    conv = model.get_submodule("backbone.layer1.1.conv1")
    assert isinstance(conv, Conv2d)
    assert conv.share == share


@pytest.mark.parametrize("builder", [tsm_r10, tsm_mobilenetv2])
def test_a_frame_is_seen_by_its_neighbors_and_not_by_others_after_one_shift(builder):
    torch.manual_seed(0)
    model = builder(num_classes=2, width=8).eval()
    shifted = next(m for m in model.modules() if isinstance(m, Conv2d) and m.share)
    x = torch.randn(7, shifted.weight.shape[1], 4, 4)
    changed = x.clone()
    changed[3] += 1
    with torch.no_grad():
        difference = (shifted(x, 1) - shifted(changed, 1)).flatten(1).abs().amax(1)
    assert (difference > 1e-3).tolist() == [False, False, True, True, True, False, False]


@pytest.mark.parametrize("builder", [tsm_online_r10, tsm_online_mobilenetv2])
@pytest.mark.parametrize("optimized", [False, True])
def test_a_frame_of_an_online_network_does_not_depend_on_later_ones(builder, optimized):
    torch.manual_seed(0)
    model = builder(num_classes=2, width=8).eval()
    torch.nn.init.normal_(model.fc.weight)
    model = optimize_for_inference(model) if optimized else model
    x = torch.randn(1, 3, 6, 64, 64)
    changed = x.clone()
    changed[:, :, 3] += 1
    with torch.no_grad():
        features, others = model.features(x), model.features(changed)
    differs = (features - others)[0].abs().amax(1) > 1e-6 * float(features.abs().max())
    assert differs.tolist() == [False, False, False, True, True, True]


def test_the_classifier_starts_smaller_than_that_of_other_families():
    """The authors' standard deviation, 0.001."""
    assert float(tsm_r10(num_classes=400, width=32).fc.weight.detach().std()) < 0.0011

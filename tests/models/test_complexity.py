"""Parameters and multiply-adds are the published ones."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmaction_lite import models
from mmaction_lite.models.complexity import Complexity, list_models, multiply_adds, parameters, traffic
from tests.thin import clip_size, thin

# (builder, frames): parameters with 400 classes, and 10^9 multiply-adds of one view of 224 pixels (112 for
# the three of 18 layers, those of the paper for X3D), counted on the published networks themselves.
PUBLISHED = {
    ("tsn_r50", 3): (24_327_632, 12.3),
    ("tsm_r50", 8): (24_327_632, 32.7),
    ("i3d_r50", 32): (28_043_472, 33.1),
    ("i3d_r50_heavy", 8): (28_043_472, 28.4),
    ("c2d_r50", 8): (24_327_632, 19.5),
    ("slowonly_r50", 4): (32_454_096, 20.9),
    ("slowonly_r50", 8): (32_454_096, 41.7),
    ("slowfast_r50_4x16", 32): (34_480_216, 27.6),
    ("slowfast_r50_8x8", 32): (34_566_488, 50.3),
    ("r2plus1d_r34", 8): (63_759_281, 40.6),
    ("r2plus1d_r34", 32): (63_759_281, 162.2),
    ("r2plus1d_r18", 16): (31_505_325, 40.5),
    ("r3d_r18", 16): (33_371_472, 40.7),
    ("mc3_r18", 16): (11_695_440, 43.3),
    ("hiera_base", 16): (51_092_560, 101.7),
    ("hiera_base_plus", 16): (69_392_240, 132.3),
    ("hiera_large", 16): (213_091_600, 412.1),
    ("mvit_v1_base", 16): (36_610_672, 70.6),
    ("mvit_v2_small", 16): (34_537_744, 64.2),
    ("mvit_v2_base", 32): (51_230_128, 224.5),
    ("uniformerv2_base", 8): (114_552_208, 148.1),
    ("uniformerv2_large", 8): (354_099_600, 665.6),
    ("videomae_small", 16): (22_033_936, 56.9),
    ("videomae_base", 16): (86_534_800, 180.3),
    ("videomae_large", 16): (304_270_736, 596.8),
    ("swin3d_tiny", 32): (28_158_070, 87.8),
    ("swin3d_small", 32): (49_816_678, 165.7),
    ("swin3d_base", 32): (88_048_984, 281.3),
    ("x3d_xs", 4): (3_794_322, 0.61),
    ("x3d_s", 13): (3_794_322, 1.96),
    ("x3d_m", 16): (3_794_322, 4.73),
    ("x3d_l", 16): (6_153_432, 18.37),
}
# Forms of a network that are not its builder's default.
VARIANTS = [
    ("i3d_r50", {"non_local": "dot_product"}, 35_397_840),
    ("slowfast_r50_4x16", {"lateral_norm": False}, 34_479_288),
    ("slowfast_r50_8x8", {"lateral_norm": False}, 34_565_560),
    ("r2plus1d_r50", {}, 28_107_600),
]


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, int], Complexity]:
    return {(row.builder, row.input_shape[2]): row for row in list_models()}


@pytest.mark.parametrize("key", PUBLISHED, ids=str)
def test_the_published_numbers(key, rows):
    size, cost = PUBLISHED[key]
    assert rows[key].parameters == size
    assert rows[key].multiply_adds == pytest.approx(cost * 1e9, rel=0.01)


@pytest.mark.parametrize(("builder", "arguments", "size"), VARIANTS)
def test_the_published_sizes_of_other_forms(builder, arguments, size):
    with torch.device("meta"):
        assert parameters(getattr(models, builder)(**arguments)) == size


def test_every_builder_is_listed(rows):
    assert {builder for builder, _ in rows} == set(models.__all__) - {
        "tsn",
        "tsn_timm",
        "frame_encoder",
        "optimize_for_inference",
        "probe_attentive",
        "probe_linear",
        "probe_map",
    }  # which are given a network


@pytest.mark.parametrize(
    ("mode", "size", "cost"),
    [(None, 28.0, 43.5), ("embedded_gaussian", 35.4, 59.3), ("gaussian", 31.7, 56.5)],
)
def test_attention_is_counted(mode, size, cost):
    """MMAction2's table of I3D, at 256 pixels. Dot-product attention (59.3 there) needs less here."""
    with torch.device("meta"):
        model = models.i3d_r50(non_local=mode)
        assert parameters(model) == pytest.approx(size * 1e6, rel=0.002)
        assert multiply_adds(model, (1, 3, 32, 256, 256)) == pytest.approx(cost * 1e9, rel=0.01)


def test_a_convolution_and_a_linear_layer_by_hand():
    model = nn.Sequential(
        nn.Conv3d(3, 5, (1, 3, 3), padding=(0, 1, 1), bias=False),
        nn.BatchNorm3d(5),
        nn.ReLU(),
        nn.Linear(4, 7),
    )
    assert multiply_adds(model, (2, 3, 6, 4, 4)) == 2 * 6 * 4 * 4 * 5 * 27 + 2 * 5 * 6 * 4 * 4 * 7
    assert parameters(model) == 3 * 5 * 9 + 2 * 5 + 4 * 7 + 7


@pytest.mark.parametrize("builder", ["tsm_r18", "slowonly_r50"])
def test_a_network_is_counted_without_touching_it(builder):
    """The count does not depend on the implementation that runs a convolution."""
    model = getattr(models, builder)(width=8).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cost = multiply_adds(model, (1, 3, 8, 64, 64))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.training
    with torch.device("meta"):
        assert multiply_adds(getattr(models, builder)(width=8), (2, 3, 8, 64, 64)) == 2 * cost


def test_traffic_counts_what_is_read_and_written():
    moved = traffic(models.slowonly_r50(), (1, 3, 8, 224, 224))
    # ResNet-50 has some 11 M activations a frame; all are read and written several times.
    assert 8 * 11e6 * 4 < moved < 8 * 11e6 * 4 * 10


@pytest.mark.parametrize(
    "builder", ["tsm_r18", "slowfast_r50_4x16", "mvit_v2_small", "swin3d_tiny", "vjepa2_large"]
)
def test_repeated_layers_are_counted_each_time(builder):
    """The count is that of PyTorch's own counter, which runs every operator."""
    with torch.device("meta"):
        model = getattr(models, builder)(num_classes=3, **thin(builder)).eval().requires_grad_(False)
        clip = torch.empty(2, 3, *clip_size(builder))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(clip)
    assert multiply_adds(model, (2, 3, *clip_size(builder))) == counter.get_total_flops() // 2
    one, two = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert traffic(two, (1, 1, 1, 1, 4)) == 2 * traffic(one, (1, 1, 1, 1, 4))


def test_a_remembered_operator_has_the_form_of_its_output():
    class Casts(nn.Module):
        def forward(self, x):
            cast = [x.transpose(1, 4).contiguous() * factor for factor in (1, 1.0, True, 1, 1.0, True)]
            forms = [(each.shape, each.stride(), each.dtype) for each in cast]
            assert forms[:3] == forms[3:]
            integers = [torch.ones_like(x, dtype=torch.int64) * factor for factor in (1, 1.0, 1, 1.0)]
            assert [each.dtype for each in integers] == [torch.int64, torch.float32] * 2
            return x

    assert multiply_adds(Casts(), (1, 3, 2, 4, 5)) == 0

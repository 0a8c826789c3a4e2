"""Weights with the shapes of a network that computes something else."""

import re

import pytest

from mmaction_lite import models
from mmaction_lite.weights.converters import convert, huggingface_videomae, huggingface_vjepa
from mmaction_lite.weights.converters.forms import differences, is_for_images
from mmaction_lite.weights.converters.sources import StoredSettings, stored_settings
from tests.weights.test_converters import DISTINCT, build, image_weights, thin_pair

MMACTION2 = "model = dict(backbone=dict(type='{}', {}))"


def other_form(public: str, builder: str, config: str = "", **arguments: object) -> str:
    """The differences that a conversion of a public checkpoint finds."""
    _, weights = thin_pair(public)
    model = getattr(models, builder)(num_classes=5, width=8, **arguments)
    return "; ".join(convert({"state_dict": weights, "meta": {"config": config}}, model).other_form)


@pytest.mark.parametrize("public", [*DISTINCT, "mmaction2__tsn_r50_1x1x3", "pyslowfast__SLOWFAST_4x16_R50"])
def test_public_weights_are_of_the_form_of_their_network(public):
    _, weights = thin_pair(public)
    assert not convert(weights, build(public, width=8, num_classes=5)).other_form


@pytest.mark.parametrize(
    ("public", "builder", "config", "message"),
    [
        ("mmaction2__tsn_r50_1x1x3", "tsm_r50", "", "without temporal shift, .* use a TSN recipe"),
        ("tsm_mit__tsn_r50_8f", "tsm_r50", "", "without temporal shift"),
        (
            "tsm_mit__tsm_r50_8f",
            "tsm_online_r50",
            "",
            "of a TSM, which shifts both ways, and .* an online TSM",
        ),
        ("pyslowfast__I3D_8x8_R50", "i3d_r50", "", "stride 1 in time, .* has stride 2; .* i3d_r50_heavy"),
        ("pytorchvideo__i3d_r50", "i3d_r50", "", "recipe of i3d_r50_heavy"),
        ("pyslowfast__SLOWFAST_4x16_R50", "slowfast_r50_8x8", "", "4 slow frames of 32.* slowfast 4x16"),
        ("pyslowfast__SLOWFAST_8x8_R50", "slowfast_r50_4x16", "", "8 slow frames of 32.* slowfast 8x8"),
        ("pytorchvideo__slowfast_r50", "slowfast_r50_4x16", "", "slowfast 8x8"),
        ("mmaction2__slowfast_r50_8x8x1", "slowfast_r50_4x16", "", "slowfast 8x8"),
        (
            "mmaction2__slowfast_r50_4x16x1",
            "slowfast_r50_8x8",
            MMACTION2.format("ResNet3dSlowFast", "resample_rate=8, speed_ratio=8"),
            "slowfast 4x16",
        ),
        ("mmaction2__tsm_r50_1x1x8", "tsm_r50", MMACTION2.format("ResNetTSM", "shift_div=4"), "shift_div=4"),
        ("mmaction2__tsn_r50_1x1x3", "tsn_r50", MMACTION2.format("C2D", ""), "recipe of C2D"),
        ("mmaction2__c2d_r50_8x8x1", "c2d_r50", MMACTION2.format("ResNet", ""), "recipe of TSN"),
        ("mmaction2__tsn_r50_1x1x3", "tsn_r50", MMACTION2.format("ResNet", "style='caffe'"), "'caffe'"),
        (
            "mmaction2__i3d_r50_32x2x1",
            "i3d_r50",
            MMACTION2.format("ResNet3d", "conv1_stride_t=1, pool1_stride_t=1"),
            "first pooling has stride 1 .* i3d_r50_heavy",
        ),
        (
            "mmaction2__i3d_r50_32x2x1",
            "i3d_r50_heavy",
            MMACTION2.format("ResNet3d", "pool1_stride_t=2"),
            "has stride 1; use a recipe of i3d_r50$",
        ),
    ],
)
def test_another_form_is_recognized(public, builder, config, message):
    found = other_form(public, builder, config)
    assert re.search(message, found)
    assert found.count("; use ") == 1


def test_the_similarity_of_non_local_blocks():
    mode = MMACTION2.format("ResNet3d", "mode='embedded_gaussian'")
    found = other_form("mmaction2__i3d_r50_nl_dot_32x2x1", "i3d_r50", mode, non_local="dot_product")
    assert "mode embedded_gaussian, and those of the network dot_product" in found
    model = models.tsm_r50(num_classes=2, width=8, non_local="dot_product")
    shift, mode = differences("MIT TSM", {}, model, StoredSettings())
    assert "without temporal shift" in shift
    assert "mode embedded_gaussian" in mode


@pytest.mark.parametrize("source", [huggingface_videomae.NAME, huggingface_vjepa.NAME])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12}, None),
        ({}, None),
        ({"num_attention_heads": 4}, r"names 4 attention heads, and the network has 2; .*heads=4\)$"),
        ({"hidden_act": "relu"}, "names the activation 'relu', and the network has 'gelu'"),
        ({"layer_norm_eps": 1e-3}, "names the epsilon 0.001 of normalizations, and the network has 1e-06"),
    ],
)
def test_the_config_of_a_transformer_names_what_shapes_do_not_show(source, config, message):
    build = models.videomae_small if source == huggingface_videomae.NAME else models.vjepa2_large
    settings = stored_settings({"config": config, "preprocessor": {}})
    found = list(differences(source, {}, build(num_classes=2, width=24, depth=1, heads=2), settings))
    assert len(found) == (message is not None)
    assert message is None or re.search(message, found[0])


def test_image_networks_are_only_the_start_of_video_networks():
    names = image_weights().keys()
    assert not is_for_images("torchvision", names, models.tsn_r10())
    assert is_for_images("torchvision", names, models.tsm_r10())
    assert is_for_images("torchvision", names, models.slowonly_r50(width=8))
    assert not is_for_images("torchvision", ["stem.0.weight"], models.r3d_r18(width=8))
    assert not convert(image_weights(), models.tsm_r50(num_classes=5, width=8)).other_form


def test_pooling_of_c2d_follows_the_project():
    for public in ("pyslowfast__C2D_8x8_R50", "pytorchvideo__c2d_r50"):
        _, weights = thin_pair(public)
        model = models.c2d_r50(num_classes=5, width=8, pool_padding=0)
        assert convert(weights, model).arguments == {"pool_padding": 1}
        assert model.get_submodule("backbone.maxpool").padding == 1

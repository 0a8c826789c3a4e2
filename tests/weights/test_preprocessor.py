"""Settings in folders of the Hugging Face Hub."""

import pytest

from mmaction_lite.weights.converters.preprocessor import (
    activation,
    clip_len,
    crop_size,
    heads,
    interpolation,
    norm_eps,
    other_filter,
    short_side,
    statistics,
)


@pytest.mark.parametrize(
    ("settings", "side", "crop"),
    [
        ({"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 192}}, 224, (224, 192)),
        ({"size": 224, "crop_size": 192}, 224, (192, 192)),
        ({"size": {"height": 224, "width": 224}}, None, None),
        ({"size": 256, "crop_size": 224, "do_resize": False, "do_center_crop": False}, None, None),
        ({"size": {"shortest_edge": 1e3}, "crop_size": {"height": 0, "width": 8}}, None, None),
        ({"size": True, "crop_size": None}, None, None),
        ({}, None, None),
    ],
)
def test_sizes(settings, side, crop):
    assert short_side(settings) == side
    assert crop_size(settings) == crop


def test_frames_of_a_clip():
    assert clip_len({"num_frames": 16}) == 16
    assert clip_len({"frames_per_clip": 64}) == 64
    assert clip_len({"num_frames": None}) is None
    assert clip_len({}) is None


def test_the_network():
    assert heads({"num_attention_heads": 6}) == 6
    assert activation({"hidden_act": "gelu"}) == "gelu"
    assert norm_eps({"layer_norm_eps": 1e-12}) == 1e-12
    for config in ({}, {"num_attention_heads": "6", "hidden_act": 1, "layer_norm_eps": "1e-6"}):
        assert heads(config) is activation(config) is norm_eps(config) is None


def test_interpolation():
    assert interpolation({"resample": 3}) == "bicubic"
    assert interpolation({"resample": 2, "do_resize": True}) == "bilinear"
    for settings in ({"resample": 3, "do_resize": False}, {"resample": 0}, {"resample": True}, {}):
        assert interpolation(settings) is None


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"resample": 1}, "1"),
        ({"resample": True}, "True"),
        ({"resample": "lanczos\x1b"}, "'lanczos\\x1b'"),
        ({"resample": 1, "do_resize": False}, None),
        ({"resample": 3}, None),
        ({"resample": None}, None),
        ({}, None),
    ],
)
def test_filters_that_views_do_not_have(settings, found):
    assert other_filter(settings) == found


def test_statistics():
    assert statistics({"image_mean": [0.5, 1], "image_std": [1, 2]}) == (["0.5", "1"], ["1", "2"])
    assert statistics({"do_normalize": False}) == (["0.0"] * 3, ["1.0"] * 3)
    assert statistics({"image_mean": 0.5, "image_std": 0.5}) == ([], [])

"""Converted weights are stored with the normalization, sampling and windows of their project."""

from dataclasses import replace

import pytest

from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import PySlowFastClips, TimedClips
from mmaction_lite.models import r2plus1d_r34
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.catalogue import find_entry
from mmaction_lite.weights.converters import Conversion
from mmaction_lite.weights.converters.sources import (
    IMAGENET,
    PYSLOWFAST,
    TORCHVISION_VIDEO,
    StoredSettings,
)
from mmaction_lite.weights.fitting_protocol import describe_normalize, fit_protocol, normalize_notes
from mmaction_lite.weights.named import protocols

MMACTION2 = "slowonly_r50_8x8x1_256e_kinetics400_rgb"
AUTHORS = "slowonly_r50_8x8x1_196e_kinetics400_rgb"


def converted(source: str, normalize: Normalize | None) -> Conversion:
    return Conversion(source, [], [], [], normalize=normalize)


@pytest.mark.parametrize(
    ("source", "normalize", "given", "fitting"),
    [
        ("PySlowFast", PYSLOWFAST, MMACTION2, AUTHORS),
        ("PyTorchVideo", PYSLOWFAST, MMACTION2, AUTHORS),
        ("MMAction2", IMAGENET, AUTHORS, MMACTION2),
        (
            "PySlowFast",
            PYSLOWFAST,
            "slowfast_r50_4x16x1_256e_kinetics400_rgb",
            "slowfast_r50_4x16x1_196e_kinetics400_rgb",
        ),
    ],
)
def test_the_protocols_are_those_of_the_recipe_that_fits(source, normalize, given, fitting):
    recipe, notes = fit_protocol(get_recipe(given), converted(source, normalize))
    assert recipe.test_protocol == get_recipe(fitting).test_protocol
    assert recipe.val_protocol == get_recipe(fitting).val_protocol
    assert recipe.model == get_recipe(given).model
    (note,) = notes
    assert f"those of {fitting}, which fits weights of {source}" in note


@pytest.mark.parametrize(
    ("source", "normalize", "name"),
    [
        ("PySlowFast", PYSLOWFAST, AUTHORS),
        ("MMAction2", IMAGENET, MMACTION2),
        ("MIT TSM", IMAGENET, "tsm_r50_1x1x8_50e_kinetics400_rgb"),
        ("mmaction-lite", None, MMACTION2),
    ],
)
def test_a_recipe_that_fits_stays(source, normalize, name):
    assert fit_protocol(get_recipe(name), converted(source, normalize)) == (get_recipe(name), [])


def test_without_a_recipe_that_fits_normalization_and_sampling_change():
    own = replace(get_recipe(MMACTION2), model=Build(r2plus1d_r34))
    own = replace(own, test=replace(own.test, clips=replace(own.test.clips, frame_interval=3)))
    recipe, (note,) = fit_protocol(own, converted("PySlowFast", PYSLOWFAST))
    assert recipe.normalize == PYSLOWFAST
    assert recipe.test.clips == PySlowFastClips(clip_len=8, frame_interval=3, num_clips=10)
    assert "normalization of PySlowFast, mean (114.75, 114.75, 114.75)" in note
    assert "sampling of clips" in note
    recipe, (note,) = fit_protocol(own, converted("torchvision", TORCHVISION_VIDEO))
    assert (recipe.normalize, recipe.test) == (TORCHVISION_VIDEO, own.test)
    assert "sampling" not in note


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("swin3d_tiny_32x2x1_30e_kinetics400_rgb", "swin3d_tiny_32_15fps_kinetics400_rgb@torchvision"),
        ("mvit_v2_small_16x4x1_200e_kinetics400_rgb", "mvit_v2_s_kinetics400_v1@torchvision"),
    ],
)
def test_video_weights_of_torchvision_get_its_frame_rate(name, entry):
    given = get_recipe(name)
    weights = converted("torchvision", given.normalize)
    recipe, (note,) = fit_protocol(given, weights)
    expected = protocols(find_entry(entry))
    assert {"val": recipe.val_protocol, "test": recipe.test_protocol} == expected
    assert isinstance(recipe.test.clips, TimedClips)
    assert note == f"the protocols are those of torchvision: {recipe.test_protocol}"
    for other in (
        replace(given, dataset="own"),
        replace(given, test=replace(given.test, clips=replace(given.test.clips, clip_len=8))),
    ):
        assert fit_protocol(other, weights) == (other, [])
    own = replace(given, normalize=Normalize(mean=(1, 2, 3)))
    assert fit_protocol(own, weights)[0] == own


def test_a_normalization_that_the_user_chose_stays():
    own = replace(get_recipe(MMACTION2), normalize=Normalize(mean=(1, 2, 3)))
    recipe, (note,) = fit_protocol(own, converted("PySlowFast", PYSLOWFAST))
    assert recipe == own
    assert "whose values are kept" in note


def test_a_training_names_the_normalization_of_its_initial_weights(recipe):
    (note,) = normalize_notes(IMAGENET, converted("PySlowFast", PYSLOWFAST), {})
    assert (
        "--set 'normalize.mean=(114.75,114.75,114.75)' --set 'normalize.std=(57.375,57.375,57.375)'" in note
    )
    assert describe_normalize(IMAGENET) in note
    assert normalize_notes(IMAGENET, converted("MIT TSM", IMAGENET), {}) == []
    assert normalize_notes(IMAGENET, converted("mmaction-lite", None), {"card": "[]"}) == []
    card = '{"test": {"normalize": {"mean": [1, 2, 3], "std": [1, 1, 1]}}}'
    assert normalize_notes(IMAGENET, converted("mmaction-lite", None), {"card": card})


def test_sizes_that_the_file_stores_have_precedence():
    recipe = get_recipe(MMACTION2)
    settings = StoredSettings(short_side=292, crop=(272, 272), clip_len=12)
    conversion = Conversion("VideoMAE of transformers", [], [], [], normalize=IMAGENET, settings=settings)
    fitted, (note,) = fit_protocol(recipe, conversion)
    assert note.startswith("the sizes of clips are those that the file stores: 12x8x10 frames")
    for views, before in ((fitted.val, recipe.val), (fitted.test, recipe.test)):
        assert (views.short_side, views.crop.size, views.clips.clip_len) == (292, (272, 272), 12)
        assert type(views.crop) is type(before.crop)
    assert fit_protocol(fitted, conversion) == (fitted, [])
    assert fitted.test.interpolation == "bilinear"
    bicubic = replace(settings, interpolation="bicubic")
    fitted, (note,) = fit_protocol(recipe, replace(conversion, settings=bicubic))
    assert fitted.val.interpolation == fitted.test.interpolation == "bicubic"
    assert "bicubic, antialias off" in note
    segments = get_recipe("tsn_r50_1x1x3_100e_kinetics400_rgb")
    assert fit_protocol(segments, conversion)[0].test.clips.clip_len == 12


def test_a_filter_that_views_do_not_have_is_stated():
    settings = StoredSettings(other_filter="1")
    conversion = Conversion("VideoMAE of transformers", [], [], [], normalize=IMAGENET, settings=settings)
    fitted, (note,) = fit_protocol(get_recipe(MMACTION2), conversion)
    assert fitted == get_recipe(MMACTION2)
    assert "filter resample=1, which views do not have; they are resized with bilinear" in note

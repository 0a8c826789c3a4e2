"""Recipes of probes: from a recipe, from weights, and what does not fit a frozen encoder."""

from dataclasses import replace

import pytest

from mmaction_lite import get_recipe, models
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.samplers import DenseClips, SegmentFrames
from mmaction_lite.errors import UserError
from mmaction_lite.models import probe_linear, tsm_r10
from mmaction_lite.optim import AdamW
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.probe import adopt_views, encoder_of, probe, with_encoder
from mmaction_lite.recipes.recipe import Build

LINEAR = "probe_linear_1x1x8_50e_own_rgb"


def test_probe_keeps_network_views_and_protocols():
    recipe = get_recipe("slowfast_r50_4x16x1_256e_kinetics400_rgb")
    found = probe(recipe, 1000)
    assert found.model.builder is probe_linear
    encoder = encoder_of(found)
    assert encoder == recipe.model
    assert (found.val, found.test, found.normalize) == (recipe.val, recipe.test, recipe.normalize)
    assert found.probe is not None
    assert (found.batch_size, found.epochs) == (64, 100)
    assert found.starts_from == recipe.name
    assert probe(found, 5) is found


@pytest.mark.parametrize("clips", [2, 3, 10, 100, 10_000, 1_000_000])
def test_batches_fit_the_number_of_clips(clips):
    found = probe(get_recipe("tsm_r10_1x1x8_12e_motions_rgb"), clips)
    assert 2 <= found.batch_size <= min(64, clips)
    assert 20 <= found.epochs <= 100
    assert found.epochs // found.val_every >= 20


def test_one_clip_is_too_few():
    with pytest.raises(UserError, match="1 training clips are too few"):
        probe(get_recipe("tsm_r10_1x1x8_12e_motions_rgb"), 1)


def test_a_network_of_the_user_is_no_encoder(recipe):
    def tsm_r10(num_classes: int):
        return models.tsm_r10(num_classes)

    with pytest.raises(UserError, match="tsm_r10 of the recipe is no network of the package"):
        probe(replace(recipe, model=Build(tsm_r10)), 100)


def test_the_weights_choose_encoder_and_views(recipe):
    template = get_recipe(LINEAR)
    assert encoder_of(template) is None
    val = replace(recipe.val_protocol, views=replace(recipe.val, clips=DenseClips(clip_len=8, num_clips=4)))
    found = adopt_views(template, val, recipe.test_protocol)
    assert found.train.clips == DenseClips(clip_len=8)
    assert found.train.crop.size == (20, 28)
    assert (found.val, found.test) == (val.views, recipe.test)
    found = replace(found, model=with_encoder(found.model, "tsm_r10", (("width", 8),)))
    assert encoder_of(found) == Build(tsm_r10, width=8)
    assert found.name == "probe_linear_8x1x1_50e_own_rgb"
    assert adopt_views(template, recipe.val_protocol, val).train.clips == SegmentFrames(num_segments=4)


def test_a_given_width_is_that_of_the_encoder():
    found = apply_overrides(get_recipe(LINEAR), ["model.encoder=tsm_r10", "model.width=8"])
    assert encoder_of(found) == Build(tsm_r10, width=8)
    assert with_encoder(found.model, "tsm_r10", (("width", 16),)).arguments == {
        "encoder": "tsm_r10",
        "arguments": (("width", 16),),
    }


def test_settings_of_the_encoder_are_refused():
    recipe = get_recipe(LINEAR)
    for change in ({"mixing": Mixing()}, {"freeze": 1}, {"recompute": True}, {"window": 7}):
        with pytest.raises(UserError, match=f"Recipe: {next(iter(change))} is .* and probe is set; expected"):
            replace(recipe, **change)
    with pytest.raises(UserError, match=r"optimizer\.lr is 0 and probe is set"):
        replace(recipe, optimizer=AdamW(lr=0))
    with pytest.raises(
        UserError, match=r"probe is set and model is Build\(tsm_r10\); expected one of probe_"
    ):
        replace(recipe, model=Build(tsm_r10))

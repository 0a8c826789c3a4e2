"""Recipes of SlowFast; the published values are in `test_published.py`."""

import torch

from mmaction_lite.recipes.slowfast import (
    slowfast_r50_4x16x1_196e_kinetics400_rgb,
    slowfast_r50_4x16x1_256e_kinetics400_rgb,
    slowfast_r50_8x8x1_196e_kinetics400_rgb,
    slowfast_r50_8x8x1_256e_kinetics400_rgb,
    slowfast_r50_multigrid_8x8x1_358e_kinetics400_rgb,
    slowfast_r50_stepwise_8x8x1_239e_kinetics400_rgb,
)


def lateral_weights(recipe) -> set[str]:
    """The kinds of layers in the lateral connections."""
    with torch.device("meta"):
        names = recipe.model(num_classes=2).state_dict()
    return {name.split(".")[3] for name in names if name.startswith("backbone.lateral.")}


def test_mmaction2s_form_has_no_normalization_in_the_lateral_connections():
    for recipe in (slowfast_r50_4x16x1_256e_kinetics400_rgb(), slowfast_r50_8x8x1_256e_kinetics400_rgb()):
        assert lateral_weights(recipe) == {"conv"}
        assert recipe.model.arguments["slow_frames"] == "strided"
    for recipe in (slowfast_r50_4x16x1_196e_kinetics400_rgb(), slowfast_r50_8x8x1_196e_kinetics400_rgb()):
        assert lateral_weights(recipe) == {"conv", "bn"}


def test_all_have_clips_of_32_frames():
    """4x16 and 8x8 are the frames of the slow pathway."""
    for recipe in (slowfast_r50_4x16x1_196e_kinetics400_rgb(), slowfast_r50_8x8x1_256e_kinetics400_rgb()):
        assert recipe.train.clips.clip_len == recipe.test.clips.clip_len == 32


def test_multigrid_is_compared_with_the_stepwise_training():
    stepwise = slowfast_r50_stepwise_8x8x1_239e_kinetics400_rgb()
    recipe = slowfast_r50_multigrid_8x8x1_358e_kinetics400_rgb()
    assert (recipe.model, recipe.train, recipe.optimizer) == (
        stepwise.model,
        stepwise.train,
        stepwise.optimizer,
    )
    assert (recipe.epochs, recipe.batch_size) == (round(1.5 * 239), stepwise.batch_size)

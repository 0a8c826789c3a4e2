"""Views of initial weights as settings of a recipe."""

from dataclasses import replace

from mmaction_lite import get_recipe
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.recipes.fitting_views import view_settings
from mmaction_lite.recipes.overrides import apply_overrides

SLOWFAST = "slowfast_r50_4x16x1_196e_kinetics400_rgb"


def test_equal_views_need_no_setting():
    for name in (SLOWFAST, "videomae_small_1x1x16_40e_sthv2_rgb", "tsm_r10_1x1x8_12e_motions_rgb"):
        recipe = get_recipe(name)
        assert view_settings(recipe, recipe.val_protocol, recipe.test_protocol) == ()


def test_jitter_and_clips_follow_the_size():
    recipe = get_recipe(SLOWFAST)
    small = replace(
        recipe.val,
        crop=CenterCrop(size=(112, 112)),
        short_side=128,
        clips=replace(recipe.val.clips, clip_len=16),  # pyright: ignore[reportCallIssue]
    )
    theirs = replace(recipe.val_protocol, views=small)
    settings = view_settings(recipe, theirs, theirs)
    changed = apply_overrides(recipe, settings)
    assert changed.val == small
    assert changed.train.crop.size == (112, 112)
    assert changed.train.crop.short_side == (128, 160)  # pyright: ignore[reportAttributeAccessIssue]
    assert changed.train.clips.clip_len == 16
    assert changed.train.clips.num_clips == recipe.train.clips.num_clips


def test_samplers_and_crops_of_another_kind_stay():
    recipe = get_recipe(SLOWFAST)
    theirs = replace(
        recipe.val_protocol,
        views=replace(
            recipe.val, clips=SegmentFrames(num_segments=3), short_side=64, crop=CenterCrop(size=(56, 56))
        ),
    )
    changed = apply_overrides(recipe, view_settings(recipe, theirs, theirs))
    assert changed.test.clips == recipe.test.clips
    assert (type(changed.test.crop), changed.test.crop.size) == (type(recipe.test.crop), (56, 56))
    assert changed.test.short_side == 64


def test_the_window_is_that_of_the_weights():
    recipe = get_recipe(SLOWFAST)
    assert recipe.window == 7
    for window in (None, 2):
        theirs = replace(recipe.test_protocol, window=window)
        assert view_settings(recipe, recipe.val_protocol, theirs) == (f"window={window}",)
        assert apply_overrides(recipe, [f"window={window}"]).window == window

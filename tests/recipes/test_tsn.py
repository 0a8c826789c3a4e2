"""Recipes of TSN; the published values are in `test_published.py`."""

from dataclasses import replace

import numpy as np

from mmaction_lite.recipes.tsn import (
    tsn_r10_1x1x8_12e_motions_rgb,
    tsn_r50_1x1x8_50e_jester_rgb,
    tsn_r50_1x1x8_50e_sthv2_rgb,
)


def test_jester_is_trained_like_something_something():
    recipe = tsn_r50_1x1x8_50e_sthv2_rgb()
    assert tsn_r50_1x1x8_50e_jester_rgb() == replace(recipe, dataset="jester", reported=None)


def test_generated_clips_are_not_mirrored_or_reversed():
    """Both would turn a clip into one of another class."""
    recipe = tsn_r10_1x1x8_12e_motions_rgb()
    assert (recipe.train.flip, recipe.train.reverse) == (0.0, 0.0)
    assert recipe.train.crop.size == recipe.test.crop.size == (42, 56)
    rng = np.random.default_rng(0)
    places = {recipe.train.crop.plan(48, 64, rng)[0].box[:2] for _ in range(200)}
    assert len(places) > 30

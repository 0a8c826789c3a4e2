"""Recipes of I3D; the published values are in `test_published.py`."""

from dataclasses import replace

import pytest

from mmaction_lite.recipes.i3d import (
    i3d_r50_32x2x1_25e_hmdb51_rgb,
    i3d_r50_32x2x1_25e_jester_rgb,
    i3d_r50_32x2x1_25e_ucf101_rgb,
    i3d_r50_32x2x1_100e_kinetics400_rgb,
    i3d_r50_fast_32x2x1_100e_kinetics400_rgb,
)


def test_fast_is_the_same_training():
    recipe, fast = i3d_r50_32x2x1_100e_kinetics400_rgb(), i3d_r50_fast_32x2x1_100e_kinetics400_rgb()
    assert replace(fast, variant="", reported=recipe.reported) == recipe


@pytest.mark.parametrize(
    ("build", "dataset"),
    [
        (i3d_r50_32x2x1_25e_ucf101_rgb, "ucf101"),
        (i3d_r50_32x2x1_25e_hmdb51_rgb, "hmdb51"),
        (i3d_r50_32x2x1_25e_jester_rgb, "jester"),
    ],
)
def test_fine_tuning_has_a_tenth_of_the_lr_and_a_quarter_of_the_epochs(build, dataset):
    recipe, base = build(), i3d_r50_32x2x1_100e_kinetics400_rgb()
    assert recipe.dataset == dataset
    assert recipe.epochs == base.epochs / 4
    for epoch in (0, 9, 10, 19, 20, 24):
        lr = recipe.optimizer.lr * recipe.schedule.factor(epoch, recipe.epochs)
        assert lr == pytest.approx(base.optimizer.lr * base.schedule.factor(4 * epoch, base.epochs) / 10)
    assert (recipe.model, recipe.train, recipe.test) == (base.model, base.train, base.test)
    assert recipe.reported is None

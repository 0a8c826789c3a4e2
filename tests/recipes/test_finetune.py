"""Conversion of a published training to fine-tuning on a small data set."""

import pytest
import torch

from mmaction_lite import get_recipe, list_recipes
from mmaction_lite.errors import UserError
from mmaction_lite.recipes.finetune import finetune

RECIPES = list_recipes()


@pytest.mark.parametrize(
    ("clips", "batch", "epochs"), [(4, 4, 60), (50, 4, 60), (200, 16, 60), (20_000, 32, 12)]
)
def test_fine_tuning_fits_the_number_of_clips(clips, batch, epochs):
    base = RECIPES["tsm_r50_1x1x8_50e_kinetics400_rgb"]
    recipe = finetune(base, clips)
    assert (recipe.batch_size, recipe.epochs) == (batch, epochs)
    assert (recipe.model, recipe.test, recipe.starts_from) == (base.model, base.test, base.name)
    with torch.device("meta"):
        model = recipe.model(num_classes=3)
    scales = {round(group["lr_scale"], 6) for group in recipe.optimizer.build(model).param_groups}
    assert scales == {1.0, 0.7, 0.49, 0.343, 0.2401, 0.16807}
    with pytest.raises(UserError, match=r"the number of training clips is 3; expected at least 4"):
        finetune(base, 3)


def test_fine_tuning_has_one_shape():
    recipe = finetune(get_recipe("slowfast_r50_multigrid_8x8x1_358e_kinetics400_rgb"), 100)
    assert recipe.multigrid is None
    assert recipe.name == f"slowfast_r50_8x8x1_{recipe.epochs}e_own_rgb"


def test_fine_tuning_keeps_what_weights_were_trained_for():
    """Clips, mirroring, normalization and test views; augmentation of the published training as well."""
    for name in ("i3d_r50_heavy_8x8x1_196e_kinetics400_rgb", "tsm_r50_1x1x8_50e_sthv1_rgb"):
        base = RECIPES[name]
        recipe = finetune(base, 500)
        assert (recipe.train, recipe.val, recipe.test) == (base.train, base.val, base.test)
        assert recipe.reported is None
        assert (recipe.batch_norm, recipe.label_smoothing, recipe.patience) == ("frozen", 0.1, 10)
        assert recipe.optimizer.lr == 1e-3

"""X3D: sizes of the clips, and fine-tuning; `test_published.py` compares all values."""

import pytest

from mmaction_lite import list_recipes
from mmaction_lite.recipes import x3d
from mmaction_lite.recipes.finetune import finetune
from mmaction_lite.training.preflight import check_windows


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("x3d_")])
def test_the_window_is_that_of_the_training_crops(name):
    recipe = list_recipes()[name]
    assert recipe.window == -(-recipe.train.crop.size[0] // 32)
    model = recipe.model.builder(num_classes=2, width=8, depth_factor=0.2)
    check_windows(recipe, model)


def test_fine_tunings_have_the_settings_for_small_data_sets():
    for recipe, clips in (
        (x3d.x3d_s_13x6x1_13e_ucf101_rgb(), 9537),
        (x3d.x3d_s_13x6x1_36e_hmdb51_rgb(), 3570),
    ):
        expected = finetune(x3d.x3d_s_13x6x1_300e_kinetics400_rgb(), clips)
        assert (recipe.optimizer, recipe.epochs) == (expected.optimizer, expected.epochs)
        assert recipe.batch_norm == "frozen"
        assert recipe.starts_from == "x3d_s_13x6x1_300e_kinetics400_rgb"

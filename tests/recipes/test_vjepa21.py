"""Recipes of V-JEPA 2.1."""

from mmaction_lite.recipes import vjepa2, vjepa21


def test_the_settings_are_those_of_v_jepa_2_with_larger_frames() -> None:
    recipe, first = vjepa21.vjepa21_large_16x4x2_20e_sthv2_rgb(), vjepa2.vjepa2_large_16x4x2_20e_sthv2_rgb()
    assert recipe.test.view_shape == (32, 384, 384, 3)
    assert (recipe.optimizer, recipe.schedule, recipe.epochs) == (
        first.optimizer,
        first.schedule,
        first.epochs,
    )
    assert vjepa21.vjepa21_base_16x4x2_20e_sthv2_rgb().reported is None

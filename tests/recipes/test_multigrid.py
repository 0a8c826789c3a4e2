"""Conversion of a step schedule to multigrid training; see also tests/data/test_batch_plan.py."""

from dataclasses import replace

import pytest

from mmaction_lite import get_recipe
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.errors import UserError
from mmaction_lite.recipes.multigrid import multigrid

STEPWISE = get_recipe("slowfast_r50_stepwise_8x8x1_239e_kinetics400_rgb")


def test_every_stretch_of_constant_lr_has_the_four_shapes():
    recipe = multigrid(STEPWISE)
    assert recipe.multigrid is not None
    shapes = [(phase.batch, phase.clip_len, phase.side) for phase in recipe.multigrid.phases]
    cycle = [(8, 8, 158), (4, 16, 158), (2, 16, 224), (1, 32, 224)]
    assert shapes == cycle * 3 + [(1, 32, 224)]
    assert recipe.multigrid.short_sides == (112, 158)


@pytest.mark.parametrize("factor", [0.75, 1.0, 2.0])
def test_epochs_are_those_of_the_recipe_times_a_factor(factor):
    recipe = multigrid(STEPWISE, factor)
    assert recipe.multigrid is not None
    assert recipe.epochs == round(239 * factor) == sum(phase.epochs for phase in recipe.multigrid.phases)
    plan, plain = BatchPlan(100_000, 64, recipe.multigrid), BatchPlan(100_000, 64)
    steps = plan.first_step(recipe.epochs) / plain.first_step(239)
    assert steps == pytest.approx(0.29 / 1.5 * factor, rel=0.05)


def test_the_warm_up_starts_at_the_recipes_lr():
    """The lr is multiplied by the batch of the phase, 8 times the recipe's in the first."""
    recipe = multigrid(STEPWISE)
    start = recipe.schedule.factor(0, recipe.epochs) * 8
    assert start == pytest.approx(STEPWISE.schedule.factor(0, STEPWISE.epochs))


def test_recipes_that_multigrid_cannot_convert_are_refused():
    short = replace(STEPWISE.train, clips=replace(STEPWISE.train.clips, clip_len=2))
    for recipe, message in (
        (get_recipe("slowfast_r50_8x8x1_196e_kinetics400_rgb"), "schedule is Cosine"),
        (multigrid(STEPWISE), "is a multigrid training; expected"),
        (replace(STEPWISE, train=short), "2 frames"),
    ):
        with pytest.raises(UserError, match=message):
            multigrid(recipe)
    with pytest.raises(UserError, match="too few for 13 phases"):
        multigrid(replace(STEPWISE, epochs=200), 0.01)

"""Changes of a recipe from the command line."""

from dataclasses import replace

import pytest

from mmaction_lite import get_recipe, list_recipes
from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r50
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.recipe import Build

RECIPES = list_recipes()


def test_set_changes_scalars_and_is_recorded():
    recipe = RECIPES["tsm_r50_1x1x8_50e_kinetics400_rgb"]
    changed = apply_overrides(
        recipe,
        ["optimizer.lr=1e-3", "model.dropout=0.3", "epochs=7", "max_grad_norm=none", "train.flip=0",
         "schedule.milestones=(3,5)", "average=score", "optimizer.nesterov=true"],
    )  # fmt: skip
    assert changed.optimizer == replace(recipe.optimizer, lr=1e-3, nesterov=True)  # pyright: ignore
    assert changed.model == Build(tsm_r50, dropout=0.3)
    assert (changed.epochs, changed.max_grad_norm, changed.train.flip) == (7, None, 0.0)
    assert changed.schedule == replace(recipe.schedule, milestones=(3, 5))  # pyright: ignore
    assert changed.average == "score"
    assert len(changed.modified) == 8
    assert recipe == get_recipe("tsm_r50_1x1x8_50e_kinetics400_rgb")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.lrr=1", r"SGD has no field 'lrr'; nearest: lr"),
        ("modle.dropout=1", r"Recipe has no field 'modle'; nearest: model"),
        ("model.dropuot=0.1", r"tsm_r50 has no field 'dropuot'; nearest: dropout"),
        ("optimizer=3", r"optimizer is a group; set one of optimizer\.lr, "),
        ("optimizer.lr=fast", r"SGD: lr is 'fast'; expected a number"),
        ("epochs=1.5", r"Recipe: epochs is 1\.5; expected an integer, at least 1$"),
        ("epochs=0", r"Recipe: epochs is 0; expected an integer, at least 1$"),
        ("epochs.x=1", r"epochs is a single value and has no field 'x'"),
        ("average=max", r"Recipe: average is 'max'; expected one of 'probability', 'score'$"),
        (
            "model.dropout=yes",
            r"tsm_r50: dropout is 'yes'; expected a probability, at least 0 and at most 1$",
        ),
        ("model.dropout=2", r"tsm_r50: dropout is 2; expected a probability, at least 0 and at most 1$"),
        ("model.shift_div=-1", r"tsm_r50: shift_div is -1; expected an integer, at least 0$"),
        ("lr", r"expected FIELD=VALUE"),
        (
            "train.crop.size=224",
            r"size is 224; expected a tuple of 2 values such as \(224, 224\), each an integer.*in quotes",
        ),
        (
            "freeze=conv1",
            r"freeze is 'conv1'; expected a tuple such as \(\"a\", \"a\"\), each a string.*quotes",
        ),
        ("train.flip=2", r"^--set train.flip=2: TrainViews: flip is 2; expected a probability"),
        ("multigrid.phases=3", r"multigrid is None in this recipe"),
    ],
)
def test_wrong_settings_are_one_line(setting, message):
    with pytest.raises(UserError, match=message) as caught:
        apply_overrides(RECIPES["tsm_r50_1x1x8_50e_kinetics400_rgb"], [setting])
    assert "\n" not in str(caught.value)


def test_later_settings_replace_earlier_ones_in_the_list_of_changes():
    recipe = get_recipe("tsm_r50_1x1x8_50e_kinetics400_rgb")
    once = apply_overrides(recipe, ["epochs=3", "model.dropout=0.1"])
    assert apply_overrides(once, ["epochs=7"]).modified == ("epochs=7", "model.dropout=0.1")

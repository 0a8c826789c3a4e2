import dataclasses
import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmaction_lite import get_recipe, list_recipes
from mmaction_lite.data.sources.source import ArrayVideo
from mmaction_lite.errors import UserError
from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.models import tsm_r10, tsm_r50
from mmaction_lite.optim import AdamW, Steps, freeze, set_lr
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.tasks.named import uses_labels
from mmaction_lite.training.gradients import Gradients

RECIPES = list_recipes()


@pytest.mark.parametrize("name", RECIPES)
def test_names_equal_the_names_rendered_from_the_fields(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert get_recipe(name) == recipe
    assert recipe.train.clips.clip_len == recipe.val.clips.clip_len
    if recipe.reported:
        assert recipe.reported.source


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds(name):
    with torch.device("meta"):
        model = RECIPES[name].model(num_classes=7)
    assert sum(p.numel() for p in model.parameters()) > 50_000


def test_the_text_of_a_recipe_is_the_same_in_every_process():
    code = "from mmaction_lite import list_recipes; print(*list_recipes().values(), sep='\\n')"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert text == "".join(f"{recipe}\n" for recipe in RECIPES.values())
    assert " at 0x" not in text


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "factors"),
    [
        ("tsn_r50_1x1x3_100e_kinetics400_rgb", 100, 256, {0: 1, 39: 1, 40: 0.1, 79: 0.1, 80: 0.01}),
        ("tsm_r50_1x1x8_50e_kinetics400_rgb", 50, 128, {0: 0.1, 1: 0.325, 4: 1, 24: 1, 25: 0.1, 45: 0.01}),
        ("tsm_r50_1x1x8_100e_kinetics400_rgb", 100, 128, {0: 0.1, 1: 0.2, 9: 1, 49: 1, 50: 0.1, 90: 0.01}),
        ("i3d_r50_32x2x1_100e_kinetics400_rgb", 100, 64, {0: 1, 40: 0.1, 80: 0.01}),
        ("slowonly_r50_4x16x1_256e_kinetics400_rgb", 256, 128, {16.5: 0.55, 33.5: 1, 144.5: 0.5}),
        ("slowonly_r50_8x8x1_256e_kinetics400_rgb", 256, 128, {144.5: 0.5}),
        ("slowfast_r50_4x16x1_256e_kinetics400_rgb", 256, 64, {127.5: 0.5}),
        ("slowfast_r50_8x8x1_256e_kinetics400_rgb", 256, 64, {16.5: 0.55 * 0.9892}),
        ("r2plus1d_r34_8x8x1_180e_kinetics400_rgb", 180, 64, {0: 1, 89.5: 0.5}),
        ("r2plus1d_r34_32x2x1_180e_kinetics400_rgb", 180, 64, {89.5: 0.5}),
        ("i3d_r50_fast_32x2x1_100e_kinetics400_rgb", 100, 64, {0: 1, 40: 0.1, 80: 0.01}),
        # From 0.1 straight to the cosine's (1 + cos(34π/196)) / 2 = 0.92738.
        ("slowfast_r50_4x16x1_196e_kinetics400_rgb", 196, 64, {-0.5: 0.1, 16.5: 0.51369, 33.5: 0.92738}),
        ("slowfast_r50_8x8x1_196e_kinetics400_rgb", 196, 64, {16.5: 0.51369, 97.5: 0.5}),
        (
            "slowfast_r50_stepwise_8x8x1_239e_kinetics400_rgb",
            239,
            64,
            {-0.5: 0.1, 16.5: 0.55, 33.5: 1, 93: 1, 94: 0.1, 154: 0.01, 196: 0.001},
        ),
        (  # and times the batch of the phase: see test_course.py
            "slowfast_r50_multigrid_8x8x1_358e_kinetics400_rgb",
            358,
            64,
            {-0.5: 0.0125, 16.5: 0.50625, 33.5: 1, 157: 1, 158: 0.1, 259: 0.01, 342: 0.01, 343: 0.001},
        ),
        ("slowonly_r50_4x16x1_196e_kinetics400_rgb", 196, 64, {16.5: 0.51369, 97.5: 0.5}),
        ("slowonly_r50_8x8x1_196e_kinetics400_rgb", 196, 64, {16.5: 0.51369, 97.5: 0.5}),
        ("i3d_r50_heavy_8x8x1_196e_kinetics400_rgb", 196, 64, {16.5: 0.51369, 97.5: 0.5}),
        ("tsm_r50_1x1x8_50e_sthv1_rgb", 50, 64, {0: 1, 19: 1, 20: 0.1, 40: 0.01}),
        ("tsm_r50_1x1x8_50e_sthv2_rgb", 50, 128, {0: 0.1, 4: 1, 25: 0.1, 45: 0.01}),
        ("tsm_r50_1x1x8_50e_jester_rgb", 50, 64, {0: 1, 20: 0.1, 40: 0.01}),
        ("tsm_r50_1x1x8_25e_ucf101_rgb", 25, 96, {0: 1, 10: 0.1, 20: 0.01}),
        ("tsm_r50_1x1x8_25e_hmdb51_rgb", 25, 96, {0: 1, 10: 0.1, 20: 0.01}),
        ("tsn_r50_1x1x8_50e_sthv1_rgb", 50, 128, {0: 1, 20: 0.1, 40: 0.01}),
        ("tsn_r50_1x1x8_50e_sthv2_rgb", 50, 256, {0: 1, 20: 0.1, 40: 0.01}),
        ("tsn_r50_1x1x3_75e_ucf101_rgb", 75, 256, {0: 1, 74: 1}),
        ("tsn_r50_1x1x8_50e_hmdb51_rgb", 50, 256, {0: 1, 20: 0.1, 40: 0.01}),
    ],
)
def test_published_schedules(name, epochs, batch, factors):
    recipe = RECIPES[name]
    assert (recipe.epochs, recipe.batch_size) == (epochs, batch)
    for epoch, factor in factors.items():
        assert recipe.schedule.factor(epoch + 0.5, epochs) == pytest.approx(factor, rel=1e-3)


# Quick for one recipe of each builder, the last one.
DEEP = ("vjepa2_", "vjepa21_large", "swin3d_small", "swin3d_base")
ONE_OF_EACH = {recipe.model.builder: name for name, recipe in RECIPES.items()}.values()


def is_quick(name: str) -> bool:
    return name in ONE_OF_EACH and not name.startswith(DEEP)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if is_quick(name) else pytest.mark.slow) for name in RECIPES]
)
def test_a_step_and_a_test_of_every_recipe(name):
    """With thin networks and small pictures, all else as it is."""
    recipe = RECIPES[name]
    has_size = "size" in inspect.signature(recipe.model.builder).parameters
    model = recipe.model(num_classes=7, width=8, **{"size": 64} if has_size else {})
    if recipe.freeze:
        freeze(model, recipe.freeze)
    gradients = Gradients(
        model.train(), recipe, None, torch.amp.GradScaler(enabled=False), may_shrink=True, report=print
    )
    rng = np.random.default_rng(0)
    video = ArrayVideo(rng.integers(0, 255, (70, 72, 84, 3), np.uint8), fps=30.0)

    def small(views):
        size = None if views.short_side is None else 68
        return replace(views, crop=replace(views.crop, size=(64, 64)), short_side=size)

    drawn = [small(recipe.train).draw_views(video, rng, rng).pixels for _ in range(2)]
    optimizer = recipe.optimizer.build(model)
    set_lr(optimizer, recipe.optimizer.lr * recipe.schedule.factor(0, recipe.epochs))
    labels = torch.tensor([1, 3]).repeat_interleave(len(drawn[0]))  # of every view
    targets = labels if recipe.mixing is None else recipe.task.dense(labels, 7)
    loss, _ = gradients.add(torch.from_numpy(np.stack(drawn)), targets, rng)
    assert torch.isfinite(loss)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm or 40.0)
    optimizer.step()
    for protocol in (recipe.val_protocol, recipe.test_protocol):
        window = None if protocol.window is None else 1  # of features 2x2
        protocol = replace(protocol, views=small(protocol.views), window=window)
        clips = torch.from_numpy(protocol.read(video))
        with torch.no_grad():
            found = compute_scores(model.eval(), [clips], protocol)
        if uses_labels(recipe.task):
            np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_every_published_recipe_was_run_at_its_full_size():
    record = json.loads((Path(__file__).parents[2] / "docs" / "recipes.json").read_text())
    published = {name: recipe for name, recipe in RECIPES.items() if recipe.dataset not in ("motions", "own")}
    assert record["recipes"].keys() <= published.keys()
    # A transformer takes many minutes: one recipe stands for all of its family. Of VideoMAE and V-JEPA, all
    # networks below ViT-L (300 M parameters) were run. V-JEPA 2 and 2.1 are one network.
    families = {
        name: r.model.builder.__module__.replace("vjepa21", "vjepa2") for name, r in published.items()
    }
    run = {families[name] for name in record["recipes"]}
    missing = [name for name in published if name not in record["recipes"]]
    assert all(families[name] in run for name in missing)
    with torch.device("meta"):
        networks = [published[name].model(num_classes=2, width=8) for name in missing]
    assert all(hasattr(network, "grid") for network in networks)
    complete = [name for name in missing if name.startswith(("videomae", "vjepa"))]
    assert all(published[name].model.builder.__name__.endswith(("_large", "_giant")) for name in complete)
    for name, row in record["recipes"].items():
        recipe = RECIPES[name]
        assert row["input"] == list(recipe.train.view_shape)
        assert row["test_views"] == recipe.test.num_views


def test_unknown_recipes_name_the_nearest():
    with pytest.raises(
        UserError, match=r"no recipe is named 'tsm_r50_1x1x8_10e.*nearest: tsm_r50_1x1x8_100e"
    ):
        get_recipe("tsm_r50_1x1x8_10e_kinetics400_rgb")
    with pytest.raises(UserError, match=r"no recipe is named 'nonsense'"):
        get_recipe("nonsense")


def test_a_users_own_recipe_needs_no_registration(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\n"
        "from mmaction_lite import get_recipe\n"
        "def mine(): return replace(get_recipe('tsm_r50_1x1x8_50e_kinetics400_rgb'), epochs=3)\n"
        "def wrong(): return 3\n"
        "def none(): return replace(mine(), epochs=0)\n"
    )
    assert get_recipe(f"{tmp_path}/mine.py:mine").epochs == 3
    with pytest.raises(UserError, match=r"has no function 'mien'; nearest: mine"):
        get_recipe(f"{tmp_path}/mine.py:mien")
    with pytest.raises(UserError, match=r"wrong returned a int; expected a Recipe"):
        get_recipe(f"{tmp_path}/mine.py:wrong")
    with pytest.raises(
        UserError, match=r"mine\.py:none: Recipe: epochs is 0; expected an integer, at least 1"
    ) as caught:
        get_recipe(f"{tmp_path}/mine.py:none")
    assert "UserError" not in str(caught.value)
    with pytest.raises(UserError, match=r"gone\.py: no such file"):
        get_recipe("gone.py:mine")
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(UserError, match=r"broken\.py: cannot be imported: ModuleNotFoundError"):
        get_recipe(f"{tmp_path}/broken.py:mine")


def test_recipes_are_values():
    recipe = RECIPES["tsn_r50_1x1x3_100e_kinetics400_rgb"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match="dropuot"):
        Build(tsm_r50, dropuot=0.5)
    assert hash(recipe) == hash(get_recipe(recipe.name))
    assert Steps(milestones=(1,)) == Steps(milestones=(1,))


def test_a_recipe_refuses_a_builder_without_build():
    recipe = get_recipe("tsm_r50_1x1x8_50e_kinetics400_rgb")
    with pytest.raises(UserError, match=r"model is tsm_r50; .*Build\(tsm_r50\)"):
        replace(recipe, model=tsm_r50)  # pyright: ignore[reportArgumentType]


def test_groups_without_decay_on_norms_and_biases():
    model = tsm_r10(num_classes=2, width=8)
    decayed, kept = AdamW(lr=0.1, weight_decay=0.3, groups="no_decay").build(model).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


def test_a_builder_that_returns_no_network_is_one_line():
    def nothing(num_classes: int) -> Any:
        return None

    with pytest.raises(UserError, match=r"nothing returned a NoneType; expected an nn\.Module"):
        Build(nothing)(num_classes=2)

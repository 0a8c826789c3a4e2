"""Recipes of V-JEPA 2 train the probe only, with the frames that the network expects."""

import pytest
import torch

from mmaction_lite.data.views.samplers import SegmentWindows
from mmaction_lite.models.network import layers
from mmaction_lite.optim import freeze
from mmaction_lite.recipes import list_recipes, vjepa2
from mmaction_lite.recipes.finetune import finetune
from tests.recipes.published_vjepa2 import PROBED

FAMILY = {name: recipe for name, recipe in list_recipes().items() if name.startswith("vjepa")}


@pytest.mark.parametrize("name", FAMILY)
def test_the_segments_of_clips_and_network_agree_and_only_the_probe_is_trained(name: str) -> None:
    recipe = FAMILY[name]
    for views in (recipe.train, recipe.val, recipe.test):
        assert isinstance(views.clips, SegmentWindows)
        assert views.clips.num_segments == recipe.model.arguments["segments"]
    size = recipe.test.crop.size[0]
    assert (recipe.test.short_side, recipe.val.short_side) == (size, int(size * 256 / 224))
    assert (recipe.train.flip, recipe.average, recipe.test.antialias) == (0, "probability", False)
    with torch.device("meta"):
        model = recipe.model(num_classes=5, **thin(recipe.model.arguments))
    freeze(model, recipe.freeze)
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for layer in layers(model)[-2:] for parameter in layer.parameters()}


def thin(arguments: dict) -> dict:
    levels = arguments.get("levels", ())
    return {"width": 32, "depth": 4} | ({"levels": tuple(range(len(levels)))} if levels else {})


@pytest.mark.parametrize("name", PROBED)
def test_the_published_settings(name: str) -> None:
    recipe, row = FAMILY[name], PROBED[name]
    clips = recipe.test.clips
    assert isinstance(clips, SegmentWindows)
    assert (clips.window_len, clips.frame_interval, clips.num_segments) == row.windows
    assert recipe.test.view_shape[1:3] == recipe.train.view_shape[1:3] == (row.size, row.size)
    assert (recipe.epochs, recipe.batch_size) == (row.epochs, row.batch[0] * row.batch[1])
    assert recipe.clips_per_device == row.batch[0]
    assert recipe.model.arguments.get("levels", ()) == row.levels
    assert (None if recipe.reported is None else recipe.reported.top1) == row.top1
    factors = [recipe.schedule.factor(epoch, row.epochs) for epoch in (0, row.epochs / 2, row.epochs)]
    assert factors == pytest.approx([1, 0.5, 0])


def test_fine_tuning_on_few_clips_keeps_the_encoder() -> None:
    recipe = finetune(vjepa2.vjepa2_large_16x4x2_20e_sthv2_rgb(), 200)
    assert recipe.freeze == ("encoder",)
    assert recipe.test == vjepa2.vjepa2_large_16x4x2_20e_sthv2_rgb().test

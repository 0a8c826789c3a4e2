"""The trainings of UniFormerV2 equal the published values in `published_uniformerv2.py`."""

import math

import pytest
import torch

from mmaction_lite.data.views.augment import RandAugment
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ThreeCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import SegmentClips
from mmaction_lite.recipes import get_recipe, uniformerv2
from mmaction_lite.recipes.recipe import Reported
from tests.recipes.published_uniformerv2 import UNIFORMERV2

EVERY = pytest.mark.parametrize("name", UNIFORMERV2)


@EVERY
def test_published_values(name):
    recipe, row = get_recipe(name), UNIFORMERV2[name]
    assert (recipe.epochs, recipe.batch_size) == (row.epochs, row.batch)
    assert recipe.reported == Reported(top1=row.top1, source=uniformerv2.SOURCE)
    assert recipe.model.arguments == (
        {"levels": 8, "local": True, "stem": 3, "drop_path": 0.2, "level_drop_path": 0.4}
        if row.is_local
        else {}
    )
    assert (recipe.mixing, recipe.label_smoothing, recipe.max_grad_norm) == (None, 0, 20)
    assert recipe.normalize == Normalize(mean=(114.75, 114.75, 114.75), std=(57.375, 57.375, 57.375))
    assert recipe.average == ("score" if row.is_local else "probability")
    assert recipe.train.clips == SegmentClips(num_segments=row.frames, margin=True) == recipe.val.clips
    clips = SegmentClips(num_segments=row.frames, num_clips=row.test_clips, margin=True)
    assert recipe.test.clips == clips
    assert (recipe.val.crop, recipe.test.crop) == (CenterCrop(size=(224, 224)), ThreeCrop(size=(224, 224)))
    assert recipe.val.short_side == recipe.test.short_side == 224
    assert recipe.train.crop == RandomResizedCrop(size=(224, 224), area=(0.08, 1), ratio=(3 / 4, 4 / 3))
    expected = RandAugment(
        num_ops=4, magnitude=7, magnitude_std=0.5, probability=0.5, interpolation="bicubic"
    )
    assert recipe.train.augment == (expected,)
    assert recipe.train.flip == (0 if row.is_local else 0.5)
    assert recipe.train.repeats == (2 if row.is_local else 1)


@EVERY
def test_learning_rates(name):
    """Linear warm-up from 1e-6, then half a cosine to 1e-6."""
    recipe, row = get_recipe(name), UNIFORMERV2[name]

    def lr(epoch: float) -> float:
        return recipe.optimizer.lr * recipe.schedule.factor(epoch, recipe.epochs)

    assert lr(0) == pytest.approx(1e-6)
    assert lr(row.warmup / 2) == pytest.approx((1e-6 + row.lr) / 2)
    assert lr(row.warmup) == pytest.approx(row.lr)
    quarter = row.warmup + (row.epochs - row.warmup) / 4
    assert lr(quarter) == pytest.approx((row.lr - 1e-6) * (1 + math.cos(math.pi / 4)) / 2 + 1e-6)
    assert lr(row.epochs) == pytest.approx(1e-6)


@EVERY
def test_weight_decay_is_that_of_parameters_with_several_dimensions(name):
    recipe = get_recipe(name)
    with torch.device("meta"):
        model = recipe.model(num_classes=5, width=64)
    groups = recipe.optimizer.build(model).param_groups
    decay = {parameter: group["weight_decay"] for group in groups for parameter in group["params"]}
    for key, parameter in model.named_parameters():
        assert decay.pop(parameter) == (0.05 if parameter.ndim > 1 else 0), key
    assert not decay

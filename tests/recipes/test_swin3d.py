"""The trainings of Video Swin equal the published values in `published_swin3d.py`."""

import math

import pytest
import torch

from mmaction_lite.data.views.augment import RandAugment, RandomErasing
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ThreeCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import DenseClips, SegmentClips
from mmaction_lite.models.swin3d import VideoSwin
from mmaction_lite.optim import AdamW, set_lr
from mmaction_lite.recipes import get_recipe, swin3d
from mmaction_lite.recipes.recipe import Recipe
from tests.recipes.published_swin3d import SWIN, Swin

EVERY = pytest.mark.parametrize("name", SWIN)


def both(name: str) -> tuple[Recipe, Swin]:
    return get_recipe(name), SWIN[name]


@EVERY
def test_batch_and_accuracy(name):
    recipe, row = both(name)
    assert recipe.batch_size == 8 * 8
    assert recipe.epochs == row.epochs
    assert recipe.reported is not None
    assert (recipe.reported.top1, recipe.reported.top5) == (row.top1, row.top5)
    assert recipe.max_grad_norm is recipe.mixing is None
    assert recipe.label_smoothing == (0.1 if row.is_uniform else 0)
    assert recipe.normalize == Normalize()
    assert recipe.average == "probability"


@EVERY
def test_learning_rates(name):
    """Half a cosine to 0; in the first 2.5 epochs times a factor that rises from 0.1."""
    recipe, row = both(name)
    for epoch in (0, 1, 2.5, 7, row.epochs):
        warmup = 0.1 + 0.9 * min(1, epoch / 2.5)
        expected = row.lr * warmup * (1 + math.cos(math.pi * epoch / row.epochs)) / 2
        assert recipe.optimizer.lr * recipe.schedule.factor(epoch, row.epochs) == pytest.approx(expected)


@EVERY
def test_optimizer_groups(name):
    recipe, row = both(name)
    with torch.device("meta"):
        model = recipe.model(num_classes=5, width=8)
    optimizer = recipe.optimizer.build(model)
    assert isinstance(recipe.optimizer, AdamW)
    set_lr(optimizer, recipe.optimizer.lr)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    found = {
        parameter: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for key, parameter in model.named_parameters():
        lr, decay = found.pop(parameter)
        assert lr == pytest.approx(row.lr * (1 if key.startswith("head.") else 0.1)), key
        is_exempt = "norm" in key or "relative_position_bias_table" in key
        assert decay == (0 if is_exempt else row.weight_decay), key
    assert not found


@EVERY
def test_the_network(name):
    recipe, row = both(name)
    with torch.device("meta"):
        model = recipe.model(num_classes=400)
    assert isinstance(model, VideoSwin)
    blocks = [block for stage in model.stages for block in stage.blocks]  # pyright: ignore
    depth = {"tiny": 12, "small": 24, "base": 24}[name.split("_")[1]]
    rates = [row.drop_path * number / (depth - 1) for number in range(depth)]
    assert [block.drop_path.probability for block in blocks] == pytest.approx(rates)
    assert {block.attn.window for block in blocks} == {(row.window, 7, 7)}
    assert model.dropout.p == 0.5
    assert recipe.model.builder.__name__ == "_".join(name.split("_")[:2])


@EVERY
def test_views(name):
    recipe, row = both(name)
    train, val, test = recipe.train, recipe.val, recipe.test
    assert train.crop == RandomResizedCrop(size=(224, 224), area=(0.08, 1), ratio=(3 / 4, 4 / 3))
    assert train.flip == (0 if row.is_uniform else 0.5)
    if row.is_uniform:
        augment, erasing = train.augment
        assert augment == RandAugment(num_ops=4, magnitude=7)
        assert isinstance(erasing, RandomErasing)
        assert (erasing.probability, erasing.area) == (0.25, (0.02, 1 / 3))
        clips = SegmentClips(num_segments=32)
        assert train.clips == val.clips == test.clips == clips
    else:
        assert not train.augment
        assert train.clips == val.clips == DenseClips(clip_len=32, frame_interval=2)
        assert test.clips == DenseClips(clip_len=32, frame_interval=2, num_clips=4)
    assert (val.crop, val.short_side) == (CenterCrop(size=(224, 224)), 256)
    assert (test.crop, test.short_side) == (ThreeCrop(size=(224, 224)), 224)


def test_something_something_starts_from_a_network_with_its_windows():
    recipe = swin3d.swin3d_base_1x1x32_60e_sthv2_rgb()
    assert recipe.starts_from is not None
    assert "16x7x7" in recipe.starts_from
    assert recipe.model.arguments["window"] == (16, 7, 7)

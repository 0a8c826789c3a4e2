"""The trainings of MViT equal the published values in `published_mvit.py`."""

import math

import pytest
import torch

from mmaction_lite.data.views.augment import RandAugment, RandomErasing
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ScaleJitterCrop, ThreeCrop
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import PySlowFastClips, SegmentFrames
from mmaction_lite.optim import SGD, AdamW
from mmaction_lite.recipes import get_recipe, mvit
from mmaction_lite.recipes.recipe import Recipe
from tests.recipes.published_mvit import MVIT, PublishedMViT

EVERY = pytest.mark.parametrize("name", MVIT)


def both(name: str) -> tuple[Recipe, PublishedMViT]:
    return get_recipe(name), MVIT[name]


@EVERY
def test_batch_loss_and_accuracy(name):
    recipe, row = both(name)
    assert (recipe.batch_size, recipe.epochs) == (16, row.epochs)
    assert recipe.reported is not None
    assert (recipe.reported.top1, recipe.reported.top5) == (row.top1, row.top5)
    assert recipe.max_grad_norm == (1.0 if row.clip[1] else None)
    assert recipe.label_smoothing == 0.1
    assert recipe.mixing == Mixing(mixup_alpha=0.8, cutmix_alpha=1.0, probability=1.0)
    assert recipe.normalize == Normalize(mean=(114.75, 114.75, 114.75), std=(57.375, 57.375, 57.375))
    assert recipe.average == "probability"
    assert (recipe.starts_from is None) == bool(row.clip[1])


@EVERY
def test_learning_rates(name):
    recipe, row = both(name)

    def lr(epoch: float) -> float:
        return recipe.optimizer.lr * recipe.schedule.factor(epoch, recipe.epochs)

    assert lr(0) == pytest.approx(row.start_lr)
    assert lr(row.warmup_epochs / 2) == pytest.approx((row.start_lr + row.lr) / 2)
    assert lr(row.warmup_epochs) == pytest.approx(row.lr)
    quarter = (row.lr - 1e-6) * (1 + math.cos(math.pi / 4)) / 2 + 1e-6
    assert lr(row.warmup_epochs + (row.epochs - row.warmup_epochs) / 4) == pytest.approx(quarter)
    assert lr(row.epochs) == pytest.approx(1e-6)


@EVERY
def test_optimizer(name):
    recipe, row = both(name)
    if row.clip[1]:
        assert recipe.optimizer == AdamW(lr=row.lr, weight_decay=0.05, groups="no_decay")
    else:
        assert recipe.optimizer == SGD(
            lr=row.lr, momentum=0.9, nesterov=True, weight_decay=1e-4, groups="no_decay"
        )
    with torch.device("meta"):
        model = recipe.model(num_classes=5, width=8)
    for group in recipe.optimizer.build(model).param_groups:
        for parameter in group["params"]:
            assert (group["weight_decay"] > 0) == (parameter.ndim > 1)


@EVERY
def test_the_network(name):
    recipe, row = both(name)
    assert recipe.model.arguments == {"drop_path": row.drop_path}
    assert recipe.model.builder.__name__ == "_".join(name.split("_")[:3])
    with torch.device("meta"):
        model = recipe.model(num_classes=5, width=8)
    assert model.dropout.p == 0.5  # pyright: ignore
    rates = [block.drop_path.probability for block in model.blocks]  # pyright: ignore
    assert rates == pytest.approx(torch.linspace(0, row.drop_path, len(rates)).tolist())
    assert model.pos_encoding.grid[0] == row.clip[0] // 2  # pyright: ignore


def test_the_recipes_are_those_of_the_module():
    assert mvit.mvit_v1_base_16x4x1_200e_kinetics400_rgb() == get_recipe(next(iter(MVIT)))


@EVERY
def test_views(name):
    recipe, row = both(name)
    train, val, test = recipe.train, recipe.val, recipe.test
    randaugment, erasing = train.augment
    assert isinstance(randaugment, RandAugment)
    assert (randaugment.num_ops, randaugment.magnitude, randaugment.magnitude_std) == (4, 7, 0.5)
    assert randaugment.interpolation == "bicubic"
    assert isinstance(erasing, RandomErasing)
    assert (erasing.probability, erasing.area) == (0.25, (0.02, 1 / 3))
    size, (frames, interval), (clips, crops) = (224, 224), row.clip, row.test
    if interval:
        assert train.crop == RandomResizedCrop(size=size, area=(0.08, 1), ratio=(3 / 4, 4 / 3))
        assert (train.flip, train.repeats) == (0.5, 2)
        sampler = PySlowFastClips(clip_len=frames, frame_interval=interval, starts="even")
        assert test.clips == PySlowFastClips(
            clip_len=frames, frame_interval=interval, num_clips=clips, starts="even"
        )
    else:
        assert train.crop == ScaleJitterCrop(size=size, short_side=(256, 320), draw="reciprocal")
        assert (train.flip, train.repeats) == (0, 1)
        sampler = test.clips
        assert test.clips == SegmentFrames(num_segments=frames)
    assert train.clips == val.clips == sampler
    assert val.crop == CenterCrop(size=size)
    assert test.crop == (ThreeCrop(size=size) if crops == 3 else CenterCrop(size=size))
    assert val.short_side == test.short_side == 224

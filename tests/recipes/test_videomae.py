"""The fine-tunings of VideoMAE equal the published values in `published_videomae.py`."""

import math
from dataclasses import replace

import pytest
import torch

from mmaction_lite.data.views.augment import RandAugment, RandomErasing
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ThreeCrop
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import DenseClips, SegmentClips
from mmaction_lite.optim import AdamW, set_lr
from mmaction_lite.recipes import get_recipe, videomae
from mmaction_lite.recipes.recipe import Recipe
from tests.recipes.published_videomae import FINE_TUNED, FineTuned

EVERY = pytest.mark.parametrize("name", FINE_TUNED)


def both(name: str) -> tuple[Recipe, FineTuned]:
    return get_recipe(name), FINE_TUNED[name]


@EVERY
def test_batch_and_accuracy(name):
    recipe, row = both(name)
    assert recipe.batch_size == row.batch[0] * row.batch[1]
    assert recipe.epochs == row.epochs
    assert recipe.reported is not None
    assert (recipe.reported.top1, recipe.reported.top5) == (row.top1, row.top5)
    assert recipe.max_grad_norm is None
    assert recipe.label_smoothing == 0.1
    assert recipe.mixing == Mixing(mixup_alpha=0.8, cutmix_alpha=1.0, probability=1.0)
    assert recipe.normalize == Normalize()


@EVERY
def test_learning_rates(name):
    """Linear warm-up of five epochs, then half a cosine to 1e-6; all in units of the batch size / 256."""
    recipe, row = both(name)
    assert isinstance(recipe.optimizer, AdamW)
    scale = row.batch[0] * row.batch[1] / 256

    def lr(epoch: float) -> float:
        return recipe.optimizer.lr * recipe.schedule.factor(epoch, recipe.epochs)

    for epoch in (0, 1.5, 5):
        assert lr(epoch) == pytest.approx(row.base_lr * scale * epoch / 5)
    middle = (row.base_lr - 1e-6) * (1 + math.cos(math.pi / 4)) / 2 + 1e-6
    assert lr(5 + (row.epochs - 5) / 4) == pytest.approx(middle * scale)
    assert lr(row.epochs) == pytest.approx(1e-6 * scale)


@EVERY
def test_optimizer_groups(name):
    recipe, row = both(name)
    with torch.device("meta"):
        model = recipe.model(num_classes=5, width=64)
    optimizer = recipe.optimizer.build(model)
    set_lr(optimizer, recipe.optimizer.lr)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    found = {
        parameter: (group["lr"] / recipe.optimizer.lr, group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    depth = 24 if "large" in name else 12
    for key, parameter in model.named_parameters():
        block = int(key.split(".")[1]) + 1 if key.startswith("blocks.") else depth + 1
        number = 0 if key.startswith("patch_embed.") else block
        scale, decay = found.pop(parameter)
        assert scale == pytest.approx(row.layer_decay ** (depth + 1 - number)), key
        assert decay == (0.05 if parameter.ndim > 1 else 0), key
    assert not found


@EVERY
def test_the_network(name):
    recipe, row = both(name)
    assert recipe.model.arguments == {"drop_path": row.drop_path} | (
        {"dropout": row.dropout} if row.dropout else {}
    )
    assert recipe.model.builder.__name__ == "_".join(name.split("_")[:2])


@EVERY
def test_views(name):
    recipe, row = both(name)
    train, val, test = recipe.train, recipe.val, recipe.test
    assert train.crop == RandomResizedCrop(size=(224, 224), area=(0.08, 1), ratio=(3 / 4, 4 / 3))
    assert train.flip == (0 if row.is_uniform else 0.5)
    assert train.repeats == row.repeats
    augment, erasing = train.augment
    expected = RandAugment(num_ops=4, magnitude=7, magnitude_std=0.5, probability=0.5)
    assert augment == replace(expected, interpolation="bicubic")  # `--train_interpolation`
    assert isinstance(erasing, RandomErasing)
    assert (erasing.probability, erasing.area) == (0.25, (0.02, 1 / 3))
    clips = {
        number: SegmentClips(num_segments=16, num_clips=number)
        if row.is_uniform
        else DenseClips(clip_len=16, frame_interval=4, num_clips=number, short="hold")
        for number in (1, row.test_clips)
    }
    assert train.clips == val.clips == clips[1]
    assert test.clips == clips[row.test_clips]
    assert (val.crop, test.crop) == (CenterCrop(size=(224, 224)), ThreeCrop(size=(224, 224)))
    assert val.short_side == test.short_side == 224


def test_hmdb51_is_trained_as_ucf101():
    recipe = videomae.videomae_base_16x4x1_100e_hmdb51_rgb()
    other = videomae.videomae_base_16x4x1_100e_ucf101_rgb()
    assert (recipe.optimizer, recipe.test) == (other.optimizer, other.test)
    assert recipe.reported is None

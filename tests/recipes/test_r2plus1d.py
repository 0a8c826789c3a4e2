"""Recipes of R(2+1)D; the published values are in `test_published.py`."""

from dataclasses import replace

import torch
from torch import nn

from mmaction_lite.recipes.r2plus1d import (
    r2plus1d_r34_8x8x1_180e_kinetics400_rgb,
    r2plus1d_r34_32x2x1_180e_kinetics400_rgb,
)


def test_the_long_clips_are_sampled_as_the_name_says():
    """The first configuration published under this name sampled 8x8."""
    recipe = r2plus1d_r34_32x2x1_180e_kinetics400_rgb()
    for views in (recipe.train, recipe.val, recipe.test):
        assert views.clips.clip_len == 32
        assert set(views.clips(300)[0][1:] - views.clips(300)[0][:-1]) == {2}


def test_8x8_and_32x2_differ_in_clips_and_result_alone():
    one, other = r2plus1d_r34_8x8x1_180e_kinetics400_rgb(), r2plus1d_r34_32x2x1_180e_kinetics400_rgb()
    views = {"train": other.train, "val": other.val, "test": other.test}
    assert replace(one, **views, reported=other.reported) == other


def test_normalizations_have_the_published_epsilon():
    """1e-3, but PyTorch's default between the two halves of a factored convolution (`Conv2plus1d`)."""
    with torch.device("meta"):
        model = r2plus1d_r34_8x8x1_180e_kinetics400_rgb().model(num_classes=2)
    for name, norm in model.named_modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            is_between = name.rpartition(".")[2] == "bn"
            assert norm.eps == (1e-5 if is_between else 1e-3), name

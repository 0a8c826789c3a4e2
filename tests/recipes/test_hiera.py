"""The fine-tunings of Hiera have the published epochs and test, and VideoMAE's other settings."""

from dataclasses import fields

import pytest
import torch

from mmaction_lite.data.views.crops import ThreeCrop
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.recipes import get_recipe, hiera, videomae
from mmaction_lite.recipes.recipe import Reported

# Top-1 accuracy of the published weights, five clips with three crops (README of facebookresearch/hiera).
PUBLISHED = {"hiera_base": 84.0, "hiera_base_plus": 85.0, "hiera_large": 87.3}


@pytest.mark.parametrize("builder", PUBLISHED)
def test_published_settings(builder):
    recipe = get_recipe(f"{builder}_16x4x1_50e_kinetics400_rgb")
    assert recipe.model.builder.__name__ == builder
    assert recipe.epochs == 50
    assert recipe.reported == Reported(top1=PUBLISHED[builder], source="Hiera README.md")
    assert recipe.starts_from == f"Hiera pre-trained on Kinetics-400 (mae_{builder}_16x224.pth)"
    assert recipe.test.clips == DenseClips(clip_len=16, frame_interval=4, num_clips=5, short="hold")
    assert recipe.test.crop == ThreeCrop(size=(224, 224))
    other = videomae.videomae_base_16x4x1_75e_kinetics400_rgb()
    differing = {f.name for f in fields(recipe) if getattr(recipe, f.name) != getattr(other, f.name)}
    assert differing == {"model", "epochs", "starts_from", "reported"}


def test_positions_have_no_weight_decay_and_the_learning_rate_of_the_stem():
    recipe = hiera.hiera_base_16x4x1_50e_kinetics400_rgb()
    with torch.device("meta"):
        model = recipe.model(num_classes=5, width=8)
    groups = recipe.optimizer.build(model).param_groups
    of_parameter = {parameter: group for group in groups for parameter in group["params"]}
    for name in ("pos_embed_spatial", "pos_embed_temporal", "patch_embed.proj.weight"):
        group = of_parameter[model.get_parameter(name)]
        assert group["lr_scale"] == pytest.approx(0.75**25)
        assert group["weight_decay"] == (0 if name.startswith("pos") else 0.05)
    assert of_parameter[model.get_parameter("norm.weight")]["lr_scale"] == 1

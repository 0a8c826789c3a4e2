"""Layer numbers and parameter groups."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from mmaction_lite import get_recipe, models
from mmaction_lite.errors import UserError
from mmaction_lite.models import slowfast_r50_4x16, tsm_mobilenetv2
from mmaction_lite.optim import set_lr
from mmaction_lite.optim.parameter_groups import (
    decay_layers,
    layer_numbers,
    no_decay_groups,
    swin_groups,
    tsm_groups,
    uniform_groups,
)
from tests.thin import thin

BUILDERS = sorted(set(models.__all__) - {"optimize_for_inference", "tsn", "tsn_timm", "frame_encoder"})
BUILDERS = [name for name in BUILDERS if not name.startswith("probe_")]

TOP_OF_TRANSFORMERS = {"videomae_base": 13, "videomae_large": 25, "videomae_small": 13}


def numbers(model: nn.Module) -> dict[str, int]:
    found = layer_numbers(model)
    return {name: found[parameter] for name, parameter in model.named_parameters()}


def published_layer(name: str, builder: str) -> int:
    """The layer that a parameter of the package's networks has by its name."""
    if name.startswith("encoder."):  # of two blocks
        block = re.match(r"encoder\.blocks\.(\d+)\.", name)
        return int(block[1]) + 1 if block else 2 if "norm" in name else 0
    if builder.startswith("vjepa"):
        return 3 if name.startswith("pooler.") else 4
    if builder.startswith("swin3d_"):  # stages of two blocks and a merging, and of one block
        block = re.match(r"stages\.0\.blocks\.(\d)\.", name)
        prefixes = {"patch_embed.": 0, "stages.0.downsample.": 3, "head.": 5}
        found = [number for prefix, number in prefixes.items() if name.startswith(prefix)]
        return int(block[1]) + 1 if block else found[0] if found else 4
    if builder.startswith("x3d_") and "layer" not in name:
        return 6 if name.startswith("fc.") else 5 if "5" in name or name.startswith("projection.") else 0
    if name.startswith("fc."):
        return 18 if "mobilenet" in builder else 5
    if match := re.search(r"\blayer(\d)\.", name):
        return int(match[1])
    if match := re.search(r"\b(?:lateral|blocks)\.(\d+)\.", name):
        return int(match[1]) + 1
    if builder.startswith("uniformerv2"):  # of two blocks
        if name.startswith(("mixture.", "head.")):
            return 3
        last = name.startswith(("extractors.", "temporal_token."))
        return 2 if last else int(name.split(".")[1]) + 1 if name.startswith("blocks.") else 0
    if name.startswith(("norm.", "head.")) and builder.startswith(("hiera", "mvit")):  # of four blocks
        return 5
    if name.startswith(("fc_norm.", "head.")):  # of VideoMAE
        return TOP_OF_TRANSFORMERS[builder]
    return 17 if name.startswith(("backbone.conv2", "backbone.bn2")) else 0


@pytest.mark.parametrize("name", BUILDERS)
def test_layers_of_every_network_follow_its_parameter_names(name):
    with torch.device("meta"):
        model = getattr(models, name)(**thin(name))
        if name in ("i3d_r50", "tsm_r50"):
            model = getattr(models, name)(width=8, non_local="gaussian")
    expected = {key: published_layer(key, name) for key, _ in model.named_parameters()}
    assert numbers(model) == expected


def test_layers_are_numbered_from_the_stem_to_the_head():
    found = numbers(slowfast_r50_4x16(num_classes=2, width=8))
    assert found["backbone.slow.conv1.weight"] == found["backbone.fast.conv1.weight"] == 0
    assert found["backbone.fast.layer3.0.conv1.weight"] == 3
    assert found["fc.weight"] == 5
    found = numbers(tsm_mobilenetv2(num_classes=2, width=8))
    assert found["backbone.conv1.weight"] == 0
    assert found["backbone.conv2.weight"] == found["fc.weight"] - 1
    assert list(found.values()) == sorted(found.values())


class Transformer(nn.Module):
    """Parameters of a vision transformer, named as in most of them."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
        self.patch_embed = nn.Conv2d(3, 8, 2, 2)
        self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(3)])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 5)

    def layers(self) -> list[nn.Module]:
        return [self.patch_embed, *self.blocks, self.head]


def test_parameters_outside_of_all_layers_follow_those_before():
    found = numbers(Transformer())
    assert (found["pos_embed"], found["patch_embed.weight"], found["blocks.0.1.bias"]) == (0, 0, 1)
    assert (found["blocks.2.1.weight"], found["norm.weight"], found["head.bias"]) == (3, 3, 4)


def test_a_parameter_of_two_layers_is_refused():
    model = Transformer()
    model.blocks[2] = model.blocks[0]
    with pytest.raises(UserError, match=r"^Transformer\.layers\(\): layers 1 and 3 share .* 0\.weight"):
        layer_numbers(model)


def scales(model: nn.Module, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Factor of the learning rate, and weight decay, of every parameter."""
    found = {}
    for group in groups:
        for parameter in group["params"]:
            assert parameter not in found
            found[parameter] = (group["lr_scale"], group["weight_decay"])
    return {name: found[parameter] for name, parameter in model.named_parameters()}


def test_the_learning_rate_decreases_from_the_head_to_the_stem():
    model = Transformer()
    found = scales(model, decay_layers(model, no_decay_groups(model, 0.1), 0.5))
    assert found["head.weight"] == (1.0, 0.1)
    assert found["head.bias"] == (1.0, 0.0)
    assert found["blocks.2.1.weight"] == (0.5, 0.1)
    assert found["blocks.0.1.weight"] == (0.125, 0.1)
    assert found["patch_embed.weight"] == (0.0625, 0.1)
    assert found["pos_embed"] == (0.0625, 0.0)  # no weight decay, although it has three dimensions
    plain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))  # one layer
    assert set(scales(plain, decay_layers(plain, uniform_groups(plain, 0.1), 0.5)).values()) == {(1.0, 0.1)}


def test_tsm_groups_are_the_published_ones():
    recipe = get_recipe("tsm_r50_1x1x8_50e_kinetics400_rgb")
    with torch.device("meta"):
        model = recipe.model(num_classes=400)
    optimizer = recipe.optimizer.build(model)
    found = scales(model, optimizer.param_groups)
    set_lr(optimizer, 0.02)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.02, 0.02, 0.1, 0.2])
    assert (found["fc.weight"], found["fc.bias"]) == ((5.0, 1e-4), (10.0, 0.0))
    for name, value in found.items():
        if "fc" not in name:
            is_norm = "bn" in name or "downsample.1" in name
            assert value == ((1.0, 0.0) if is_norm else (1.0, 1e-4)), name


def test_swin_groups_exempt_normalization_and_bias_tables():
    model = models.swin3d_tiny(num_classes=5, **thin("swin3d_tiny"))
    attention = "stages.0.blocks.0.attn"
    found = scales(model, swin_groups(model, 0.1))
    assert found["head.weight"] == found["head.bias"] == (1.0, 0.1)
    assert found[f"{attention}.qkv.weight"] == found[f"{attention}.qkv.bias"] == (0.1, 0.1)
    assert found["norm.weight"] == found[f"{attention}.relative_position_bias_table"] == (0.1, 0.0)
    found = scales(model, no_decay_groups(model, 0.1))
    assert found[f"{attention}.relative_position_bias_table"] == found["norm.weight"] == (1.0, 0.0)
    assert found[f"{attention}.qkv.weight"] == (1.0, 0.1)


def test_tsm_groups_go_by_the_head():
    model = Transformer()
    found = scales(model, tsm_groups(model, 0.1))
    assert (found["head.weight"], found["head.bias"]) == ((5.0, 0.1), (10.0, 0.0))
    assert (found["blocks.0.1.weight"], found["blocks.0.1.bias"]) == ((1.0, 0.1), (2.0, 0.0))
    with pytest.raises(UserError, match="no classifier found"):
        tsm_groups(nn.Conv2d(1, 1, 1), 0.1)

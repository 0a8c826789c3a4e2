"""MViT in the names of every project."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.models import mvit_v1_base, mvit_v2_small
from mmaction_lite.models.mvit import MViT
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights import load
from mmaction_lite.weights.conversion import convert_file
from mmaction_lite.weights.converters import classifier_size, convert, mvit

NORMALIZE = Normalize(mean=(114.75, 114.75, 114.75), std=(57.375, 57.375, 57.375))
PYSLOWFAST = {"conv_proj.": "patch_embed.proj.", "norm.": "norm.", "head.": "head.projection."}
PYTORCHVIDEO = {"conv_proj.": "patch_embed.patch_model.", "norm.": "norm_embed.", "head.": "head.proj."}
MMACTION2 = {
    "conv_proj.": "backbone.patch_embed.projection.",
    "norm.": "backbone.norm3.",
    "head.": "cls_head.fc_cls.",
}


def thin(builder: Any = mvit_v2_small, **options: Any) -> MViT:
    """A thin network whose values differ from all initial ones."""
    sizes: dict[str, Any] = {"num_classes": 3, "width": 8, "depths": (1, 1, 1, 1), "crop": 64, "frames": 8}
    model = builder(**sizes | options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def renamed(model: MViT, ends: dict[str, str]) -> dict[str, Tensor]:
    """The weights in the names of a project."""
    weights = {}
    for name, weight in model.state_dict().items():
        key = re.sub(r"\.attn\.project\.0\.", ".attn.proj.", name)
        key = re.sub(r"\.attn\.pool_([qkv])\.pool\.", r".attn.pool_\1.", key)
        key = re.sub(r"\.attn\.pool_([qkv])\.norm_act\.0\.", r".attn.norm_\1.", key)
        key = key.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")
        key = re.sub(r"^(blocks\.\d+)\.project\.", r"\1.proj.", key)
        key = re.sub(r"^pos_encoding\.(\w+)_pos$", r"pos_embed_\1", key)
        key = key.replace("pos_encoding.class_token", "cls_token")
        for ours, theirs in ends.items():
            key = theirs + key.removeprefix(ours) if key.startswith(ours) else key
        if key.startswith(("pos_embed", "cls_token")):
            weight = weight.reshape(1, -1, weight.shape[-1])
            key = f"cls_positional_encoding.{key}" if ends is PYTORCHVIDEO else key
        if ends is MMACTION2 and not key.startswith(("backbone.", "cls_head.")):
            key = f"backbone.{key}"
        weights[key] = weight.clone()
    return weights


def separated(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights as PyTorchVideo stores them: three projections, and pooling layers under two names."""
    found = {}
    for key, weight in weights.items():
        if ".attn.qkv." in key:
            for part, value in zip("qkv", weight.chunk(3), strict=True):
                found[key.replace("qkv", part)] = value
            continue
        found[key] = weight
        if match := re.fullmatch(r"(.+\.attn\.)(pool|norm)_([qkv])\.(.+)", key):
            start, kind, part, rest = match.groups()
            found[f"{start}_attention_pool_{part}.{kind}.{rest}"] = weight
    return found


@pytest.mark.parametrize("builder", [mvit_v1_base, mvit_v2_small])
@pytest.mark.parametrize(
    ("source", "ends"),
    [("PySlowFast", PYSLOWFAST), ("MMAction2", MMACTION2), ("PyTorchVideo", PYTORCHVIDEO)],
)
def test_files_of_every_project(builder, source, ends):
    model, other = thin(builder), thin(builder)
    weights = renamed(model, ends)
    forms = [weights, separated(weights)] if source == "PyTorchVideo" else [weights]
    for form in forms:
        conversion = convert(form, other)
        assert (conversion.source, conversion.reinitialized, conversion.unused) == (source, [], [])
        assert (conversion.arguments, conversion.normalize) == ({}, NORMALIZE)
        torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
        assert classifier_size(form, other) == 3


def test_files_of_torchvision():
    model, other = thin(), thin(num_classes=4)
    weights = {key.replace("head.", "head.1."): value for key, value in model.state_dict().items()}
    conversion = convert(weights, other)
    assert (conversion.source, conversion.reinitialized) == ("torchvision", ["head.weight", "head.bias"])
    assert conversion.normalize == NORMALIZE


@pytest.mark.parametrize("builder", [mvit_v1_base, mvit_v2_small])
def test_files_of_torchvision_become_weights_files(builder, tmp_path):
    arguments = {"width": 8, "depths": (1, 1, 1, 1), "crop": 64, "frames": 8}
    recipe = replace(
        get_recipe("mvit_v2_small_16x4x1_200e_kinetics400_rgb"), model=Build(builder, **arguments)
    )
    model = thin(builder)
    weights = {key.replace("head.", "head.1."): value for key, value in model.state_dict().items()}
    torch.save(weights, tmp_path / "mvit.pth")
    convert_file(tmp_path / "mvit.pth", recipe, tmp_path / "mvit.safetensors")
    torch.testing.assert_close(
        load(tmp_path / "mvit.safetensors").state_dict(), model.state_dict(), rtol=0, atol=0
    )


@pytest.mark.parametrize("builder", [mvit_v1_base, mvit_v2_small])
def test_tables_of_another_size_change_the_network(builder):
    model, other = thin(builder, frames=16, crop=96), thin(builder)
    conversion = convert(renamed(model, PYSLOWFAST), other)
    assert conversion.arguments == {"frames": 16, "crop": 96}
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    x = torch.rand(1, 3, 8, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(other.eval()(x), model.eval()(x), rtol=0, atol=0)


def test_weights_of_the_other_version_are_refused():
    for builder, other in ((mvit_v1_base, mvit_v2_small), (mvit_v2_small, mvit_v1_base)):
        with pytest.raises(UserError, match=r"PySlowFast's \d+ weights do not fit this model's"):
            convert(renamed(thin(builder), PYSLOWFAST), thin(other))


def test_the_names_of_each_project_are_recognized_as_its_own():
    model = thin()
    files = {
        mvit.is_torchvision: dict(model.state_dict()),
        mvit.is_pyslowfast: renamed(model, PYSLOWFAST),
        mvit.is_pytorchvideo: renamed(model, PYTORCHVIDEO),
        mvit.is_mmaction2: renamed(model, MMACTION2),
    }
    for project, weights in files.items():
        assert mvit.matches(weights)
        assert [other for other in files if other(weights)] == [project]
        names = mvit.rename(weights)
        assert set(names.values()) == set(model.state_dict())
    assert not mvit.matches(["blocks.0.attn.qkv.weight"])

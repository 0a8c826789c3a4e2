"""Names of Video Swin's repository and of image Swin networks, and their inflation."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmaction_lite import models
from mmaction_lite.errors import UserError
from mmaction_lite.models.swin3d import VideoSwin
from mmaction_lite.weights.converters import TABLES, convert, mmaction2, swin, torchvision
from mmaction_lite.weights.converters.forms import is_for_images


def thin(window: tuple[int, int, int] = (8, 7, 7), num_classes: int = 3) -> VideoSwin:
    """A thin network whose values differ from all initial ones."""
    torch.manual_seed(num_classes)
    model = models.swin3d_tiny(num_classes=num_classes, width=8, depths=(2, 1), window=window)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def original(model: VideoSwin) -> dict[str, Tensor]:
    """The weights under the names of Video-Swin-Transformer."""
    weights = {
        "backbone.layers.0.blocks.1.attn.relative_position_index": torch.zeros(392, 392, dtype=torch.int64)
    }
    for name, value in model.state_dict().items():
        name = re.sub(r"^stages\.", "layers.", name)
        prefix = "cls_head.fc_cls." if name.startswith("head.") else "backbone."
        weights[prefix + name.removeprefix("head.")] = value
    return weights


def image_weights(model: VideoSwin, side: int = 7) -> dict[str, Tensor]:
    """Weights of an image network under Microsoft's names, with a table for windows of `side`."""
    rng = torch.Generator().manual_seed(5)
    weights: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        name = re.sub(r"^stages\.", "layers.", name)
        shape: Any = value.shape
        if name == "patch_embed.proj.weight":
            shape = (shape[0], 3, 4, 4)
        elif name.endswith("table"):
            shape = ((2 * side - 1) ** 2, shape[1])
        elif name.startswith("head."):
            shape = (1000, *shape[1:])
        weights[name] = torch.randn(shape, generator=rng)
    weights["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return weights


def test_files_of_the_original_repository():
    model, other = thin(), thin()
    torch.nn.init.zeros_(other.norm.weight)
    conversion = convert({"state_dict": original(model), "meta": {}}, other)
    assert conversion.source == "Video Swin"
    assert conversion.unused == ["backbone.layers.0.blocks.1.attn.relative_position_index"]
    assert conversion.reinitialized == conversion.notes == []
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_files_of_mmaction2_differ_in_the_last_normalization():
    model, other = thin(), thin()
    torch.nn.init.zeros_(other.norm.weight)
    weights = {key.replace("backbone.norm.", "backbone.norm3."): v for key, v in original(model).items()}
    weights["data_preprocessor.mean"] = torch.zeros(3)
    conversion = convert(weights, other)
    assert conversion.source == "MMAction2"
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def as_torchvision(weights: dict[str, Tensor], first: int) -> dict[str, Tensor]:
    """The weights under torchvision's names; stages and mergings are counted from `first`."""
    renamed = {}
    for name, value in weights.items():
        name = re.sub(
            r"^(?:stages|layers)\.(\d)\.blocks\.", lambda m: f"features.{2 * int(m[1]) + first}.", name
        )
        name = re.sub(
            r"^(?:stages|layers)\.(\d)\.downsample\.",
            lambda m: f"features.{2 * int(m[1]) + first + 1}.",
            name,
        )
        name = name.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.3.")
        if first:
            name = name.replace("patch_embed.proj.", "features.0.0.").replace(
                "patch_embed.norm.", "features.0.2."
            )
        renamed[name] = value
    return renamed


def test_files_of_torchvisions_video_networks():
    model, other = thin(), thin()
    torch.nn.init.zeros_(other.norm.weight)
    conversion = convert(as_torchvision(model.state_dict(), 0), other)
    assert (conversion.source, conversion.reinitialized) == ("torchvision", [])
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def timm_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {key.replace("layers.0.downsample.", "layers.1.downsample."): v for key, v in weights.items()}
    return {key.replace("head.", "head.fc."): value for key, value in renamed.items()}


@pytest.mark.parametrize("project", ["microsoft", "timm", "torchvision"])
def test_image_networks_are_inflated(project):
    model = thin()
    before = model.head.weight.detach().clone()
    image = image_weights(model)
    weights = {
        "microsoft": lambda: {"model": image},
        "timm": lambda: timm_names(image),
        "torchvision": lambda: as_torchvision(image, 1),
    }[project]()
    conversion = convert(weights, model)
    assert conversion.source == ("torchvision" if project == "torchvision" else "Video Swin")
    assert sorted(conversion.reinitialized) == ["head.bias", "head.weight"]
    assert torch.equal(model.head.weight, before)
    (note,) = conversion.notes
    assert "the patch embedding is repeated over 2 frames and divided by 2" in note
    patches = model.patch_embed.proj.weight
    for frame in (0, 1):
        torch.testing.assert_close(patches[:, :, frame], image["patch_embed.proj.weight"] / 2)
    name = "blocks.1.attn.relative_position_bias_table"
    table = model.get_parameter(f"stages.0.{name}").unflatten(0, (15, 169))
    torch.testing.assert_close(table, image[f"layers.0.{name}"].expand(15, -1, -1))
    merging = "downsample.reduction.weight"
    torch.testing.assert_close(model.get_parameter(f"stages.0.{merging}"), image[f"layers.0.{merging}"])


def test_an_inflated_network_computes_the_image_network_on_still_clips():
    """All frames attend to equal tokens with equal biases, so time does not matter."""
    model = models.swin3d_tiny(num_classes=3, width=8, depths=(2,), window=(4, 7, 7))
    convert(image_weights(model), model)
    model.eval()
    frame = torch.randn(1, 3, 1, 56, 56)
    with torch.inference_mode():
        logits = [model(frame.expand(-1, -1, frames, -1, -1)) for frames in (2, 8, 16)]
    torch.testing.assert_close(logits[1], logits[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits[2], logits[0], rtol=1e-4, atol=1e-4)


def test_tables_of_other_windows_are_resized_as_published():
    model = thin()
    image = image_weights(model, side=12)
    convert(image, model)
    name = "blocks.0.attn.relative_position_bias_table"
    planes = image[f"layers.1.{name}"].t().reshape(1, -1, 23, 23)
    expected = functional.interpolate(planes, (13, 13), mode="bicubic").flatten(2)[0].t()
    torch.testing.assert_close(model.get_parameter(f"stages.1.{name}"), expected.repeat(15, 1))


def test_another_window_is_refused():
    message = r"^the weights are for windows of \(16, 7, 7\) tokens, .*--set 'model\.window=\(16, 7, 7\)'$"
    with pytest.raises(UserError, match=message):
        convert(original(thin(window=(16, 7, 7))), thin())


def test_image_weights_must_be_trained_first():
    model = thin()
    image = image_weights(model)
    assert is_for_images("Video Swin", [*image], model)
    assert is_for_images("torchvision", [*as_torchvision(image, 1)], model)
    assert not is_for_images("Video Swin", [*original(model)], model)
    assert not is_for_images("torchvision", [*as_torchvision(model.state_dict(), 0)], model)


def test_each_project_is_recognized_by_its_names():
    weights = original(thin())
    assert next(table for table in TABLES if table.matches(weights)) is swin
    theirs = [key.replace("backbone.norm.", "backbone.norm3.") for key in weights]
    assert next(table for table in TABLES if table.matches(theirs)) is mmaction2
    assert torchvision.matches([*as_torchvision(thin().state_dict(), 0)])
    assert not swin.matches(["backbone.layer1.0.conv1.weight"])


def test_damaged_image_weights_are_refused():
    image = image_weights(thin())
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    for damaged in (image[name][:5], image[name][:, :0], image[name][0]):
        with pytest.raises(UserError, match="differ in shape"):
            convert(image | {name: damaged}, thin())
    del image[name]
    with pytest.raises(UserError, match="have no place here"):
        convert(image, thin())

"""Outputs of layers equal those of a plain forward hook, in every network."""

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite import models
from mmaction_lite.errors import UserError
from mmaction_lite.inference.layer_outputs import (
    HEAD_INPUT,
    Pool,
    as_clips,
    check_layer,
    layer_names,
    list_layers,
    pooled_outputs,
)
from mmaction_lite.models import optimize_for_inference
from tests.models.test_models import assert_same, build, clip, forms

pytestmark = pytest.mark.usefixtures("one_thread")


def plain_hook(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """The output of a layer as PyTorch's hook returns it, copied before the next layer changes it."""
    found = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _, i, output: found.append(output.clone())
    )
    model(x)
    handle.remove()
    return found[-1]


@forms({"tsm_r10", "tsm_mobilenetv2", "slowfast_r50_4x16", "r2plus1d_r18", "videomae_small"})
@torch.no_grad()
def test_layers_equal_a_plain_hook_in_every_network(name: str, arguments: dict[str, Any]) -> None:
    if name.startswith("mvit"):
        pytest.skip("blocks of MViT return the class token beside the patches, so they have no feature map")
    model = build(name, **arguments).eval()
    x = clip(name)
    outputs = list_layers(model, x)
    shapes = {row.name: row.shape for row in outputs}
    stages = [layer for layer in shapes if layer.count(".") <= 2 and layer[-1].isdigit()]
    if name.startswith("uniformerv2"):  # other layers return class tokens, or patches alone
        stages = [layer for layer in shapes if re.fullmatch(r"blocks\.\d+", layer)]
    assert len(stages) >= (2 if name.startswith(("swin3d", "uniformerv2")) else 4)
    is_transformer = hasattr(model, "grid")
    for layer in [stages[0], stages[len(stages) // 2], *(["head"] if is_transformer else ["backbone", "fc"])]:
        plain = plain_hook(model, layer, x)
        if layer in ("fc", "head"):  # (B, T, K)
            expected = plain.transpose(1, 2)[..., None, None]
        elif hasattr(model, "token_map"):
            expected = model.token_map(plain, x.shape)
        elif is_transformer:  # tokens (B, T·H·W, C)
            expected = plain.transpose(1, 2).unflatten(2, model.grid(*x.shape[2:]))
        else:  # frames (B·T, C, H, W)
            expected = torch.stack([part.transpose(0, 1) for part in plain.chunk(len(x))])
        assert expected.shape[1:] == shapes[layer]
        axes_of: dict[Pool, tuple[int, ...]] = {"all": (2, 3, 4), "time": (2,), "space": (3, 4)}
        for pool, axes in axes_of.items():
            assert_same(pooled_outputs(model, x, layer, pool), expected.mean(axes), 1e-5)
        assert torch.equal(pooled_outputs(model, x, layer, "none"), expected)
    features = model.features(x)
    assert shapes[HEAD_INPUT] == (*features.shape[:0:-1], 1, 1)
    assert_same(pooled_outputs(model, x), features.mean(1))
    assert_same(pooled_outputs(optimize_for_inference(model), x), features.mean(1), 1e-3)
    # The logits are a linear function of the head input.
    assert_same(model.head(pooled_outputs(model, x)), model(x), 1e-4)


@torch.no_grad()
def test_both_pathways_of_slowfast_have_their_own_frames():
    model = build("slowfast_r50_8x8").eval()
    shapes = {row.name: row.shape for row in list_layers(model, clip("slowfast_r50_8x8", 1))}
    assert shapes["backbone.slow.layer2"][1] == 4
    assert shapes["backbone.fast.layer2"][1] == 16
    assert shapes["backbone.slow.layer2"][0] == 8 * shapes["backbone.fast.layer2"][0]


@torch.no_grad()
def test_an_output_that_the_next_layer_overwrites_is_read_before():
    model = build("tsm_r10").eval()
    x = clip("tsm_r10")
    before = pooled_outputs(model, x, "backbone.bn1", "none")
    assert before.min() < 0  # ReLU works in place
    assert (pooled_outputs(model, x, "backbone.relu", "none") == before.relu()).all()
    assert not model.backbone.bn1._forward_hooks


class Own(nn.Module):
    """A network of a user: no `features`, 3-D convolutions, an unused layer and a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3)
        self.pair = Pair()
        self.unused = nn.Linear(2, 2)
        self.blocks = nn.ModuleList([nn.Identity()])
        self.size = Size()
        self.classifier = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](self.conv(x))
        self.size(x)
        return self.classifier(self.pair(x)[0])


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x.mean((2, 3, 4)), None


class Size(nn.Module):
    def forward(self, x: Tensor) -> int:
        return x.numel()


@torch.no_grad()
def test_a_network_of_a_user_without_features_gives_the_input_of_its_classifier():
    model, x = Own().eval(), torch.randn(2, 3, 4, 6, 6)
    expected = model.conv(x)
    assert torch.equal(pooled_outputs(model, x, "conv", "none"), expected)
    assert_same(pooled_outputs(model, x), expected.mean((2, 3, 4)))
    assert_same(pooled_outputs(model, x, "pair"), expected.mean((2, 3, 4)))
    names = [row.name for row in list_layers(model, x)]
    assert names == ["conv", "blocks.0", "pair", "classifier", HEAD_INPUT]
    with pytest.raises(UserError, match=r"layer 'unused' does not run in the forward pass"):
        pooled_outputs(model, x, "unused")
    with pytest.raises(UserError, match=r"layer 'size': its output is a int; expected a tensor"):
        pooled_outputs(model, x, "size")


def test_wrong_names_list_the_nearest_layers():
    model = models.tsm_r10(width=8)
    with pytest.raises(UserError, match=r"has no layer 'backbone\.layer9'; nearest: backbone\.layer4"):
        check_layer(model, "backbone.layer9")
    with pytest.raises(UserError, match=r"has no layer 'blocks'; nearest: blocks\.0"):
        check_layer(Own(), "blocks")
    assert "backbone.layer1.0.conv1" in layer_names(model)
    fast = optimize_for_inference(model.eval())
    check_layer(fast, None)
    with pytest.raises(UserError, match="optimized for inference, which merges layers"):
        check_layer(fast, "backbone.layer1")
    with pytest.raises(UserError, match="optimized for inference, which merges layers"):
        list_layers(fast, clip("tsm_r10"))
    with pytest.raises(UserError, match="no classifier found"):
        check_layer(nn.Conv3d(3, 4, 1), None)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 7, 3, 4, 5), (2, 7, 3, 4, 5)),
        ((6, 7, 4, 5), (2, 7, 3, 4, 5)),
        ((2, 3, 7), (2, 7, 3, 1, 1)),
        ((6, 9, 7), (2, 7, 3, 9, 1)),
        ((6, 7), (2, 7, 3, 1, 1)),
        ((2, 7), (2, 7, 1, 1, 1)),
    ],
)
def test_every_shape_becomes_clips(shape, expected):
    x = torch.arange(torch.Size(shape).numel()).reshape(shape)
    clips = as_clips(x, 2)
    assert clips.shape == expected
    # The batch is the slowest axis of both.
    assert clips[0].max() < clips[1].min()
    assert as_clips({"a": (x,), "b": x}, 2).shape == expected


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (4,), (4, 1, 2, 3, 4), (2, 1, 1, 1, 1, 1)])
def test_other_shapes_are_an_error(shape):
    with pytest.raises(UserError, match=r"its output has the shape .* for a batch of 2"):
        as_clips(torch.zeros(shape), 2)


@torch.no_grad()
def test_a_module_that_runs_twice_gives_its_last_output():
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Linear(3, 3), relu, nn.Linear(3, 2))
    twin = copy.deepcopy(model)
    x = torch.randn(4, 3)
    assert torch.equal(pooled_outputs(model, x, "0"), twin[:3](x))

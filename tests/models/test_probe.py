"""Probes: composed networks, heads side by side, and encoders without their classifier."""

from typing import Any

import pytest
import torch
from torch import nn

from mmaction_lite import models
from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.inference import optimize_for_inference
from mmaction_lite.models.network import head, layers
from mmaction_lite.models.probe import (
    PROBES,
    LinearHead,
    Probe,
    ProbeHeads,
    build_encoder,
    can_fold,
    encoder_builder,
    independent_parts,
    remove_classifier,
)
from mmaction_lite.models.tokens import Pool, pooled_tokens
from tests.thin import clip_size, thin

ENCODERS = ("slowfast_r50_4x16", "r2plus1d_r18", "tsm_mobilenetv2", "videomae_small", "vjepa2_large")
HIERARCHICAL = ("x3d_s", "swin3d_tiny", "mvit_v2_small", "hiera_base", "uniformerv2_base")
SMALL = {"encoder": "tsm_r10", "width": 8}


@pytest.mark.parametrize("builder", PROBES)
def test_a_probe_is_a_network_like_any_other(builder):
    torch.manual_seed(0)
    model = builder(num_classes=5, **SMALL).eval()
    x = torch.rand(2, 3, 4, 32, 40)
    assert model(x).shape == (2, 5)
    torch.testing.assert_close(model(x), model.head(model.features(x)))
    found = layers(model)
    assert head(model) is model.head is found[-1]
    parameters = [p for layer in found for p in layer.parameters()]
    assert len(parameters) == len(set(parameters)) == len(list(model.parameters()))
    assert not any(name.startswith("encoder.fc") for name in model.state_dict())
    assert can_fold(model)
    folded = optimize_for_inference(model)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-3, atol=1e-4)


def test_the_linear_probe_standardizes_the_mean_of_the_tokens():
    found = LinearHead(4, 3)
    tokens = torch.rand(6, 5, 4)
    means = tokens.mean(1)
    found.standardize(means.mean(0), means.std(0, correction=0) * torch.tensor([1, 1, 1, 0]))
    expected = (means - means.mean(0)) / means.std(0, correction=0)
    logits = found.fc(
        expected * torch.tensor([1, 1, 1, 0]) + torch.eye(4)[3] * (means - means.mean(0)) / 1e-6
    )
    torch.testing.assert_close(found(tokens), logits)


def test_the_position_of_a_frame_matters_with_frame_codes_only():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 4, 32, 40)
    for has_code in (False, True):
        model = models.probe_attentive(5, encoder="tsn_r10", width=8, frame_code=has_code, depth=1).eval()
        nn.init.normal_(model.head.get_parameter("linear.weight"))
        assert torch.allclose(model(x), model(x.flip(2)), atol=1e-5) != has_code


def test_heads_side_by_side_do_not_influence_each_other():
    torch.manual_seed(0)
    heads = [LinearHead(4, 3), LinearHead(4, 3)]
    together = ProbeHeads(heads)
    tokens = torch.rand(2, 5, 4)
    logits = together(tokens)
    assert logits.shape == (2, 2, 3)
    assert torch.equal(logits[:, 1], heads[1](tokens))
    assert independent_parts(together) == heads
    assert independent_parts(heads[0]) == [heads[0]]


def test_every_network_of_the_package_is_an_encoder():
    frames = {"slowfast_r50_4x16": 32}
    for name in ENCODERS:
        model, channels = build_encoder(name, (("dropout", 0.1),), 32)
        clip = torch.rand(1, 3, frames.get(name, 8), 32, 32)
        assert pooled_tokens(model.eval(), clip, "all").shape == (1, 1, channels)


@pytest.mark.parametrize("name", [*HIERARCHICAL, "videomae_small"])
def test_the_encoder_holds_only_what_its_tokens_depend_on(name):
    encoder, channels = build_encoder(name, tuple(thin(name).items()))
    clip = torch.rand(2, 3, *clip_size(name))
    model = Probe(encoder, LinearHead(channels, 3), "all").train()
    assert model(clip).shape == (2, 3)
    assert set(model.parameters()) >= {p for layer in model.layers() for p in layer.parameters()}
    tokens = pooled_tokens(encoder, clip)
    find_grid: Any = getattr(encoder, "grid", lambda *_: (1, 1, 1))
    grid = find_grid(*clip.shape[2:])
    assert tokens.shape == (2, grid[0] * grid[1] * grid[2], channels)
    pools: dict[Pool, tuple[int, ...]] = {"space": (2, 3), "time": (1,)}
    for pool, axes in pools.items():
        expected = tokens.unflatten(1, grid).mean(axes)
        torch.testing.assert_close(pooled_tokens(encoder, clip, pool), expected.reshape(2, -1, channels))
    tokens.square().sum().backward()
    assert [key for key, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    "name",
    ["tsn", "probe_linear", "videomae_pretrain_small", "optimize_for_inference", "tsm_r11", "x\x1b[0m", "os"],
)
def test_other_names_are_no_encoders(name):
    with pytest.raises(UserError, match=r"^encoder: no network of the package is .*; "):
        encoder_builder(name)


def test_a_network_without_a_classifier_is_no_encoder():
    with pytest.raises(UserError, match="no classifier found"):
        remove_classifier(nn.Conv2d(3, 3, 1))
    model = models.tsm_r10(num_classes=3, width=8)
    assert remove_classifier(model) == 64
    assert isinstance(model.head, nn.Identity)
    assert isinstance(Probe(model, LinearHead(64, 2), "all").layers()[-1], LinearHead)

"""Attention rollout, compared with the product of whole matrices, and on a planted object."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmaction_lite import get_recipe, models
from mmaction_lite.data.sources.source import ArrayVideo
from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.inference import rollout as module
from mmaction_lite.inference.explain import ExplainSettings, explain_classes
from mmaction_lite.inference.rollout import attention_weights, check_attention, rollout, token_shares
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import ModelCard


def build(name: str, **arguments: Any) -> Any:
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=3, width=32, depth=3, **arguments).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


def block_matrix(attention: Any, x: Tensor, rotate: Any = None) -> Tensor:
    weights = attention_weights(attention, (x, rotate))[0]
    return (weights + torch.eye(len(weights))) / 2


def test_shares_of_mean_pooling_are_the_mean_row_of_the_product() -> None:
    model, x = build("videomae_small", heads=2), torch.randn(1, 3, 4, 32, 32)
    product = torch.eye(8)
    with torch.no_grad():
        tokens = model.patch_embed(x) + model.positions(8)
        for block in model.blocks:
            product = block_matrix(block.attn, block.norm1(tokens)) @ product
            tokens = block(tokens)
    torch.testing.assert_close(torch.from_numpy(token_shares(model, x)), product.mean(0))


def test_shares_of_an_attentive_pool_begin_with_its_query(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("vjepa2_large", pool_depth=2, segments=2), torch.randn(1, 3, 8, 32, 32)
    parts: list[Tensor] = []
    with torch.no_grad():
        pooler, tokens = model.pooler, model.tokens(x)
        after = block_matrix(pooler.blocks[0].attn, pooler.blocks[0].norm1(tokens))
        cross = pooler.cross_attention_block
        given = (pooler.query_tokens, cross.norm1(pooler.blocks[0](tokens)))
        shares = (attention_weights(cross.xattn, given)[0, 0] @ after).reshape(2, 8)
        inputs: list[tuple] = []
        handles = [
            b.attn.register_forward_pre_hook(lambda m, g: inputs.append(g)) for b in model.encoder.blocks
        ]
        model.encoder(torch.cat([x[:, :, :4], x[:, :, 4:]]))
        for handle in handles:
            handle.remove()
        for part in range(2):
            row = shares[part]
            for block, (given, rotate, norm) in reversed(
                list(zip(model.encoder.blocks, inputs, strict=True))
            ):
                row = row @ block_matrix(block.attn, norm(given[part : part + 1]), rotate)
            parts.append(row)
    expected = torch.cat(parts)
    torch.testing.assert_close(torch.from_numpy(token_shares(model, x)), expected)
    assert float(expected.sum()) == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr(module, "ROWS", 3)  # matrices in pieces
    torch.testing.assert_close(torch.from_numpy(token_shares(model, x)), expected)


@pytest.mark.parametrize("name", ["videomae_small", "vjepa2_large", "vjepa21_base"])
def test_attention_to_a_planted_object_is_found_where_and_when_it_is(name: str) -> None:
    model = getattr(models, name)(num_classes=3, width=32, depth=2).eval()
    encoder = getattr(model, "encoder", model)
    with torch.no_grad():
        # The last channel is the brightness of a token; rotary positions do not turn it.
        projection = encoder.patch_embed.proj
        projection.weight.zero_()
        projection.weight[31] = 4 / projection.weight[31].numel()
        if hasattr(encoder, "positions"):
            encoder.positions.table.zero_()
        for block in encoder.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.weight[63, 31] = 1.0  # k of the last channel
            (block.attn.q_bias if hasattr(block.attn, "q_bias") else block.attn.qkv.bias)[31] = 8.0
            block.attn.proj.weight.zero_()
            block.mlp.fc2.weight.zero_()
    x = torch.zeros(1, 3, 8, 64, 64)
    x[:, :, 4:6, 16:32, 32:48] = 1.0
    maps = rollout(model, x)
    assert maps.shape == (8, 64, 64)
    assert maps.min() >= 0
    inside = maps[4:6, 16:32, 32:48]
    assert inside.mean() > 3 * maps.mean()
    frame, row, column = np.unravel_index(maps.argmax(), maps.shape)
    assert frame in (4, 5)
    assert 16 <= row < 32
    assert 32 <= column < 48


def test_explain_returns_the_rollout_for_any_class() -> None:
    views = TestViews(clips=SegmentFrames(num_segments=4), crop=CenterCrop(size=(32, 32)))
    build_network = Build(models.vjepa2_large, width=32, depth=2, pool_depth=1)
    recipe = replace(get_recipe("tsm_r10_1x1x8_12e_motions_rgb"), model=build_network, val=views, test=views)
    model = recipe.model(num_classes=2)
    model.card = ModelCard.of(recipe, ("a", "b"))  # pyright: ignore[reportArgumentType]
    video = ArrayVideo(np.random.default_rng(0).integers(0, 255, (9, 40, 48, 3), np.uint8), fps=8.0)
    first, second = explain_classes(model, video, ["a", "b"], ExplainSettings(method="rollout", fill=None))
    assert (first.method, first.layers, first.maps.shape) == ("rollout", (), (4, 32, 32))
    assert np.array_equal(first.maps, second.maps)
    assert first.maps.max() == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tsn_r10",
            "Recognizer has no attention layers of this package; .* --method gradcam or --method occlusion",
        ),
        ("hiera_base", "Hiera: the number or order of tokens differs between blocks; .* --method gradcam"),
    ],
)
def test_networks_without_attention_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_attention(getattr(models, name)(num_classes=2))


def test_tokens_of_several_layers_are_refused() -> None:
    model = build("vjepa2_large", levels=(1, 2))
    with pytest.raises(UserError, match="pools the tokens of several layers, 16 for 8"):
        rollout(model, torch.zeros(1, 3, 4, 32, 32))

"""Hiera equals a plain implementation in the order of pixels, and orders its tokens by mask unit."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models import hiera_base
from mmaction_lite.models.hiera import UNIT, Hiera, HieraAttention, HieraBlock, pool_tokens, roll, unroll


def thin(**options: Any) -> Hiera:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_classes": 5, "width": 8, "depths": (1, 2, 2, 1), "frames": 4, "size": 64}
    return hiera_base(**sizes | options)


def pool_map(x: Tensor) -> Tensor:
    """Maximum over 2x2 cells of (B, T, H, W, C)."""
    return functional.max_pool3d(x.permute(0, 4, 1, 2, 3), (1, 2, 2)).permute(0, 2, 3, 4, 1)


def plain_attention(layer: HieraAttention, x: Tensor, side: int) -> Tensor:
    """Attention over all cells of (B, T, H, W, C), masked outside of mask units of `side` cells."""
    batch, t, h, w, _ = x.shape
    q, k, v = layer.qkv(x).chunk(3, dim=4)
    if layer.is_pooled:
        q = pool_map(q)

    def units(rows: int, columns: int, side: int) -> Tensor:
        cells = torch.cartesian_prod(torch.arange(t), torch.arange(rows), torch.arange(columns))
        return cells // torch.tensor([1, side, side])

    of_keys = units(h, w, side)
    of_queries = units(q.shape[2], q.shape[3], side // 2) if layer.is_pooled else of_keys
    mask = (of_queries[:, None] == of_keys[None]).all(2)
    q_, k_, v_ = (y.flatten(1, 3).unflatten(2, (layer.heads, -1)).transpose(1, 2) for y in (q, k, v))
    scores = q_ @ k_.transpose(2, 3) / q_.shape[3] ** 0.5
    if not layer.is_global:
        scores = scores.masked_fill(~mask, -torch.inf)
    out = (scores.softmax(3) @ v_).transpose(1, 2).flatten(2)
    return layer.proj(out).reshape(batch, t, q.shape[2], q.shape[3], -1)


def plain_maps(model: Hiera, x: Tensor) -> list[Tensor]:
    """Outputs of the embedding and of all blocks, (B, T, H, W, C)."""
    x = model.patch_embed.proj(x).permute(0, 2, 3, 4, 1)
    x = x + model.pos_embed_temporal[:, :, None, None]
    x = x + model.pos_embed_spatial.unflatten(1, x.shape[2:4])[:, None]
    maps, side = [x], 8
    for block in model.blocks:
        assert isinstance(block, HieraBlock)
        normed = block.norm1(x)
        if block.proj is not None:
            x = pool_map(block.proj(normed))
        x = x + plain_attention(block.attn, normed, side)
        x = x + block.mlp(block.norm2(x))
        side = side // 2 if block.attn.is_pooled else side
        maps.append(x)
    return maps


@torch.no_grad()
def test_blocks_equal_a_plain_implementation():
    model, x = thin().eval(), torch.randn(2, 3, 4, 64, 64)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    found = []
    for block in model.blocks:
        block.register_forward_hook(lambda m, inputs, out: found.append(model.token_map(out, x.shape)))
    tokens = model.tokens(x)
    _, *maps = plain_maps(model, x)
    assert len(found) == len(maps) == 6
    for ours, expected in zip(found, maps, strict=True):
        torch.testing.assert_close(ours, expected.permute(0, 4, 1, 2, 3), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(tokens, maps[-1].flatten(1, 3), atol=1e-4, rtol=1e-4)
    logits = model.head(model.norm(maps[-1].mean((1, 2, 3))))
    torch.testing.assert_close(model(x), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("poolings", range(4))
def test_rolling_is_the_inverse_of_unrolling_after_any_number_of_poolings(poolings):
    x = torch.randn(2, 3, 16, 24, 5)
    tokens = unroll(x).flatten(1, -2)
    for level in range(poolings):
        tokens, x = pool_tokens(tokens, UNIT >> 2 * level), pool_map(x)
    assert torch.equal(roll(tokens, (3, 2, 3)), x)


def test_attention_is_inside_of_mask_units_in_two_stages_and_the_first_pooling_of_the_third():
    attentions = [block.get_submodule("attn") for block in thin(depths=(2, 3, 2, 2)).blocks]
    assert [attention.is_global for attention in attentions] == [False] * 6 + [True] * 3
    assert [attention.unit for attention in attentions] == [64, 64, 64, 16, 16, 16, 4, 4, 1]
    assert [attention.heads for attention in attentions] == [1, 1, 2, 2, 2, 4, 4, 8, 8]


def test_only_outputs_of_blocks_have_a_place_in_the_clip():
    model, clips = thin(), torch.Size((2, 3, 4, 64, 64))
    assert model.token_map(torch.zeros(2, 2 * 2 * 2 * 16, 7), clips) is not None
    for shape in ((2, 2 * 2 * 2 * 8, 7), (1, 2 * 2 * 2 * 16, 7), (2, 7)):
        assert model.token_map(torch.zeros(shape), clips) is None


def test_another_size_than_that_of_the_positions_is_an_error():
    model = thin()
    message = "clips have 8 frames of 64x96 pixels; expected the 4 frames of 64x64 pixels that the positions"
    with pytest.raises(UserError, match=message):
        model(torch.rand(1, 3, 8, 64, 96))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, "size is 100; expected a multiple of 32 pixels"),
        ({"frames": 3}, "frames is 3; expected an even number"),
        ({"depths": (1, 2)}, r"depths is \(1, 2\); expected the number of blocks of each of the 4 stages"),
        ({"heads": 3}, "width is 8; expected a multiple of the 3 heads"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        thin(**options)


def test_initial_values_are_the_published_ones():
    model = thin(width=64, num_classes=50)
    for name, parameter in model.named_parameters():
        if name.startswith("head."):
            assert float(parameter.detach().abs().max()) < 2e-4
        elif name.endswith("bias") and not name.startswith("patch_embed."):
            assert torch.equal(parameter, torch.full_like(parameter, 0.02)), name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif not name.endswith("bias"):
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.1), name


def test_drop_path_rises_linearly():
    blocks = thin(drop_path=0.5).blocks
    rates = [block.drop_path.probability for block in blocks if isinstance(block, HieraBlock)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])

"""Attentive pooling."""

import pytest
import torch
from torch import nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.attentive_pool import AttentivePool, MapPool


@pytest.mark.parametrize("pool", [AttentivePool(32, depth=2), MapPool(32, heads=2)])
def test_the_order_of_tokens_does_not_matter(pool: nn.Module) -> None:
    tokens = torch.randn(2, 7, 32)
    pooled = pool(tokens)
    assert pooled.shape == (2, 32)
    torch.testing.assert_close(pool(tokens[:, torch.randperm(7)]), pooled)


def test_cross_attention_adds_to_the_query_and_has_no_projection() -> None:
    torch.manual_seed(0)
    block = AttentivePool(16, depth=1, heads=1).cross_attention_block
    query, tokens = torch.randn(1, 1, 16), torch.randn(1, 5, 16)
    normalized = block.norm1(tokens)
    key, value = block.xattn.kv(normalized).chunk(2, dim=2)
    weights = (block.xattn.q(query) @ key.transpose(1, 2) / 4).softmax(2)
    x = query + weights @ value
    torch.testing.assert_close(block(query, tokens), x + block.mlp(block.norm2(x)))


def test_map_pool_is_that_of_siglip() -> None:
    torch.manual_seed(0)
    pool = MapPool(16, heads=1)
    tokens = torch.randn(1, 5, 16)
    key, value = pool.attention.kv(tokens).chunk(2, dim=2)
    x = pool.attention.proj((pool.attention.q(pool.latent) @ key.transpose(1, 2) / 4).softmax(2) @ value)
    torch.testing.assert_close(pool(tokens), (x + pool.mlp(pool.norm(x)))[:, 0])


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="width is 40; expected a multiple of the 16 heads"):
        AttentivePool(40, heads=16)
    assert [AttentivePool(width, depth=1).heads for width in (192, 176, 40, 6)] == [16, 16, 8, 2]


def test_deeper_blocks_start_with_smaller_outputs() -> None:
    torch.manual_seed(0)
    pool = AttentivePool(64, depth=4)
    stds = [float(block.get_parameter("mlp.fc2.weight").detach().std()) for block in pool.blocks]
    expected = [0.02 / (2 * number) ** 0.5 for number in (2, 3, 4)]
    assert stds == pytest.approx(expected, rel=0.03)

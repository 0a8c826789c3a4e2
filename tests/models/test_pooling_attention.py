"""Pooling attention equals its definition, written out."""

import math

import pytest
import torch
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.pooling_attention import PoolingAttention, max_pool_tokens, select_positions


def attention(relative: tuple[int, int] | None, q_stride: int, kv_stride: int) -> PoolingAttention:
    torch.manual_seed(0)
    module = PoolingAttention(
        6, 8, 2, q_stride=q_stride, kv_stride=kv_stride, relative=relative, eps=1e-6
    ).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def written_out(module: PoolingAttention, x: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """One head and one pair of tokens at a time."""
    parts = module.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)  # (3, B, heads, N, 4)
    pooled, grids = [], []
    for tokens, pool in zip(parts, (module.pool_q, module.pool_k, module.pool_v), strict=True):
        if pool is None:
            pooled.append(tokens)
            grids.append(grid)
            continue
        clips = tokens[:, :, 1:].unflatten(2, grid).flatten(0, 1).permute(0, 4, 1, 2, 3)
        clips = functional.conv3d(clips, pool.pool.weight, None, pool.pool.stride, 1, 1, 4)
        grids.append(tuple(clips.shape[2:]))
        patches = clips.flatten(2).transpose(1, 2).unflatten(0, tokens.shape[:2])
        pooled.append(pool.norm_act(torch.cat([tokens[:, :, :1], patches], 2)))
    q, k, v = pooled
    scores = q @ k.transpose(2, 3) / math.sqrt(4)
    if module.is_relative:
        tables = [
            select_positions(table, n, m)
            for table, n, m in zip(
                (module.rel_pos_t, module.rel_pos_h, module.rel_pos_w), grids[0], grids[1], strict=True
            )
        ]
        places = [[*torch.cartesian_prod(*map(torch.arange, g))] for g in grids[:2]]
        for i, of_query in enumerate(places[0]):
            for j, of_key in enumerate(places[1]):
                vector = sum(table[a, b] for table, a, b in zip(tables, of_query, of_key, strict=True))
                scores[:, :, 1 + i, 1 + j] += q[:, :, 1 + i] @ vector
    out = scores.softmax(3) @ v
    if module.is_relative:
        out[:, :, 1:] += q[:, :, 1:]
    return module.project(out.transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("relative", "q_stride", "kv_stride"),
    [((2, 4), 1, 2), ((2, 4), 2, 1), ((4, 8), 2, 2), (None, 1, 2), (None, 2, 1)],
)
def test_outputs_and_gradients(relative, q_stride, kv_stride):
    module, grid = attention(relative, q_stride, kv_stride), (2, 4, 3)
    x = torch.randn(2, 25, 6, dtype=torch.double)
    weights = torch.randn(8, dtype=torch.double)
    results = []
    for run in (module, lambda x, grid: written_out(module, x, grid)):
        module.zero_grad()
        given = x.clone().requires_grad_()
        out = run(given, grid)
        (out.square() @ weights).sum().backward()
        results.append([out, given.grad, *(p.grad.clone() for p in module.parameters())])  # pyright: ignore
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected)


def test_relative_positions():
    table = torch.arange(7.0)[:, None]
    # Distance 0 is in the middle; the axis with fewer positions is stretched.
    assert select_positions(table, 4, 4)[..., 0].tolist() == [
        [3, 2, 1, 0],
        [4, 3, 2, 1],
        [5, 4, 3, 2],
        [6, 5, 4, 3],
    ]
    assert select_positions(table, 4, 2)[..., 0].tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    assert select_positions(table, 2, 4)[..., 0].tolist() == [[3, 2, 1, 0], [5, 4, 3, 2]]
    resized = select_positions(table, 2, 2)[..., 0]
    assert resized[0, 0] == 3
    assert resized[1, 0] - resized[0, 0] == pytest.approx(7 / 3)


def test_max_pooling_leaves_the_class_token():
    x = torch.randn(2, 1 + 2 * 4 * 3, 5)
    pooled = max_pool_tokens(x, (2, 4, 3), 2)
    clips = x[:, 1:].unflatten(1, (2, 4, 3)).permute(0, 4, 1, 2, 3)
    expected = functional.max_pool3d(clips, (1, 3, 3), (1, 2, 2), (0, 1, 1))
    torch.testing.assert_close(pooled[:, 1:], expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(pooled[:, 0], x[:, 0])


def test_heads_divide_the_channels():
    with pytest.raises(UserError, match="8 channels; expected a multiple of its 3 heads"):
        PoolingAttention(6, 8, 3, q_stride=1, kv_stride=1, relative=None, eps=1e-6)

"""Pooling attention of MViT and MViTv2: q, k and v are pooled over time and space before the attention.

Tokens are (B, 1 + t·h·w, channels): the class token, then the patch tokens, ordered by time, row and column.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.depthwise import convolve_depthwise
from mmaction_lite.models.fast.linear import Linear
from mmaction_lite.models.fast.linear_after import linear_after

STD = 0.02  # of the initial relative positions

Grid = tuple[int, int, int]
"""Number of tokens along time, height and width."""


class Pool(nn.Module):
    """Depthwise convolution over 3x3x3 tokens and a normalization, both shared by all heads.

    The class token is normalized, but not convolved.

    Args:
        width: channels of a head.
        stride: along height and width.
        eps: epsilon of the normalization.
    """

    def __init__(self, width: int, stride: int, eps: float) -> None:
        super().__init__()
        self.pool = nn.Conv3d(width, width, 3, (1, stride, stride), 1, groups=width, bias=False)
        self.norm_act = nn.Sequential(nn.LayerNorm(width, eps))

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """Map (B, 1 + t·h·w, heads, width) to (B, heads, 1 + tokens, width) and its grid."""
        batch_size, _, heads, width = x.shape
        # Frames in channels-last order, with the channels of all heads.
        frames = x[:, 1:].unflatten(1, grid).flatten(4, 5).flatten(0, 1).permute(0, 3, 1, 2)
        weight = self.pool.weight.repeat(heads, 1, 1, 1, 1)
        pooled = convolve_depthwise(frames, weight, None, self.pool.stride, batch_size)
        found: Grid = (grid[0], pooled.shape[2], pooled.shape[3])
        patches = pooled.permute(0, 2, 3, 1).reshape(batch_size, -1, heads, width)
        return self.norm_act(torch.cat([x[:, :1], patches], 1)).transpose(1, 2), found


class PoolingAttention(nn.Module):
    """Multi-head attention with pooled q, k and v.

    Args:
        width: channels of the input.
        out: channels of the output, a multiple of `heads`.
        heads: number of heads.
        q_stride: stride of the pooling of q along height and width.
        kv_stride: the same of k and v.
        relative: tokens along time and space for which the tables of relative positions are built, as in
            MViTv2, which also pools q at stride 1, and adds the pooled q to the output. None: none of these.
        eps: epsilon of the normalizations.

    Raises:
        UserError: `out` is not a multiple of `heads`.
    """

    def __init__(
        self,
        width: int,
        out: int,
        heads: int,
        *,
        q_stride: int,
        kv_stride: int,
        relative: tuple[int, int] | None,
        eps: float,
    ) -> None:
        super().__init__()
        if out % heads:
            raise UserError(f"the attention has {out} channels; expected a multiple of its {heads} heads")
        self.heads = heads
        self.qkv = Linear(width, 3 * out)
        self.project = nn.Sequential(Linear(out, out))
        dim = out // heads
        has_pool_q = relative is not None or q_stride > 1
        self.pool_q = Pool(dim, q_stride, eps) if has_pool_q else None
        self.pool_k = Pool(dim, kv_stride, eps)
        self.pool_v = Pool(dim, kv_stride, eps)
        self.strides = (q_stride, kv_stride)
        self.is_relative = relative is not None
        if relative is not None:
            self.build_positions(*relative)

    def build_positions(self, time: int, side: int) -> None:
        """Build tables of relative positions with initial values, in place; see `relative`."""
        like = self.pool_k.pool.weight
        length = 2 * max(1, *(side // stride for stride in self.strides)) - 1
        self.rel_pos_h = nn.Parameter(like.new_empty(length, len(like)))
        self.rel_pos_w = nn.Parameter(like.new_empty(length, len(like)))
        self.rel_pos_t = nn.Parameter(like.new_empty(2 * time - 1, len(like)))
        for table in (self.rel_pos_h, self.rel_pos_w, self.rel_pos_t):
            nn.init.trunc_normal_(table, std=STD)

    def forward(self, x: Tensor, grid: Grid, norm: nn.Module | None = None) -> Tensor:
        """Map tokens (B, 1 + t·h·w, width) of a grid to (B, 1 + tokens, out); `norm` normalizes them."""
        q, k, v = linear_after(norm, x, self.qkv).unflatten(2, (3, self.heads, -1)).unbind(2)
        k, k_grid = self.pool_k(k, grid)
        v, _ = self.pool_v(v, grid)
        q_grid = grid
        if self.pool_q is None:
            q = q.transpose(1, 2)
        else:
            q, q_grid = self.pool_q(q, grid)
        if self.is_relative:
            out = self.attend(q, k, v, q_grid, k_grid)
            out = torch.cat([out[:, :, :1], out[:, :, 1:] + q[:, :, 1:]], 2)
        else:
            out = functional.scaled_dot_product_attention(q, k, v)
        return self.project(out.transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, k_grid: Grid) -> Tensor:
        """Return the output of the attention with relative positions, of the shape of q.

        The score of a relative position depends on the place of the key along one axis. q gets one channel
        for each place, which holds this score, and k a 1 in the channels of its places. So the scores of the
        positions are a part of the product of q and k, and the fused kernels of PyTorch compute it without a
        matrix of all scores. v gets channels of zeros, because the kernels of CPUs need equal sizes.

        Args:
            q: (B, heads, 1 + queries, channels).
            k, v: (B, heads, 1 + keys, channels).
            q_grid: of the queries.
            k_grid: of the keys.
        """
        places, scale = sum(k_grid), q.shape[3] ** -0.5
        scores = self.position_scores(q, q_grid, k_grid)
        if q.is_meta:  # shapes only, so that operators are counted as published
            return functional.scaled_dot_product_attention(q, k, v)
        of_queries = functional.pad(scores / scale, (0, 0, 1, 0))
        of_keys = key_places(k_grid, k).expand(*k.shape[:2], -1, -1)
        q, k, v = torch.cat([q, of_queries], 3), torch.cat([k, of_keys], 3), functional.pad(v, (0, places))
        return functional.scaled_dot_product_attention(q, k, v, scale=scale)[..., :-places]

    def position_scores(self, q: Tensor, q_grid: Grid, k_grid: Grid) -> Tensor:
        """Return the scores of all places along time, height and width, (B, heads, queries, places)."""
        patches = q[:, :, 1:].unflatten(2, q_grid)
        tables = (self.rel_pos_t, self.rel_pos_h, self.rel_pos_w)
        axes = "thw"
        scores = [
            torch.einsum(
                f"bnthwc,{axis}kc->bnthwk", patches, select_positions(table.to(q.dtype), queries, keys)
            )
            for axis, table, queries, keys in zip(axes, tables, q_grid, k_grid, strict=True)
        ]
        return torch.cat(scores, 5).flatten(2, 4)


def key_places(grid: Grid, like: Tensor) -> Tensor:
    """Return the places of keys along time, height and width as 0 and 1, (1 + keys, places).

    The class token, which is the first key, has no place.
    """
    t, h, w = (torch.eye(length, dtype=like.dtype, device=like.device) for length in grid)
    parts = (
        t[:, None, None].expand(*grid, -1),
        h[None, :, None].expand(*grid, -1),
        w[None, None].expand(*grid, -1),
    )
    return functional.pad(torch.cat(parts, 3).flatten(0, 2), (0, 0, 1, 0))


def select_positions(table: Tensor, queries: int, keys: int) -> Tensor:
    """Return the relative positions of all pairs along one axis, (queries, keys, channels).

    Args:
        table: (2 · size - 1, channels); for another size than the larger of both numbers, it is resized
            linearly. Source: `get_rel_pos` and `cal_rel_pos_spatial` of PySlowFast.
        queries: number of queries along the axis.
        keys: number of keys. The axis with fewer positions is stretched to the other.
    """
    length = 2 * max(queries, keys) - 1
    if len(table) != length:
        table = functional.interpolate(table.t()[None], length, mode="linear")[0].t()
    of_query = torch.arange(queries, device=table.device) * max(keys / queries, 1.0)
    of_key = (torch.arange(keys, device=table.device) + (1.0 - keys)) * max(queries / keys, 1.0)
    return table[(of_query[:, None] - of_key).long()]


def max_pool_tokens(x: Tensor, grid: Grid, stride: int) -> Tensor:
    """Pool patch tokens (B, 1 + t·h·w, C) by their maximum over height and width; the class token stays."""
    frames = x[:, 1:].unflatten(1, grid).permute(0, 1, 4, 2, 3).flatten(0, 1)
    pooled = functional.max_pool2d(frames, stride + 1, stride, (stride + 1) // 2)
    pooled = pooled.unflatten(0, (-1, grid[0])).permute(0, 1, 3, 4, 2).flatten(1, 3)
    return torch.cat([x[:, :1], pooled], 1)

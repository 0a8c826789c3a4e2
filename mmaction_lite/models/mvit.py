"""MViT (Fan et al., arXiv:2104.11227) and MViTv2 (Li et al., arXiv:2112.01526).

Each of four stages halves height and width of the token grid and doubles the channels. Attention pools q, k
and v with depthwise convolutions over time and space. The class logits are a linear function of the
normalized class token. Parameters have the names of torchvision's implementation, except for the classifier
`head`. The networks map (B, 3, T, H, W) to logits (B, num_classes).
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.models.fast.linear import Linear
from mmaction_lite.models.fast.linear_after import linear_after
from mmaction_lite.models.pooling_attention import Grid, PoolingAttention, max_pool_tokens
from mmaction_lite.models.vit import TOKEN_STRIDE, DropPath, initialize, overlapping_embedding
from mmaction_lite.settings import PositiveInt, PositiveInts, Probability

EPS = 1e-6  # of all normalizations
KV_STRIDE = 8  # of the pooling of k and v in the first stage, in tokens along height and width
STD = 0.02  # of the initial weights of linear layers and positions


class PositionalEncoding(nn.Module):
    """Class token in front of the patch tokens, and the absolute positions of MViTv1.

    The position of a patch token is the sum of a temporal and a spatial part. For another number of tokens,
    the sums are resized trilinearly, as in PySlowFast.

    Args:
        width: channels.
        grid: tokens along time, height and width that have positions.
        absolute: whether there are absolute positions.
    """

    def __init__(self, width: int, grid: Grid, *, absolute: bool) -> None:
        super().__init__()
        self.absolute = absolute
        self.class_token = nn.Parameter(torch.empty(width))
        nn.init.trunc_normal_(self.class_token, std=STD)
        if absolute:
            self.class_pos = nn.Parameter(torch.empty(width))
            nn.init.trunc_normal_(self.class_pos, std=STD)
        self.build(grid)

    def build(self, grid: Grid) -> None:
        """Build the positions of a grid with initial values, in place."""
        self.grid = grid
        if self.absolute:
            t, h, w = grid
            self.spatial_pos = nn.Parameter(self.class_token.new_empty(h * w, len(self.class_token)))
            self.temporal_pos = nn.Parameter(self.class_token.new_empty(t, len(self.class_token)))
            nn.init.trunc_normal_(self.spatial_pos, std=STD)
            nn.init.trunc_normal_(self.temporal_pos, std=STD)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Map patch tokens (B, t·h·w, width) of a grid to (B, 1 + t·h·w, width)."""
        token = self.class_token
        if self.absolute:
            token = token + self.class_pos
            x = x + self.positions(grid).to(x.dtype)
        return torch.cat([token.to(x.dtype).expand(x.shape[0], 1, -1), x], 1)

    def positions(self, grid: Grid) -> Tensor:
        """Return the positions of the patch tokens of a grid, (t·h·w, width)."""
        table = (self.temporal_pos[:, None] + self.spatial_pos).unflatten(1, self.grid[1:])
        if grid != self.grid:
            clip = table.permute(3, 0, 1, 2)[None]
            table = functional.interpolate(clip, grid, mode="trilinear")[0].permute(1, 2, 3, 0)
        return table.flatten(0, 2)


class Mlp(nn.Sequential):
    """Two linear layers with a GELU between them; torchvision counts a dropout layer, which is not used.

    Args:
        width: channels of the input; the hidden layer has four times as many.
        out: channels of the output.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__(Linear(width, 4 * width), nn.GELU(), nn.Identity(), Linear(4 * width, out))

    def forward(self, input: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Map (..., width) to (..., out); `norm` normalizes the input."""
        return linear_after(self[1], linear_after(norm, input, self[0]), self[3])


class MultiscaleBlock(nn.Module):
    """Pre-norm transformer block with pooling attention.

    MViTv2 changes the number of channels in the attention, MViTv1 in the MLP. The linear layer `project` then
    maps the normalized input of this half of the block, and its output is the residual branch.

    Args:
        width: channels of the input.
        out: channels of the output.
        heads: number of attention heads.
        q_stride: stride of the pooling of q along height and width; 1: none.
        kv_stride: the same of k and v.
        relative: tokens along time and space for which the tables of relative positions are built; None: the
            block is that of MViTv1.
        drop_path: probability of dropping each of the two branches; see `DropPath`.
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
        drop_path: float,
    ) -> None:
        super().__init__()
        self.q_stride = q_stride
        self.is_v2 = relative is not None
        inner = out if self.is_v2 else width
        self.norm1 = nn.LayerNorm(width, EPS)
        self.norm2 = nn.LayerNorm(inner, EPS)
        self.attn = PoolingAttention(
            width, inner, heads, q_stride=q_stride, kv_stride=kv_stride, relative=relative, eps=EPS
        )
        self.mlp = Mlp(inner, out)
        self.project = None if width == out else Linear(width, out)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """Map tokens (B, 1 + t·h·w, width) of a grid, the class token first, to those of `out_grid`."""
        shortcut = x
        if self.project is not None and self.is_v2:
            normalized = self.norm1(x)
            shortcut = self.project(normalized)
            branch = self.attn(normalized, grid)
        else:
            branch = self.attn(x, grid, self.norm1)
        if self.q_stride > 1:
            shortcut = max_pool_tokens(shortcut, grid, self.q_stride)
        x = shortcut + self.drop_path(branch)
        if self.project is None or self.is_v2:
            return x + self.drop_path(self.mlp(x, self.norm2))
        normalized = self.norm2(x)
        return self.project(normalized) + self.drop_path(self.mlp(normalized))

    def out_grid(self, grid: Grid) -> Grid:
        """Return the grid of the output tokens for that of the input tokens."""
        return pooled_grid(grid, (1, self.q_stride, self.q_stride))


def pooled_grid(grid: tuple[int, ...], stride: tuple[int, int, int]) -> Grid:
    """Return the grid after a pooling or convolution with "same" padding."""
    t, h, w = (math.ceil(length / step) for length, step in zip(grid, stride, strict=True))
    return t, h, w


class MViT(nn.Module):
    """MViT and MViTv2.

    Clips may have any size. Tables of positions for another size than that of the clip are resized in each
    forward pass, as PySlowFast does.

    Args:
        width: channels of the first stage.
        depths: blocks of each stage.
        version: 1 or 2. Version 2 has relative instead of absolute positions, pools q in every block, adds
            the pooled q to the output of the attention, and changes the number of channels in the attention.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        drop_path: probability of dropping the branches of the last block; it rises linearly from 0 at the
            first block.
        frames: frames of the clips for which the tables of positions are built.
        crop: their height and width in pixels.
    """

    def __init__(
        self,
        width: int,
        depths: tuple[int, ...],
        version: int,
        *,
        num_classes: int,
        dropout: float,
        drop_path: float,
        frames: int,
        crop: int,
    ) -> None:
        super().__init__()
        is_v2 = version == 2
        side = max(1, crop // TOKEN_STRIDE[1])
        time = max(1, frames // TOKEN_STRIDE[0])
        self.conv_proj = overlapping_embedding(width)
        self.pos_encoding = PositionalEncoding(width, (time, side, side), absolute=not is_v2)
        stages = [stage for stage, depth in enumerate(depths) for _ in range(depth)]
        widths = [width * 2**stage for stage in stages]
        # In MViTv1 the last block of a stage has the channels of the next stage at its output.
        widths = [width, *widths] if is_v2 else [*widths, widths[-1]]
        self.blocks = nn.ModuleList()
        for number, (stage, (inner, out)) in enumerate(zip(stages, pairwise(widths), strict=True)):
            q_stride = 2 if stage and stages[number - 1] != stage else 1
            # The stride of k and v belongs to the input grid, which a pooling of q has not halved yet.
            kv_stride = max(1, KV_STRIDE // 2**stage)
            self.blocks.append(
                MultiscaleBlock(
                    inner,
                    out,
                    2**stage,
                    q_stride=q_stride,
                    kv_stride=kv_stride,
                    relative=(time, side) if is_v2 else None,
                    drop_path=drop_path * number / max(1, len(stages) - 1),
                )
            )
            side = max(1, side // q_stride)
        self.norm = nn.LayerNorm(widths[-1], EPS)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes)
        initialize(self, STD)

    def build_positions(self, time: int, side: int) -> dict[str, int]:
        """Build tables of positions with initial values, in place.

        Args:
            time: tokens of the first stage along time.
            side: its tokens along height and width.

        Returns:
            The builder arguments of these sizes; empty if the tables have them already.
        """
        if (time, side, side) == self.pos_encoding.grid:
            return {}
        arguments = {"frames": time * TOKEN_STRIDE[0], "crop": side * TOKEN_STRIDE[1]}
        self.pos_encoding.build((time, side, side))
        for block in self.blocks:
            assert isinstance(block, MultiscaleBlock)
            if block.is_v2:
                block.attn.build_positions(time, side)
            side = max(1, side // block.q_stride)
        return arguments

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """Return the number of tokens of the last block along time, height and width."""
        found = pooled_grid((frames, height, width), TOKEN_STRIDE)
        for block in self.blocks:
            found = block.out_grid(found)  # pyright: ignore[reportCallIssue]
        return found

    def encode(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the tokens of the last block (B, 1 + t·h·w, width), class token first."""
        x = self.conv_proj(x)
        grid: Grid = (x.shape[2], x.shape[3], x.shape[4])
        x = self.pos_encoding(x.flatten(2).transpose(1, 2), grid)
        for block in self.blocks:
            x = block(x, grid)
            grid = block.out_grid(grid)  # pyright: ignore[reportCallIssue]
        return x

    def tokens(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the normalized patch tokens, (B, t·h·w, width), in the order of `grid`."""
        return self.norm(self.encode(x)[:, 1:])

    def features(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the input of the classifier (B, 1, width): the normalized class token."""
        return self.norm(self.encode(x)[:, :1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, num_classes)."""
        return self.head(self.dropout(self.features(x)[:, 0]))

    def layers(self) -> list[nn.Module]:
        """Return the embedding of patches with positions, the blocks and the head; see `models.network`."""
        embedding = nn.ModuleList([self.conv_proj, self.pos_encoding])
        return [embedding, *self.blocks, nn.ModuleList([self.norm, self.head])]


def mvit_v1_base(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 96,
    depths: PositiveInts = (1, 2, 11, 2),
    drop_path: Probability = 0.0,
    frames: PositiveInt = 16,
    crop: PositiveInt = 224,
) -> MViT:
    """Build MViT-B 16x4; for the arguments see `MViT`. The published 32x3 has 32 frames."""
    return MViT(
        width,
        depths,
        1,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        frames=frames,
        crop=crop,
    )


def mvit_v2_small(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 96,
    depths: PositiveInts = (1, 2, 11, 2),
    drop_path: Probability = 0.0,
    frames: PositiveInt = 16,
    crop: PositiveInt = 224,
) -> MViT:
    """Build MViTv2-S 16x4; for the arguments see `MViT`."""
    return MViT(
        width,
        depths,
        2,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        frames=frames,
        crop=crop,
    )


def mvit_v2_base(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 96,
    depths: PositiveInts = (2, 3, 16, 3),
    drop_path: Probability = 0.0,
    frames: PositiveInt = 32,
    crop: PositiveInt = 224,
) -> MViT:
    """Build MViTv2-B 32x3; for the arguments see `MViT`."""
    return MViT(
        width,
        depths,
        2,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        frames=frames,
        crop=crop,
    )

"""Hiera, a hierarchical vision transformer (Ryali et al., ICML 2023, arXiv:2306.00989), for video.

Four stages of blocks work on fewer tokens with more channels each. Tokens are grouped in mask units of one
tubelet row and 8x8 patches. In the first two stages, a token attends to the tokens of its mask unit, and in
the last two to all tokens. Between stages, the maximum over 2x2 tokens reduces queries and residuals. There
are no relative positions and no class token. The class logits are a linear function of the normalized mean of
the tokens. The networks map (B, 3, T, H, W) to logits (B, num_classes).

Inside of the network, tokens are ordered by mask unit. The order within a mask unit has the tokens that are
pooled together at equal distances, so that pooling and attention in mask units are views of the tokens. After
the last pooling, one token per mask unit is left, and the order is time, row, column.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.linear import Linear
from mmaction_lite.models.fast.linear_after import linear_after
from mmaction_lite.models.vit import TOKEN_STRIDE, DropPath, Mlp, overlapping_embedding
from mmaction_lite.settings import PositiveInt, PositiveInts, Probability

STAGES = 4
POOLINGS = STAGES - 1
SIDE = 2**POOLINGS  # tokens along a side of a mask unit
UNIT = SIDE**2  # tokens of a mask unit in the first stage
POOLED = 4  # tokens that one pooling reduces to one
EPS = 1e-6
INITIAL_BIAS = 0.02
HEAD_SCALE = 0.001  # factor of the initial classifier


def pool_tokens(x: Tensor, unit: int) -> Tensor:
    """Return the maximum over 2x2 tokens: (..., tokens, C) to (..., tokens / 4, C).

    Args:
        x: tokens, ordered by mask unit.
        unit: tokens of a mask unit.
    """
    return x.unflatten(-2, (-1, POOLED, unit // POOLED)).amax(-3).flatten(-3, -2)


class HieraAttention(nn.Module):
    """Multi-head self-attention inside of mask units or over all tokens, with optional pooling of queries.

    Args:
        width: channels of the input.
        out: channels of the output, a multiple of `heads`.
        heads: number of heads.
        unit: tokens of a mask unit at the input.
        is_global: whether tokens attend to all tokens instead of those of their mask unit.
        is_pooled: whether the queries are pooled; see `pool_tokens`.
    """

    def __init__(
        self, width: int, out: int, heads: int, *, unit: int, is_global: bool, is_pooled: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.unit = unit
        self.is_global = is_global
        self.is_pooled = is_pooled
        self.qkv = Linear(width, 3 * out)
        self.proj = Linear(out, out)

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Map tokens (B, tokens, width) to (B, tokens or tokens / 4, out); `norm` normalizes them."""
        batch_size = x.shape[0]
        qkv = linear_after(norm, x, self.qkv)
        if not self.is_global:
            qkv = qkv.reshape(-1, self.unit, qkv.shape[2])
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.is_pooled:
            q = pool_tokens(q, self.unit)
        x = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(x.reshape(batch_size, -1, x.shape[2]))


class HieraBlock(nn.Module):
    """Pre-norm transformer block, which may pool the tokens and change their number of channels.

    Args:
        width: channels of the input.
        out: channels of the output. If it is another number, the residual is a linear function of the
            normalized input.
        heads: number of heads.
        unit: tokens of a mask unit at the input.
        is_global: see `HieraAttention`.
        is_pooled: whether queries and residual are pooled; see `pool_tokens`.
        drop_path: probability of dropping each of the two branches; see `DropPath`.
    """

    def __init__(
        self,
        width: int,
        out: int,
        heads: int,
        *,
        unit: int,
        is_global: bool,
        is_pooled: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.unit = unit
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = HieraAttention(width, out, heads, unit=unit, is_global=is_global, is_pooled=is_pooled)
        self.norm2 = nn.LayerNorm(out, EPS)
        self.mlp = Mlp(out, 4 * out)
        self.drop_path = DropPath(drop_path)
        self.proj = Linear(width, out) if is_pooled else None

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, tokens, width) to (B, tokens or tokens / 4, out)."""
        if self.proj is None:
            x = x + self.drop_path(self.attn(x, self.norm1))
        else:
            normed = self.norm1(x)
            x = pool_tokens(self.proj(normed), self.unit) + self.drop_path(self.attn(normed))
        return x + self.drop_path(self.mlp(x, self.norm2))


class HieraEmbedding(nn.Module):
    """Convert clips to tokens, one for every 2 frames and 4x4 pixels, ordered by mask unit.

    Args:
        width: channels of the tokens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = overlapping_embedding(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map clips (B, 3, T, H, W) to tokens (B, t·h·w, width)."""
        return unroll(self.proj(x).permute(0, 2, 3, 4, 1)).flatten(1, -2)


def unroll(x: Tensor) -> Tensor:
    """Order cells by mask unit: (B, T, H, W, C) to (B, T, H/8, W/8, 64, C).

    The index inside of a mask unit has the lowest bits of row and column first, which the first pooling
    reduces, and the highest bits last.
    """
    n, t, h, w, c = x.shape
    bits = (2,) * POOLINGS
    x = x.reshape(n, t, h // SIDE, *bits, w // SIDE, *bits, c)
    return x.permute(0, 1, 2, 6, 5, 9, 4, 8, 3, 7, 10).reshape(n, t, h // SIDE, w // SIDE, UNIT, c)


def roll(x: Tensor, units: tuple[int, int, int]) -> Tensor:
    """Order tokens by time, row and column: the inverse of `unroll`, after any number of poolings.

    Args:
        x: tokens (B, tokens, C), ordered by mask unit.
        units: mask units along time, height and width.

    Returns:
        (B, T, H, W, C).
    """
    n, num_tokens, c = x.shape
    t, rows, columns = units
    levels = (num_tokens // (t * rows * columns)).bit_length() // 2  # poolings to come
    x = x.reshape(n, t, rows, columns, *(2,) * (2 * levels), c)
    high_first = range(2 * levels - 2, -1, -2)
    order = [2, *(4 + bit for bit in high_first), 3, *(5 + bit for bit in high_first)]
    return x.permute(0, 1, *order, 4 + 2 * levels).reshape(n, t, rows << levels, columns << levels, c)


class Hiera(nn.Module):
    """Hiera with a classifier.

    Positions are trained, the sum of one for the place in a frame and one for the time. The size of clips is
    therefore that of the weights, and no other is accepted.

    Args:
        width: channels of the tokens in the first stage; they double with every stage.
        heads: heads in the first stage; they double with every stage.
        depths: number of blocks of each of the four stages.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        drop_path: probability of dropping the branches of the last block; it rises linearly from 0 at the
            first block.
        frames: frames of a clip.
        size: height and width of a clip in pixels.

    Raises:
        UserError: an argument does not fit.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        depths: tuple[int, ...],
        *,
        num_classes: int,
        dropout: float,
        drop_path: float,
        frames: int,
        size: int,
    ) -> None:
        super().__init__()
        _check_arguments(width, heads, depths, frames, size)
        self.clip = (frames, size, size)
        t, side = frames // TOKEN_STRIDE[0], size // TOKEN_STRIDE[1]
        self.units = (t, side // SIDE, side // SIDE)
        self.pos_embed_spatial = nn.Parameter(torch.zeros(1, side**2, width))
        self.pos_embed_temporal = nn.Parameter(torch.zeros(1, t, width))
        self.patch_embed = HieraEmbedding(width)
        self.blocks = nn.ModuleList()
        depth, unit = sum(depths), UNIT
        for stage, blocks in enumerate(depths):
            for block in range(blocks):
                is_pooled = stage > 0 and block == 0
                out = width * 2**stage
                self.blocks.append(
                    HieraBlock(
                        out // 2 if is_pooled else out,
                        out,
                        heads * 2**stage,
                        unit=unit,
                        # The first block of a stage attends as those of the stage before.
                        is_global=stage - is_pooled >= 2,
                        is_pooled=is_pooled,
                        drop_path=drop_path * len(self.blocks) / max(1, depth - 1),
                    )
                )
                unit = unit // POOLED if is_pooled else unit
        width *= 2**POOLINGS
        self.norm = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        self._initialize()

    after_tokens = ("norm",)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens of the last stage along time, height and width.

        Raises:
            UserError: clips have another size than that of the network.
        """
        if (frames, height, width) != self.clip:
            wanted = f"{self.clip[0]} frames of {self.clip[1]}x{self.clip[2]} pixels"
            raise UserError(
                f"clips have {frames} frames of {height}x{width} pixels; expected the {wanted} that the "
                "positions of the network are for. Change clip length and crop size, or train a network with "
                "other frames and size"
            )
        return self.units

    def tokens(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the tokens after the last block (B, t·h·w, 8·width), ordered by time,
        row and column.

        Raises:
            UserError: see `grid`.
        """
        self.grid(x.shape[2], x.shape[3], x.shape[4])
        x = self.patch_embed(x)
        x = x + self.positions().to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return x

    def positions(self) -> Tensor:
        """Return the positions of the tokens of the first stage, (tokens, width), ordered by mask unit."""
        side = self.units[1] * SIDE
        in_frame = unroll(self.pos_embed_spatial.unflatten(1, (1, side, side))).flatten(1, -2)
        return (self.pos_embed_temporal.transpose(0, 1) + in_frame).flatten(0, 1)

    def token_map(self, x: Tensor, clips: torch.Size) -> Tensor | None:
        """Return the output of the embedding or of a block as a feature map; see `models.network`.

        Args:
            x: (B, tokens, C), ordered by mask unit.
            clips: shape of the clips, (B, 3, T, H, W).
        """
        num_units = self.units[0] * self.units[1] * self.units[2]
        sizes = [num_units * POOLED**poolings for poolings in range(STAGES)]
        if x.ndim != 3 or x.shape[0] != clips[0] or x.shape[1] not in sizes:
            return None
        return roll(x, self.units).permute(0, 4, 1, 2, 3)

    def features(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the input of the classifier (B, 1, 8·width), the normalized mean of
        the tokens."""
        return self.norm(self.tokens(x).mean(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, num_classes)."""
        return self.head(self.dropout(self.features(x))).mean(1)

    def layers(self) -> list[nn.Module]:
        """Return the embedding, the blocks, and the head with its normalization; see `models.network`."""
        return [self.patch_embed, *self.blocks, nn.ModuleList([self.norm, self.head])]

    def _initialize(self) -> None:
        """Initialize as the original: weights normal with 0.02, all biases 0.02, classifier near zero."""
        for parameter in (self.pos_embed_spatial, self.pos_embed_temporal):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv3d):
                nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear | nn.LayerNorm):
                nn.init.constant_(module.bias, INITIAL_BIAS)
        with torch.no_grad():
            self.head.weight.mul_(HEAD_SCALE)
            self.head.bias.mul_(HEAD_SCALE)


def _check_arguments(width: int, heads: int, depths: tuple[int, ...], frames: int, size: int) -> None:
    if width % heads:
        raise UserError(f"width is {width}; expected a multiple of the {heads} heads")
    if len(depths) != STAGES:
        raise UserError(f"depths is {depths}; expected the number of blocks of each of the {STAGES} stages")
    if frames % TOKEN_STRIDE[0]:
        raise UserError(f"frames is {frames}; expected an even number")
    if size % (TOKEN_STRIDE[1] * SIDE):
        raise UserError(
            f"size is {size}; expected a multiple of {TOKEN_STRIDE[1] * SIDE} pixels, a mask unit"
        )


def hiera_base(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 96,
    heads: PositiveInt = 1,
    depths: PositiveInts = (2, 3, 16, 3),
    drop_path: Probability = 0.0,
    frames: PositiveInt = 16,
    size: PositiveInt = 224,
) -> Hiera:
    """Build Hiera-B; for the arguments see `Hiera`."""
    return Hiera(
        width,
        heads,
        depths,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        frames=frames,
        size=size,
    )


def hiera_base_plus(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 112,
    heads: PositiveInt = 2,
    depths: PositiveInts = (2, 3, 16, 3),
    drop_path: Probability = 0.0,
    frames: PositiveInt = 16,
    size: PositiveInt = 224,
) -> Hiera:
    """Build Hiera-B+; for the arguments see `Hiera`."""
    return Hiera(
        width,
        heads,
        depths,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        frames=frames,
        size=size,
    )


def hiera_large(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 144,
    heads: PositiveInt = 2,
    depths: PositiveInts = (2, 6, 36, 4),
    drop_path: Probability = 0.0,
    frames: PositiveInt = 16,
    size: PositiveInt = 224,
) -> Hiera:
    """Build Hiera-L; for the arguments see `Hiera`."""
    return Hiera(
        width,
        heads,
        depths,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        frames=frames,
        size=size,
    )

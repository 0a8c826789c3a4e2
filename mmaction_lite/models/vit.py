"""Parts of video transformers: tubelet embedding, pre-norm blocks with fused attention, sinusoid positions.

Tokens are (N, tokens, width), ordered by time, then row, then column. Parameters have the names of the
original ViT and VideoMAE implementations (`patch_embed.proj`, `attn.qkv`, `attn.proj`, `mlp.fc1`, `mlp.fc2`).
Under autocast, linear layers and attention run in bfloat16 or float16. `LayerNorm` computes in float32, as in
the published trainings; on processors only its output is rounded.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.linear import Linear, linear
from mmaction_lite.models.fast.linear_after import linear_after

TOKEN_STRIDE = (2, 4, 4)
"""Frames and pixels from one token of `overlapping_embedding` to the next."""

QkvBias = Literal["qkv", "qv", "none"]
"""Biases of the attention's input projection: all three, q and v only (VideoMAE), or none."""

Rotate = Callable[[Tensor], Tensor]
"""Rotary positions: maps q or k (N, heads, tokens, head_dim) to the same shape."""


class DropPath(nn.Module):
    """Stochastic depth: drop a residual branch for random samples in training (arXiv:1603.09382).

    Args:
        probability: of dropping the branch of a sample; the others are divided by 1 - probability.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, ...) to the same shape."""
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        mask = x.new_empty((x.shape[0], *[1] * (x.ndim - 1))).bernoulli_(keep)
        return x * (mask if keep == 0 else mask / keep)


class LayerScale(nn.Module):
    """Multiply every channel by a trained factor (Touvron et al., arXiv:2103.17239, section 2.1).

    Args:
        width: channels.
        initial: initial value of the factors.
    """

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), float(initial)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., width) to the same shape."""
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention with one projection to q, k and v (Vaswani et al., arXiv:1706.03762).

    Scores are divided by the square root of the head dimension.

    Args:
        width: channels, a multiple of `heads`.
        heads: number of heads.
        qkv_bias: see `QkvBias`. With "qv", the biases are the parameters `q_bias` and `v_bias`. A bias of k
            would shift all scores of a row equally, and the softmax cancels it.
        dropout: dropout probability of the attention weights and of the output.

    Raises:
        UserError: `width` is not a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int, *, qkv_bias: QkvBias = "qkv", dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width is {width}; expected a multiple of the {heads} heads")
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=qkv_bias == "qkv")
        if qkv_bias == "qv":
            self.q_bias = nn.Parameter(torch.zeros(width))
            self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = Linear(width, width)
        self.qkv_bias: QkvBias = qkv_bias
        self.dropout = dropout

    def forward(self, x: Tensor, rotate: Rotate | None = None, norm: nn.Module | None = None) -> Tensor:
        """Map tokens (N, tokens, width) to the same shape; `norm` normalizes them, `rotate` maps q and k."""
        q, k, v = self.project(x, rotate, norm)
        dropout = self.dropout if self.training else 0.0
        x = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        x = self.proj(x.transpose(1, 2).flatten(2))
        return functional.dropout(x, dropout) if dropout else x

    def project(self, x: Tensor, rotate: Rotate | None, norm: nn.Module | None = None) -> tuple[Tensor, ...]:
        """Return q, k and v, each (N, heads, tokens, head_dim); for the arguments see `forward`."""
        has_parts = self.qkv_bias == "qv"
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias]) if has_parts else None
        qkv = linear_after(norm, x, self.qkv, bias)
        q, k, v = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if rotate is None:
            return q, k, v
        # A view of v would keep the memory of q and k before the rotation until the backward pass.
        return rotate(q), rotate(k), v.clone() if qkv.requires_grad else v


class Mlp(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        width: channels of input and output.
        hidden: channels between the layers.
        activation: builds the activation.
        dropout: dropout probability of the output. The published networks have none inside.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        *,
        activation: Callable[[], nn.Module] = nn.GELU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.act = activation()
        self.fc2 = Linear(hidden, width)
        self.dropout = dropout

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Map (..., width) to the same shape; `norm` normalizes x."""
        x = linear_after(self.act, linear_after(norm, x, self.fc1), self.fc2)
        return functional.dropout(x, self.dropout, self.training) if self.dropout else x


class Block(nn.Module):
    """Pre-norm transformer block: x + attn(norm1(x)), then x + mlp(norm2(x)).

    Args:
        width: channels.
        heads: number of heads.
        hidden: channels inside of the MLP.
        activation: builds the activation of the MLP.
        eps: epsilon of both normalizations.
        qkv_bias: see `Attention`.
        drop_path: probability of dropping each of the two branches; see `DropPath`.
        layer_scale: initial value of `LayerScale` on both branches; None: no such layers.
        dropout: see `Attention` and `Mlp`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        hidden: int,
        activation: Callable[[], nn.Module] = nn.GELU,
        eps: float = 1e-6,
        qkv_bias: QkvBias = "qkv",
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads, qkv_bias=qkv_bias, dropout=dropout)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, hidden, activation=activation, dropout=dropout)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(width, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, rotate: Rotate | None = None) -> Tensor:
        """Map tokens (N, tokens, width) to the same shape; for `rotate` see `Attention`."""
        x = x + self.drop_path(self.ls1(self.attn(x, rotate, self.norm1)))
        return x + self.drop_path(self.ls2(self.mlp(x, self.norm2)))


class Tubelets(nn.Conv3d):
    """Convolution whose stride is its kernel: one linear map for every tubelet, faster than a convolution.

    Args:
        width: channels of the tokens.
        size: (frames, height, width) of a tubelet.
    """

    def __init__(self, width: int, size: tuple[int, int, int]) -> None:
        super().__init__(3, width, size, size)

    def forward(self, input: Tensor) -> Tensor:
        """Map clips (N, 3, T, H, W) to tokens (N, tokens, width)."""
        pt, ph, pw = self.kernel_size
        n, c, t, h, w = input.shape
        # Channels last, as decoded clips are stored: the copy moves runs of pw · 3 values.
        cells = input.permute(0, 2, 3, 4, 1).reshape(n, t // pt, pt, h // ph, ph, w // pw, pw, c)
        cells = cells.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, -1, pt * ph * pw * c)
        return linear(cells, self.weight.permute(0, 2, 3, 4, 1).flatten(1), self.bias)


class PatchEmbedding(nn.Module):
    """Convert clips to tokens, one for every tubelet.

    Args:
        width: channels of the tokens.
        size: (frames, height, width) of a tubelet.
    """

    def __init__(self, width: int, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.proj = Tubelets(width, size)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens along time, height and width for clips of this size.

        Raises:
            UserError: the size is not a multiple of that of a tubelet.
        """
        clip = (frames, height, width)
        if any(length % step or not length for length, step in zip(clip, self.size, strict=True)):
            raise UserError(
                f"clips have {frames} frames of {height}x{width} pixels; expected multiples of "
                f"{self.size[0]} frames and {self.size[1]}x{self.size[2]} pixels, the size of a token. "
                "Change clip length and crop size"
            )
        t, h, w = (length // step for length, step in zip(clip, self.size, strict=True))
        return t, h, w

    def forward(self, x: Tensor) -> Tensor:
        """Map clips (N, 3, T, H, W) to tokens (N, t·h·w, width)."""
        self.grid(x.shape[2], x.shape[3], x.shape[4])
        return self.proj(x)


def overlapping_embedding(width: int) -> nn.Conv3d:
    """Return the convolution from pixels to tokens of MViT, which Hiera took over.

    Tokens overlap: a token sees 3 frames and 7x7 pixels, and the distance of tokens is `TOKEN_STRIDE`. The
    convolution maps (B, 3, T, H, W) to (B, width, T / 2, H / 4, W / 4), rounded up.

    Args:
        width: channels of the tokens.
    """
    return nn.Conv3d(3, width, (3, 7, 7), TOKEN_STRIDE, (1, 3, 3))


def sinusoid_table(tokens: int, width: int) -> Tensor:
    """Return the fixed positions of VideoMAE, float32 (tokens, width), on the CPU.

    The position is the index of a token in the flattened sequence. Channel 2i is its sine, channel 2i + 1 its
    cosine, both of position / 10000^(2i / width), computed in float64. Source: `get_sinusoid_encoding_table`
    of MCG-NJU/VideoMAE.
    """
    exponents = torch.arange(width, dtype=torch.float64, device="cpu").div(2, rounding_mode="floor") * 2
    angles = torch.arange(tokens, dtype=torch.float64, device="cpu")[:, None] / 10000 ** (exponents / width)
    is_sine = torch.arange(width, device="cpu") % 2 == 0
    return torch.where(is_sine, angles.sin(), angles.cos()).float()


class SinusoidPositions(nn.Module):
    """Table of fixed positions; see `sinusoid_table`. It is a constant outside of the state dict.

    Args:
        tokens: tokens of the table. For more, the formula is evaluated in each forward pass.
        width: channels.

    Attributes:
        is_stored: whether the table is in the state dict, and no longer the published one; see `store`.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.table: Tensor
        self.register_buffer("table", sinusoid_table(tokens, width), persistent=False)
        self.is_stored = False

    def store(self) -> None:
        """Add the table to the state dict, in place."""
        self.register_buffer("table", self.table)
        self.is_stored = True

    def forward(self, tokens: int) -> Tensor:
        """Return the positions of the first tokens, (tokens, width).

        Raises:
            UserError: the table is stored, and has fewer.
        """
        if tokens <= len(self.table):
            return self.table[:tokens]
        if self.is_stored:
            raise UserError(
                f"clips have {tokens} tokens; expected at most the {len(self.table)} whose positions the "
                "weights store. Use fewer frames or smaller crops"
            )
        return sinusoid_table(tokens, self.table.shape[1]).to(self.table)


def initialize(module: nn.Module, std: float = 0.02) -> None:
    """Initialize linear layers in place: normal weights, truncated at ±2, and zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)

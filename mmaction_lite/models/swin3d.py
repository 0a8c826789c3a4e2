"""Video Swin Transformer (Liu et al., arXiv:2106.13230): attention in windows that shift between blocks.

Tokens are (B, T, H, W, C). Four stages of blocks with attention inside of windows follow each other; between
two stages, 2x2 tokens of a frame become one token with twice the channels. The networks map (B, 3, T, H, W)
to logits (B, num_classes). Every size of clips is accepted, because tokens are padded as in the published
implementations (`SwinTransformer/Video-Swin-Transformer`, torchvision and MMAction2, which compute the same).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.linear import Linear
from mmaction_lite.models.fast.linear_after import linear_after
from mmaction_lite.models.fast.window_attention import window_attention
from mmaction_lite.models.network import layer_modules
from mmaction_lite.models.vit import DropPath, Mlp, Tubelets, initialize
from mmaction_lite.settings import PositiveInt, PositiveInts, Probability

Size = tuple[PositiveInt, PositiveInt, PositiveInt]
"""Frames, height and width of a token in pixels, or of a window in tokens."""

HEAD_DIM = 32  # channels of an attention head
HEAD_STD = 0.01  # of the initial weights of the classifier


def clip_window(
    window: Sequence[int], grid: Sequence[int], is_shifted: bool
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Return the window and the shift for a grid of tokens.

    Along an axis with no more tokens than the window has, the window has the length of the axis and does not
    shift. Elsewhere the shift is half the window.

    Args:
        window: tokens of a window along time, height and width.
        grid: tokens along time, height and width.
        is_shifted: whether windows are shifted.
    """
    clipped = tuple(min(pair) for pair in zip(window, grid, strict=True))
    shift = tuple(
        side // 2 if is_shifted and length > side else 0 for side, length in zip(window, grid, strict=True)
    )
    return clipped, shift  # pyright: ignore[reportReturnType]


def pad_to_multiple(x: Tensor, size: Sequence[int]) -> Tensor:
    """Append zeros to the last axes but one of (..., T, H, W, C), up to multiples of `size`."""
    missing = [-length % side for length, side in zip(x.shape[-4:-1], size, strict=True)]
    if not any(missing):
        return x
    return functional.pad(x, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))


def relative_positions(window: Sequence[int], device: torch.device, tokens: int | None = None) -> Tensor:
    """Return the row of the bias table for each pair of tokens of a window, int64 (tokens, tokens).

    Args:
        window: tokens of the window along time, height and width.
        device: device of the result.
        tokens: number of first tokens to return the pairs of; None: all.
    """
    wt, wh, ww = window
    index = torch.arange(math.prod(window) if tokens is None else tokens, device=device)
    places = torch.stack([index // (wh * ww), index // ww % wh, index % ww])
    t, h, w = places[:, :, None] - places[:, None, :]
    return ((t + wt - 1) * (2 * wh - 1) + h + wh - 1) * (2 * ww - 1) + w + ww - 1


class WindowAttention(nn.Module):
    """Multi-head self-attention inside of windows, with a trained bias for every relative position.

    Args:
        width: channels, a multiple of `heads`.
        heads: number of heads.
        window: tokens of a window along time, height and width.
        is_shifted: shift the windows by half their size.

    Raises:
        UserError: `width` is not a multiple of `heads`.
    """

    def __init__(self, width: int, heads: int, window: Size, *, is_shifted: bool) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"width is {width}; expected a multiple of the {heads} heads")
        self.heads = heads
        self.window = window
        self.is_shifted = is_shifted
        rows = math.prod(2 * side - 1 for side in window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Map tokens (B, T, H, W, C) to the same shape; `norm` normalizes x."""
        grid = x.shape[1:4]
        window, shift = clip_window(self.window, grid, self.is_shifted)
        if any(length % side for length, side in zip(grid, window, strict=True)):
            qkv = self.qkv(pad_to_multiple(norm(x), window))
        else:
            qkv = linear_after(norm, x, self.qkv)
        x = window_attention(qkv, self.bias(math.prod(window)), self.heads, window, shift)
        return self.proj(x[:, : grid[0], : grid[1], : grid[2]])

    def bias(self, tokens: int) -> Tensor:
        """Return the bias of the scores, (heads, tokens, tokens).

        The bias of a smaller window is that of the first tokens of the whole window, in the order of the
        flattened index, as in the published implementations. If height or width is smaller, these are other
        places than those of the tokens.
        """
        table = self.relative_position_bias_table
        positions = relative_positions(self.window, table.device, tokens)
        return table[positions.flatten()].unflatten(0, (tokens, tokens)).permute(2, 0, 1)


class SwinBlock(nn.Module):
    """Pre-norm transformer block with attention in windows.

    Args:
        width: channels.
        heads: number of heads.
        window: see `WindowAttention`.
        is_shifted: see `WindowAttention`.
        drop_path: probability of dropping each of the two branches; see `DropPath`.
    """

    def __init__(self, width: int, heads: int, window: Size, *, is_shifted: bool, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window, is_shifted=is_shifted)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, H, W, C) to the same shape."""
        x = x + self.drop_path(self.attn(x, self.norm1))
        return x + self.drop_path(self.mlp(x, self.norm2))


class PatchMerging(nn.Module):
    """Combine 2x2 tokens of a frame to one token with twice the channels; odd sides are padded with zeros.

    Args:
        width: channels of the input.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, H, W, C) to (B, T, ⌈H / 2⌉, ⌈W / 2⌉, 2 C)."""
        x = pad_to_multiple(x, (1, 2, 2))
        b, t, h, w, c = x.shape
        x = x.reshape(b, t, h // 2, 2, w // 2, 2, c)
        # The four tokens in the order of the columns: top left, bottom left, top right, bottom right.
        x = x.permute(0, 1, 2, 4, 5, 3, 6).reshape(b, t, h // 2, w // 2, 4 * c)
        return linear_after(self.norm, x, self.reduction)


class Stage(nn.Module):
    """Blocks on tokens of one size, and the merging before the next stage.

    Args:
        blocks: the blocks.
        downsample: the merging; None after the last stage.
    """

    def __init__(self, blocks: Sequence[SwinBlock], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, H, W, C) to those of the next stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class SwinEmbedding(nn.Module):
    """Convert clips to normalized tokens, one for every tubelet; clips are padded with zeros at their ends.

    Args:
        width: channels of the tokens.
        size: (frames, height, width) of a tubelet.
    """

    def __init__(self, width: int, size: Size) -> None:
        super().__init__()
        self.size = size
        self.proj = Tubelets(width, size)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map clips (N, 3, T, H, W) to tokens (N, t, h, w, width)."""
        missing = [-length % side for length, side in zip(x.shape[2:], self.size, strict=True)]
        if any(missing):
            x = functional.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))
        grid = [length // side for length, side in zip(x.shape[2:], self.size, strict=True)]
        return self.norm(self.proj(x)).unflatten(1, grid)


class VideoSwin(nn.Module):
    """Video Swin Transformer with a classifier.

    Args:
        width: channels of the tokens in the first stage; they double from stage to stage.
        depths: blocks of each stage. Every second block of a stage shifts its windows.
        heads: attention heads of the first stage, which double like the channels; None: one for every 32
            channels, at least one.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        drop_path: probability of dropping the branches of the last block; it rises linearly from 0 at the
            first block.
        window: tokens of a window along time, height and width; see `clip_window`.
        patch: frames, height and width of a token in pixels.

    Raises:
        UserError: `width` is not a multiple of `heads`.
    """

    def __init__(
        self,
        width: int,
        depths: PositiveInts,
        heads: int | None,
        *,
        num_classes: int,
        dropout: float,
        drop_path: float,
        window: Size,
        patch: Size,
    ) -> None:
        super().__init__()
        self.patch_embed = SwinEmbedding(width, patch)
        heads = heads or max(1, width // HEAD_DIM)
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        self.stages = nn.ModuleList()
        for number, depth in enumerate(depths):
            scale = 2**number
            blocks = [
                SwinBlock(
                    scale * width,
                    scale * heads,
                    window,
                    is_shifted=index % 2 == 1,
                    drop_path=next(rates),
                )
                for index in range(depth)
            ]
            is_last = number == len(depths) - 1
            self.stages.append(Stage(blocks, None if is_last else PatchMerging(scale * width)))
        width *= 2 ** (len(depths) - 1)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        initialize(self)
        nn.init.normal_(self.head.weight, std=HEAD_STD)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens of the last stage along time, height and width."""
        clip = zip((frames, height, width), self.patch_embed.size, strict=True)
        t, h, w = (math.ceil(length / side) for length, side in clip)
        scale = 2 ** (len(self.stages) - 1)
        return t, math.ceil(h / scale), math.ceil(w / scale)

    def tokens(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the normalized tokens of the last stage, (B, t·h·w, D); see `grid`."""
        x = self.patch_embed(x)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x).flatten(1, 3)

    def token_map(self, x: Tensor, clips: torch.Size) -> Tensor | None:
        """Return the output of a layer (B, t, h, w, C) as a feature map; see `models.network`."""
        if x.ndim != 5 or x.shape[:2] != (clips[0], math.ceil(clips[2] / self.patch_embed.size[0])):
            return None
        return x.permute(0, 4, 1, 2, 3)

    def features(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the input of the classifier (B, 1, D): the mean of the tokens."""
        return self.tokens(x).mean(1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, num_classes)."""
        return self.head(self.dropout(self.features(x))).mean(1)

    def layers(self) -> list[nn.Module]:
        """Return the patch embedding, the blocks and mergings, and the head; see `models.network`.

        The last normalization belongs to the last block, because the published trainings have a smaller
        learning rate below the classifier.
        """
        parts = [part for stage in self.stages for part in stage.children()]  # blocks, and a merging
        inner = [layer for part in parts for layer in layer_modules(part)]
        return [self.patch_embed, *inner[:-1], nn.ModuleList([inner[-1], self.norm]), self.head]


def swin3d_tiny(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 96,
    depths: PositiveInts = (2, 2, 6, 2),
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    window: Size = (8, 7, 7),
    patch: Size = (2, 4, 4),
) -> VideoSwin:
    """Build Video Swin-T, for clips of 32 frames; for the arguments see `VideoSwin`."""
    return VideoSwin(
        width,
        depths,
        heads,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        window=window,
        patch=patch,
    )


def swin3d_small(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 96,
    depths: PositiveInts = (2, 2, 18, 2),
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    window: Size = (8, 7, 7),
    patch: Size = (2, 4, 4),
) -> VideoSwin:
    """Build Video Swin-S, for clips of 32 frames; for the arguments see `VideoSwin`."""
    return swin3d_tiny(num_classes, dropout, width, depths, heads, drop_path, window, patch)


def swin3d_base(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 128,
    depths: PositiveInts = (2, 2, 18, 2),
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    window: Size = (8, 7, 7),
    patch: Size = (2, 4, 4),
) -> VideoSwin:
    """Build Video Swin-B, for clips of 32 frames; for the arguments see `VideoSwin`.

    The published network for Something-Something v2 has a window of (16, 7, 7).
    """
    return swin3d_tiny(num_classes, dropout, width, depths, heads, drop_path, window, patch)

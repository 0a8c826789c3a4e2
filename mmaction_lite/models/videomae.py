"""VideoMAE (Tong et al., arXiv:2203.12602) and VideoMAE V2 (Wang et al., arXiv:2303.16727).

Both are the same network, a plain ViT on tubelets. Positions are a fixed sinusoid table over the flattened
index of the tokens. The class logits are a linear function of the normalized mean of the tokens after the
last block. The networks map (B, 3, T, H, W) to logits (B, num_classes).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from mmaction_lite.models.vit import Block, PatchEmbedding, SinusoidPositions, initialize
from mmaction_lite.settings import PositiveInt, Probability

Positions = Literal["sinusoid", "stored"]
"""Where the table of positions comes from: the published formula, or the state dict."""

TUBELET = 2  # frames of a token
PUBLISHED_TOKENS = 8 * 14 * 14  # of 16 frames of 224x224 pixels
HEAD_SCALE = 0.001  # factor of the initial weights of the classifier


def build_blocks(width: int, depth: int, heads: int | None = None, drop_path: float = 0.0) -> nn.ModuleList:
    """Return the blocks of an encoder or decoder; for the arguments see `VideoMAE`."""
    return nn.ModuleList(
        Block(
            width,
            heads or max(1, width // 64),
            hidden=4 * width,
            eps=1e-6,
            qkv_bias="qv",
            drop_path=drop_path * number / max(1, depth - 1),
        )
        for number in range(depth)
    )


class VideoMAE(nn.Module):
    """Encoder of VideoMAE with a classifier.

    A table of positions for more tokens continues the published one, and for fewer tokens it is the beginning
    of it: the position of a token is its index in the sequence of all tokens of the clip. Clips of another
    size than that of the initial weights therefore have a different position for the same place in a frame,
    to which a training must adapt.

    Args:
        width: channels of the tokens, a multiple of `heads`.
        depth: number of blocks.
        heads: number of attention heads; None: one for every 64 channels, at least one.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        drop_path: probability of dropping the branches of the last block; it rises linearly from 0 at the
            first block.
        patch: side of a token in pixels.
        positions: "sinusoid": the published table, which is not in the state dict. "stored": a table of 1568
            positions in the state dict, for files with another table; longer clips are refused.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int | None,
        *,
        num_classes: int,
        dropout: float,
        drop_path: float,
        patch: int,
        positions: Positions,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(width, (TUBELET, patch, patch))
        self.positions = SinusoidPositions(PUBLISHED_TOKENS, width)
        if positions == "stored":
            self.positions.store()
        self.blocks = build_blocks(width, depth, heads, drop_path)
        self.fc_norm = nn.LayerNorm(width, 1e-6)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        initialize(self)
        with torch.no_grad():
            self.head.weight.mul_(HEAD_SCALE)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens along time, height and width; see `PatchEmbedding.grid`."""
        return self.patch_embed.grid(frames, height, width)

    after_tokens = ("fc_norm",)

    def tokens(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the tokens after the last block, (B, t·h·w, width), in the order of `grid`.

        Raises:
            UserError: see `PatchEmbedding.grid` and `SinusoidPositions`.
        """
        x = self.patch_embed(x)
        x = x + self.positions(x.shape[1]).to(x.dtype)
        for block in self.blocks:
            x = block(x)
        return x

    def features(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the input of the classifier (B, 1, width): normalized mean of the tokens."""
        return self.fc_norm(self.tokens(x).mean(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, num_classes)."""
        return self.head(self.dropout(self.features(x))).mean(1)

    def layers(self) -> list[nn.Module]:
        """Return the patch embedding, the blocks and the head; see `models.network`.

        `fc_norm` belongs to the head, as in the layer-wise learning rates of the published trainings.
        """
        return [self.patch_embed, *self.blocks, nn.ModuleList([self.fc_norm, self.head])]


def videomae_small(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 384,
    depth: PositiveInt = 12,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    patch: PositiveInt = 16,
    positions: Positions = "sinusoid",
) -> VideoMAE:
    """Build VideoMAE on ViT-S/16, for clips of 16 frames; for the arguments see `VideoMAE`."""
    return VideoMAE(
        width,
        depth,
        heads,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        patch=patch,
        positions=positions,
    )


def videomae_base(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 768,
    depth: PositiveInt = 12,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    patch: PositiveInt = 16,
    positions: Positions = "sinusoid",
) -> VideoMAE:
    """Build VideoMAE on ViT-B/16, for clips of 16 frames; for the arguments see `VideoMAE`."""
    return VideoMAE(
        width,
        depth,
        heads,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        patch=patch,
        positions=positions,
    )


def videomae_large(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    width: PositiveInt = 1024,
    depth: PositiveInt = 24,
    heads: PositiveInt | None = None,
    drop_path: Probability = 0.0,
    patch: PositiveInt = 16,
    positions: Positions = "sinusoid",
) -> VideoMAE:
    """Build VideoMAE on ViT-L/16, for clips of 16 frames; for the arguments see `VideoMAE`."""
    return VideoMAE(
        width,
        depth,
        heads,
        num_classes=num_classes,
        dropout=dropout,
        drop_path=drop_path,
        patch=patch,
        positions=positions,
    )

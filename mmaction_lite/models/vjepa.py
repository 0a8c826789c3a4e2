"""V-JEPA 2 and V-JEPA 2.1 (Assran et al., arXiv:2506.09985; arXiv:2603.14482): encoder and attentive probe.

The encoders are plain video transformers with rotary positions, trained without labels. The classifier is the
attentive probe of the authors on the tokens of the encoder. Parameters have the names of the published files,
with the prefixes `encoder.` and `pooler.`; the linear layer is `head`.

V-JEPA 2 and 2.1 are two forms: 2.1 has other rotary angles (see `rotary`), a trained vector for each kind of
input (video or image), another embedding of single frames, and four output normalizations. Weights of one
form are not weights of the other.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.attentive_pool import AttentivePool, rescale_residuals
from mmaction_lite.models.rotary import interleaved_rotation, part_of_head, tiled_rotation
from mmaction_lite.models.vit import Block, PatchEmbedding, initialize

Version = Literal["2", "2.1"]
PATCH = 16  # pixels
TUBELET = 2  # frames
EPS = 1e-6  # of the normalizations of the encoder
# Layers after which the four output normalizations of V-JEPA 2.1 apply, by depth.
LEVELS_OF_DEPTH = {
    12: (2, 5, 8, 11),
    24: (5, 11, 17, 23),
    40: (9, 19, 29, 39),
    48: (11, 23, 37, 47),
}


class VJepaEncoder(nn.Module):
    """Encoder of V-JEPA 2 or 2.1.

    The parameters of 2.1 for images, and those of the first three output normalizations, are not trained.

    Args:
        width: channels of the tokens.
        depth: number of blocks.
        heads: number of heads.
        hidden: channels inside of the MLPs.
        version: "2" or "2.1".
        levels: blocks, from 0, whose tokens are the output, each through the output normalization. Only for
            version "2". Empty: those of the last block.
        drop_path: see `vit.Block`; it increases linearly from 0 in the first block to this value in the last.

    Raises:
        UserError: `width`, `heads` or `levels` do not fit.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        hidden: int,
        version: Version,
        levels: tuple[int, ...] = (),
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        is_first = version == "2"
        if levels and (not is_first or list(levels) != sorted(set(levels)) or levels[-1] != depth - 1):
            raise UserError(
                f"levels is {levels}; expected ascending numbers of blocks that end with the last one, "
                f"{depth - 1}, and none for V-JEPA 2.1"
            )
        part_of_head(width // heads)  # raises an error before the forward pass
        if not is_first:
            self.img_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
            self.video_mod_embed = nn.Parameter(torch.zeros(1, 1, width))
        self.patch_embed = PatchEmbedding(width, (TUBELET, PATCH, PATCH))
        if not is_first:
            self.patch_embed_img = PatchEmbedding(width, (1, PATCH, PATCH))
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                hidden=hidden,
                eps=EPS,
                drop_path=drop_path * number / max(depth - 1, 1),
            )
            for number in range(depth)
        )
        if is_first:
            self.norm = nn.LayerNorm(width, EPS)
        else:
            self.norms_block = nn.ModuleList(nn.LayerNorm(width, EPS) for _ in range(4))
        self.heads = heads
        self.head_dim = width // heads
        self.version: Version = version
        self.levels = levels or (depth - 1,)
        self._initialize()

    def forward(self, x: Tensor) -> Tensor:
        """Map clips (N, 3, T, H, W) to normalized tokens (N, tokens, width).

        Tokens are ordered by time, row and column; with several `levels`, those of the first one come first.
        V-JEPA 2.1 takes a clip of one frame as an image.

        Raises:
            UserError: T is odd (except for T = 1 of V-JEPA 2.1), or H or W is no multiple of 16.
        """
        if self.version == "2":
            return torch.cat([self.norm(level) for level in self._run(x, self.levels)], dim=1)
        (last,) = self._run(x, self.levels)
        return self.norms_block[3](last)

    def hierarchical(self, x: Tensor) -> Tensor:
        """Map clips to the tokens of the four levels of V-JEPA 2.1, joined on the channels.

        Returns:
            (N, tokens, 4 · width), ordered by level.

        Raises:
            UserError: see `forward`; or the encoder is V-JEPA 2, which has one output normalization.
        """
        if self.version == "2":
            raise UserError("V-JEPA 2 has no hierarchical output; expected an encoder of V-JEPA 2.1")
        depth = len(self.blocks)
        quarters = tuple(max((level + 1) * depth // 4 - 1, 0) for level in range(4))
        found = self._run(x, LEVELS_OF_DEPTH.get(depth, quarters))
        return torch.cat([norm(level) for norm, level in zip(self.norms_block, found, strict=True)], dim=2)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens along time, height and width for clips of this size.

        Raises:
            UserError: see `forward`.
        """
        return self._embedding(frames).grid(frames, height, width)

    def _initialize(self) -> None:
        initialize(self)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]
        for number, block in enumerate(self.blocks, 1):
            rescale_residuals(block, number)
        if self.version == "2.1":
            nn.init.normal_(self.img_mod_embed, std=1e-6)
            nn.init.normal_(self.video_mod_embed, std=1e-6)
            # No part of the logits of a video. Gradients of several processes are averaged for all trained
            # parameters, so these are not trained.
            unused = [
                self.img_mod_embed,
                *self.patch_embed_img.parameters(),
                *self.norms_block[:3].parameters(),
            ]
            for parameter in unused:
                parameter.requires_grad_(False)

    def _embedding(self, frames: int) -> PatchEmbedding:
        return self.patch_embed_img if frames == 1 and self.version == "2.1" else self.patch_embed

    def _run(self, x: Tensor, levels: tuple[int, ...]) -> list[Tensor]:
        """Return the tokens after some blocks, not normalized, in the order of `levels`."""
        frames, height, width = x.shape[2:]
        grid = self.grid(frames, height, width)
        x = self._embedding(frames)(x)
        if self.version == "2":
            rotate = tiled_rotation(grid, self.head_dim, x)
        else:
            rotate = interleaved_rotation(grid, self.head_dim, x)
            x = x + (self.img_mod_embed if frames == 1 else self.video_mod_embed)
        found = {}
        for number, block in enumerate(self.blocks):
            x = block(x, rotate)
            found[number] = x
        return [found[level] for level in levels]


class VJepa(nn.Module):
    """Encoder of V-JEPA, attentive pooler, dropout and linear classifier.

    Args:
        encoder: the encoder.
        pooler: maps tokens (N, tokens, width) to vectors (N, width).
        width: channels of the tokens.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        segments: parts of a clip that are encoded separately. The pooler gets the tokens of all parts. In the
            published tests, a clip has the frames of several windows of the video.
    """

    def __init__(
        self,
        encoder: VJepaEncoder,
        pooler: AttentivePool,
        width: int,
        num_classes: int,
        *,
        dropout: float,
        segments: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooler = pooler
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        self.segments = segments
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map clips (N, 3, T, H, W) to logits (N, num_classes)."""
        return self.head(self.dropout(self.features(x))).squeeze(1)

    def features(self, x: Tensor) -> Tensor:
        """Map clips (N, 3, T, H, W) to the input of the classifier (N, 1, width)."""
        return self.pooler(self.tokens(x)).unsqueeze(1)

    after_tokens = ("pooler",)

    def tokens(self, x: Tensor) -> Tensor:
        """Map clips (N, 3, T, H, W) to the tokens that the pooler gets (N, tokens, width).

        Raises:
            UserError: see `grid`.
        """
        if self.segments == 1:
            return self.encoder(x)
        self._check_segments(x.shape[2])
        parts = x.unflatten(2, (self.segments, -1)).transpose(1, 2).flatten(0, 1)
        return self.encoder(parts).unflatten(0, (-1, self.segments)).flatten(1, 2)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens along time, height and width for clips of this size.

        With several `levels` of the encoder, the first axis counts time and levels together.

        Raises:
            UserError: the number of frames is no multiple of the segments, or see `VJepaEncoder.forward`.
        """
        self._check_segments(frames)
        t, h, w = self.encoder.grid(frames // self.segments, height, width)
        return t * self.segments * len(self.encoder.levels), h, w

    def layers(self) -> list[nn.Module]:
        """Return embedding, blocks, pooler and head; see `models.network`."""
        encoder = self.encoder
        stem: nn.Module = encoder.patch_embed
        if encoder.version == "2.1":
            stem = nn.ModuleList([encoder.patch_embed, encoder.patch_embed_img])
        norms = [encoder.norm] if encoder.version == "2" else encoder.norms_block
        last = nn.ModuleList([encoder.blocks[-1], *norms])
        return [stem, *encoder.blocks[:-1], last, self.pooler, self.head]

    def _check_segments(self, frames: int) -> None:
        if frames % self.segments or not frames:
            raise UserError(
                f"clips have {frames} frames; expected a multiple of the {self.segments} segments of the "
                "network. Change the clip length, or segments"
            )


def build_vjepa(
    version: Version,
    shape: tuple[int, int, int | None, int],
    *,
    levels: tuple[int, ...] = (),
    num_classes: int,
    dropout: float,
    drop_path: float,
    segments: int,
    pool: tuple[int, int | None, float],
) -> VJepa:
    """Build a network.

    Args:
        version: see `VJepaEncoder`.
        shape: width, depth, heads (None: heads of 64 channels) and channels inside of the MLPs.
        levels: see `VJepaEncoder`.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        drop_path: see `VJepaEncoder`.
        segments: see `VJepa`.
        pool: depth, heads and epsilon of the pooler.
    """
    width, depth, heads, hidden = shape
    encoder = VJepaEncoder(
        width,
        depth,
        heads or max(1, width // 64),
        hidden=hidden,
        version=version,
        levels=levels,
        drop_path=drop_path,
    )
    pool_depth, pool_heads, pool_eps = pool
    pooler = AttentivePool(width, depth=pool_depth, heads=pool_heads, eps=pool_eps)
    return VJepa(encoder, pooler, width, num_classes, dropout=dropout, segments=segments)

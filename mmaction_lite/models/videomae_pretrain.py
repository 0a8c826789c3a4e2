"""Pre-training of VideoMAE without labels (Tong et al., arXiv:2203.12602, sections 3.2 to 3.4).

A tube mask hides the same places of all frames. The encoder sees the other tokens only, and a small decoder
predicts the hidden pixels. The networks map clips (B, 3, T, H, W) to the reconstruction error of each clip,
(B, 1), which the task `Reconstruction` minimizes. Parameters have the names of the published files.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.videomae import PUBLISHED_TOKENS, TUBELET, build_blocks
from mmaction_lite.models.vit import PatchEmbedding, SinusoidPositions
from mmaction_lite.settings import PositiveInt, Probability

Target = Literal["token", "clip"]
"""Pixels over which the mean and the standard deviation of the targets are computed, for each channel.

* "token": the pixels of one token, as published. All tokens count equally, also those of plain surfaces,
  whose differences are noise of the camera or of the compression.
* "clip": all hidden pixels of the clip. Large differences count most, such as those between objects and
  background. This is the published loss without normalization, up to a factor for each clip and channel.
"""

EVAL_SEED = 0  # of the masks in evaluation mode, which are the same for all clips


class MaskedEncoder(nn.Module):
    """Patch embedding, blocks and final normalization of the encoder; fine-tuning takes the first two.

    Args:
        width: channels of the tokens.
        depth: number of blocks.
        heads: number of attention heads; None: one for every 64 channels, at least one.
        patch: side of a token in pixels.
    """

    def __init__(self, width: int, depth: int, heads: int | None, patch: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(width, (TUBELET, patch, patch))
        self.positions = SinusoidPositions(PUBLISHED_TOKENS, width)
        self.blocks = build_blocks(width, depth, heads)
        self.norm = nn.LayerNorm(width, 1e-6)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the tokens at the positions `visible` (B, n), (B, n, width)."""
        x = self.patch_embed(x)
        x = _take(x + self.positions(x.shape[1]).to(x.dtype), visible)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class Decoder(nn.Module):
    """Blocks and a linear layer that predicts the pixels of tokens.

    Args:
        width: channels of the tokens.
        depth: number of blocks.
        outputs: values of a token.
    """

    def __init__(self, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.positions = SinusoidPositions(PUBLISHED_TOKENS, width)
        self.blocks = build_blocks(width, depth)
        self.norm = nn.LayerNorm(width, 1e-6)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor, num_hidden: int) -> Tensor:
        """Map all tokens (B, n, width), the hidden ones last, to predictions (B, num_hidden, outputs)."""
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -num_hidden:]))


class VideoMAEPretraining(nn.Module):
    """Masked autoencoder whose output is its own error.

    Args:
        width: channels of the encoder.
        depth: blocks of the encoder.
        heads: attention heads of the encoder; None: one for every 64 channels, at least one.
        decoder_width: channels of the decoder.
        decoder_depth: blocks of the decoder.
        mask_ratio: share of the places in a frame that are hidden in all frames.
        patch: side of a token in pixels.
        target: normalization of the pixels to predict, see `Target`.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int | None,
        *,
        decoder_width: int,
        decoder_depth: int,
        mask_ratio: float,
        patch: int,
        target: Target,
    ) -> None:
        super().__init__()
        self.encoder = MaskedEncoder(width, depth, heads, patch)
        self.encoder_to_decoder = nn.Linear(width, decoder_width, bias=False)
        self.decoder = Decoder(decoder_width, decoder_depth, 3 * TUBELET * patch * patch)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.mask_ratio = mask_ratio
        self.target: Target = target
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens along time, height and width; see `PatchEmbedding.grid`."""
        return self.encoder.patch_embed.grid(frames, height, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the mean squared error of the hidden normalized pixels, float32 (B, 1).

        The masks are random in training and fixed in evaluation mode.

        Raises:
            UserError: the mask hides no token or all of them.
        """
        visible, hidden = self.masks(len(x), self.grid(x.shape[2], x.shape[3], x.shape[4]), x.device)
        tokens = self.encoder_to_decoder(self.encoder(x, visible))
        positions = self.decoder.positions(visible.shape[1] + hidden.shape[1]).to(tokens.dtype)
        masked = self.mask_token.to(tokens.dtype) + positions[hidden]
        tokens = torch.cat([tokens + positions[visible], masked], 1)
        predicted = self.decoder(tokens, hidden.shape[1]).float()
        cells = _take(pixels_of_tokens(x, self.encoder.patch_embed.size).flatten(2), hidden)
        target = normalize(cells.unflatten(2, (-1, x.shape[1])), self.target).flatten(2)
        return (predicted - target).square().mean((1, 2))[:, None]

    def masks(
        self, batch_size: int, grid: tuple[int, int, int], device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return the positions of the visible and of the hidden tokens of each clip, int64 (B, n) each.

        Raises:
            UserError: one of them is empty.
        """
        t, h, w = grid
        places = h * w
        num_hidden = int(self.mask_ratio * places)
        if not 0 < num_hidden < places:
            raise UserError(
                f"mask_ratio is {self.mask_ratio:g}, which hides {num_hidden} of the {places} tokens of a "
                "frame; expected at least one hidden and one visible token. Use larger crops, a smaller "
                "patch, or another mask_ratio"
            )
        if self.training:
            order = torch.rand(batch_size, places, device=device).argsort(1)
        else:
            generator = torch.Generator().manual_seed(EVAL_SEED)
            order = torch.randperm(places, generator=generator, device="cpu").to(device)
            order = order.expand(batch_size, -1)
        time = torch.arange(t, device=device)[:, None] * places  # a tube: all frames hide the same places
        visible, hidden = (
            (time + part.sort(1)[0][:, None]).flatten(1)
            for part in (order[:, num_hidden:], order[:, :num_hidden])
        )
        return visible, hidden

    def layers(self) -> list[nn.Module]:
        """Return the patch embedding, the blocks of the encoder, and all that follows them."""
        rest = [self.encoder.norm, self.encoder_to_decoder, self.decoder]
        return [self.encoder.patch_embed, *self.encoder.blocks, nn.ModuleList(rest)]

    @property
    def head(self) -> nn.Module:
        """The linear layer that predicts pixels."""
        return self.decoder.head


def network_to_tune(builder: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the builder of the network that a pre-training is for, and its arguments.

    Args:
        builder: name of the builder of the pre-training.
        arguments: its arguments.
    """
    shared = ("width", "depth", "heads", "patch")
    return builder.replace("_pretrain", ""), {name: v for name, v in arguments.items() if name in shared}


def pixels_of_tokens(x: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Return the pixels of every token.

    Args:
        x: clips (B, 3, T, H, W).
        size: (frames, height, width) of a token.

    Returns:
        float32 (B, tokens, frames · height · width, 3).
    """
    n, c, t, h, w = x.shape
    pt, ph, pw = size
    cells = x.float().permute(0, 2, 3, 4, 1).reshape(n, t // pt, pt, h // ph, ph, w // pw, pw, c)
    return cells.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(n, -1, pt * ph * pw, c)


def normalize(pixels: Tensor, target: Target) -> Tensor:
    """Return pixels with mean 0 and standard deviation 1 in each channel, of each token or of the clip.

    The result does not depend on the normalization of the clip.

    Args:
        pixels: (B, tokens, pixels, 3).
        target: see `Target`.
    """
    std, mean = torch.std_mean(pixels, 2 if target == "token" else (1, 2), keepdim=True)
    return (pixels - mean) / (std + 1e-6)


def _take(x: Tensor, positions: Tensor) -> Tensor:
    """Return the tokens of `x` (B, n, width) at `positions` (B, m), (B, m, width)."""
    return x.gather(1, positions[..., None].expand(-1, -1, x.shape[2]))


def videomae_pretrain_small(
    num_classes: int = 1,
    width: PositiveInt = 384,
    depth: PositiveInt = 12,
    heads: PositiveInt | None = None,
    decoder_width: PositiveInt | None = None,
    decoder_depth: PositiveInt = 4,
    mask_ratio: Probability = 0.9,
    patch: PositiveInt = 16,
    target: Target = "token",
) -> VideoMAEPretraining:
    """Build the pre-training of `videomae_small`; for the arguments see `VideoMAEPretraining`.

    Args:
        num_classes: not used; the output is one number for each clip.
        decoder_width: None: half of `width`.
    """
    return VideoMAEPretraining(
        width,
        depth,
        heads,
        decoder_width=decoder_width or max(1, width // 2),
        decoder_depth=decoder_depth,
        mask_ratio=mask_ratio,
        patch=patch,
        target=target,
    )


def videomae_pretrain_base(
    num_classes: int = 1,
    width: PositiveInt = 768,
    depth: PositiveInt = 12,
    heads: PositiveInt | None = None,
    decoder_width: PositiveInt | None = None,
    decoder_depth: PositiveInt = 4,
    mask_ratio: Probability = 0.9,
    patch: PositiveInt = 16,
    target: Target = "token",
) -> VideoMAEPretraining:
    """Build the pre-training of `videomae_base`; for the arguments see `videomae_pretrain_small`."""
    return VideoMAEPretraining(
        width,
        depth,
        heads,
        decoder_width=decoder_width or max(1, width // 2),
        decoder_depth=decoder_depth,
        mask_ratio=mask_ratio,
        patch=patch,
        target=target,
    )


def videomae_pretrain_large(
    num_classes: int = 1,
    width: PositiveInt = 1024,
    depth: PositiveInt = 24,
    heads: PositiveInt | None = None,
    decoder_width: PositiveInt | None = None,
    decoder_depth: PositiveInt = 12,
    mask_ratio: Probability = 0.9,
    patch: PositiveInt = 16,
    target: Target = "token",
) -> VideoMAEPretraining:
    """Build the pre-training of `videomae_large`; for the arguments see `videomae_pretrain_small`."""
    return VideoMAEPretraining(
        width,
        depth,
        heads,
        decoder_width=decoder_width or max(1, width // 2),
        decoder_depth=decoder_depth,
        mask_ratio=mask_ratio,
        patch=patch,
        target=target,
    )

"""UniFormerV2 (Li et al., ICCV 2023, arXiv:2211.09552): an image transformer of CLIP for video.

Every frame passes the image transformer. After some of its last blocks, a temporal class token collects the
tokens of all frames by cross-attention, after a depthwise 3x3x3 convolution has added positions to them. The
input of the classifier is a trained mixture of the temporal class token and of the mean of the class tokens
of the frames. The form for Something-Something also has two local blocks in every block of the image
transformer, which convolve each patch over time, and a first convolution over three frames with stride 2. The
networks map (B, 3, T, H, W) to logits (B, num_classes).
"""

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.attentive_pool import CrossAttention
from mmaction_lite.models.fast.linear import Linear
from mmaction_lite.models.fast.quick_gelu import QuickGELU
from mmaction_lite.models.vit import Attention, DropPath, Mlp, initialize
from mmaction_lite.settings import PositiveInt, Probability

EPS = 1e-5
REDUCTION = 1.5  # of the channels inside of the local blocks


class LocalBlock(nn.Module):
    """Convolution of every patch over three time steps, between two linear layers.

    Its initial output is zero.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = int(width / REDUCTION)
        self.bn = nn.BatchNorm1d(width)
        self.reduce = Linear(width, inner)
        self.temporal = nn.Conv1d(inner, inner, 3, padding=1, groups=inner)
        self.expand = Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (B, T, patches, width) to the same shape."""
        x = self.reduce(self.bn(x.flatten(0, 2)).view_as(x))
        before, middle, after = self.temporal.weight[:, 0].unbind(1)
        y = x * middle
        if self.temporal.bias is not None:
            y = y + self.temporal.bias
        zero = torch.zeros_like(x[:, :1])
        y = y + torch.cat([zero, x[:, :-1]], 1) * before + torch.cat([x[:, 1:], zero], 1) * after
        return self.expand(y)


class UniBlock(nn.Module):
    """Block of the image transformer, with local blocks over time before and after the attention.

    Args:
        width: channels.
        heads: number of heads.
        is_local: whether the local blocks exist.
        drop_path: probability of dropping each of the branches; see `DropPath`.
    """

    def __init__(self, width: int, heads: int, *, is_local: bool, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width, 4 * width, activation=QuickGELU)
        self.local1 = LocalBlock(width) if is_local else None
        self.local2 = LocalBlock(width) if is_local else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Map tokens (B·T, 1 + patches, width) to the same shape; `frames` is T."""
        if self.local1 is not None:
            x = self._over_time(x, self.local1, frames)
        x = x + self.drop_path(self.attn(x, None, self.norm1))
        if self.local2 is not None:
            x = self._over_time(x, self.local2, frames)
        return x + self.drop_path(self.mlp(x, self.norm2))

    def _over_time(self, x: Tensor, local: LocalBlock, frames: int) -> Tensor:
        """Add the output of a local block to the patches."""
        patches = x[:, 1:].unflatten(0, (-1, frames))
        patches = patches + self.drop_path(local(patches))
        return torch.cat([x[:, :1], patches.flatten(0, 1)], 1)


class Extractor(nn.Module):
    """Update of the temporal class token: cross-attention to the tokens of all frames, then an MLP.

    Its initial output is the class token itself.

    Args:
        width: channels.
        heads: number of heads.
        dropout: dropout probability inside of the MLP.
        drop_path: see `UniBlock`.
    """

    def __init__(self, width: int, heads: int, *, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.dpe = nn.Conv3d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width, EPS)
        self.norm3 = nn.LayerNorm(width, EPS)
        self.attn = CrossAttention(width, heads, project=True)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.fc1 = Linear(width, 4 * width)
        self.act = QuickGELU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = Linear(4 * width, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, query: Tensor, x: Tensor, side: int) -> Tensor:
        """Map class tokens (B, 1, width) and tokens (B, T, 1 + side², width) to class tokens."""
        patches = x[:, :, 1:].permute(0, 3, 1, 2).unflatten(3, (side, side))
        positions = self.dpe(patches).flatten(3).permute(0, 2, 3, 1)
        tokens = torch.cat([x[:, :, :1], x[:, :, 1:] + positions], 2).flatten(1, 2)
        query = query + self.drop_path(self.attn(self.norm1(query), tokens, self.norm3))
        hidden = self.dropout(self.act(self.fc1(self.norm2(query))))
        return query + self.drop_path(self.fc2(hidden))


class Mixture(nn.Module):
    """Normalized mixture of the temporal class token and the mean of the class tokens of the frames.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.balance = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width, EPS)

    def forward(self, temporal: Tensor, frames: Tensor) -> Tensor:
        """Map two (B, 1, width) to (B, 1, width)."""
        share = self.balance.sigmoid()
        return self.norm((1 - share) * temporal + share * frames)


class UniFormerV2(nn.Module):
    """UniFormerV2 with a classifier.

    Positions in a frame are trained, so the size of frames is that of the weights. Clips may have any number
    of frames.

    Args:
        width: channels of the tokens, a multiple of `heads`.
        depth: blocks of the image transformer.
        heads: number of heads; None: one for every 64 channels, at least one.
        levels: number of last blocks after which the temporal class token is updated.
        local: whether every block has local blocks over time.
        stem: frames that the first convolution covers: 1, or 3 with stride 2.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        mlp_dropout: dropout probability inside of the MLPs that update the temporal class token.
        drop_path: probability of dropping the branches of the last block of the image transformer; it rises
            linearly from 0 at the first block.
        level_drop_path: the same for the updates of the temporal class token.
        patch: side of a token in pixels.
        size: height and width of frames in pixels.

    Raises:
        UserError: an argument does not fit.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int | None,
        *,
        levels: int,
        local: bool,
        stem: int,
        num_classes: int,
        dropout: float,
        mlp_dropout: float,
        drop_path: float,
        level_drop_path: float,
        patch: int,
        size: int,
    ) -> None:
        super().__init__()
        if stem not in (1, 3):
            raise UserError(f"stem is {stem}; expected 1 or 3 frames")
        if size % patch:
            raise UserError(f"size is {size}; expected a multiple of {patch} pixels, a token")
        if not 0 < levels <= depth:
            raise UserError(f"levels is {levels}; expected a number of blocks from 1 to {depth}")
        heads = heads or max(1, width // 64)
        self.size = size
        self.side = size // patch
        self.stride = 1 if stem == 1 else 2
        self.conv1 = nn.Conv3d(
            3, width, (stem, patch, patch), (self.stride, patch, patch), (stem // 2, 0, 0), bias=False
        )
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positions = nn.Embedding(1 + self.side**2, width)
        self.ln_pre = nn.LayerNorm(width, EPS)
        self.blocks = nn.ModuleList(
            UniBlock(width, heads, is_local=local, drop_path=drop_path * number / max(1, depth - 1))
            for number in range(depth)
        )
        self.temporal_token = nn.Embedding(1, width)
        self.extractors = nn.ModuleList(
            Extractor(
                width, heads, dropout=mlp_dropout, drop_path=level_drop_path * number / max(1, levels - 1)
            )
            for number in range(levels)
        )
        self.mixture = Mixture(width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, num_classes)
        self._initialize()

    @property
    def after_tokens(self) -> tuple[str, ...]:
        """Return the modules that patches do not pass on the way to `tokens`; see `models.network`."""
        updates = (f"extractors.{number}" for number in range(len(self.extractors)))
        return ("temporal_token", *updates, "mixture")

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Return the number of tokens along time, height and width.

        Raises:
            UserError: frames have another size than that of the network.
        """
        if (height, width) != (self.size, self.size):
            raise UserError(
                f"frames have {height}x{width} pixels; expected the {self.size}x{self.size} that the "
                "positions of the network are for. Change the crop size, or train a network with another size"
            )
        return (frames - 1) // self.stride + 1, self.side, self.side

    def tokens(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the patches after the last block (B, t·h·w, width), by time, row, column.

        Raises:
            UserError: see `grid`.
        """
        x, frames = self._embed(x)
        for block in self.blocks:
            x = block(x, frames)
        return x[:, 1:].unflatten(0, (-1, frames)).flatten(1, 2)

    def features(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the input of the classifier (B, 1, width)."""
        x, temporal = self._run(x)
        return self.mixture(temporal, x[:, :, 0].mean(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, num_classes)."""
        return self.head(self.dropout(self.features(x))).mean(1)

    def token_map(self, x: Tensor, clips: torch.Size) -> Tensor | None:
        """Return the output of a block as a feature map, without class tokens; see `models.network`.

        Args:
            x: (B·t, 1 + patches, width).
            clips: shape of the clips, (B, 3, T, H, W).
        """
        frames = self.grid(clips[2], clips[3], clips[4])[0]
        if x.ndim != 3 or x.shape[:2] != (clips[0] * frames, 1 + self.side**2):
            return None
        patches = x[:, 1:].unflatten(1, (self.side, self.side)).unflatten(0, (clips[0], frames))
        return patches.permute(0, 4, 1, 2, 3)

    def layers(self) -> list[nn.Module]:
        """Return stem, blocks, each with the update that follows it, and head; see `models.network`."""
        first = len(self.blocks) - len(self.extractors)
        layers: list[nn.Module] = [nn.ModuleList([self.conv1, self.positions, self.ln_pre])]
        layers += self.blocks[:first]
        for number, block in enumerate(self.blocks[first:]):
            tokens = [self.temporal_token] if number == 0 else []
            layers.append(nn.ModuleList([block, *tokens, self.extractors[number]]))
        return [*layers, nn.ModuleList([self.mixture, self.head])]

    def _embed(self, x: Tensor) -> tuple[Tensor, int]:
        """Return the tokens before the first block (B·t, 1 + patches, width), and t."""
        frames = self.grid(x.shape[2], x.shape[3], x.shape[4])[0]
        x = self.conv1(x).flatten(3).permute(0, 2, 3, 1).flatten(0, 1)
        classes = self.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([classes, x], 1) + self.positions.weight.to(x.dtype)
        return self.ln_pre(x), frames

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens after the last block (B, t, 1 + patches, width), and the temporal class token."""
        x, frames = self._embed(x)
        temporal = self.temporal_token.weight.to(x.dtype).expand(x.shape[0] // frames, 1, -1)
        first = len(self.blocks) - len(self.extractors)
        for number, block in enumerate(self.blocks):
            x = block(x, frames)
            if number >= first:
                extractor = self.extractors[number - first]
                temporal = extractor(temporal, x.unflatten(0, (-1, frames)), self.side)
        return x.unflatten(0, (-1, frames)), temporal

    def _initialize(self) -> None:
        """Initialize as the original, and linear layers without published initial values as those of ViT.

        The temporal class token, the outputs of the local blocks and of the updates of the temporal class
        token are zero, so the first logits are those of the mean of the class tokens of the frames.
        """
        initialize(self)
        nn.init.normal_(self.positions.weight, std=self.positions.embedding_dim**-0.5)
        nn.init.zeros_(self.temporal_token.weight)
        for module in self.modules():
            if isinstance(module, LocalBlock):
                nn.init.zeros_(module.expand.weight)
            elif isinstance(module, Extractor):
                nn.init.zeros_(module.dpe.bias)  # pyright: ignore[reportArgumentType]
                for linear in (module.attn.q, module.attn.kv, module.fc1):
                    nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(module.attn.get_parameter("proj.weight"))
                nn.init.zeros_(module.fc2.weight)


def uniformerv2_base(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 768,
    depth: PositiveInt = 12,
    heads: PositiveInt | None = None,
    levels: PositiveInt = 4,
    local: bool = False,
    stem: PositiveInt = 1,
    mlp_dropout: Probability = 0.5,
    drop_path: Probability = 0.0,
    level_drop_path: Probability = 0.0,
    patch: PositiveInt = 16,
    size: PositiveInt = 224,
) -> UniFormerV2:
    """Build UniFormerV2 on ViT-B/16; for the arguments see `UniFormerV2`.

    The form for Something-Something has `levels=8, local=True, stem=3`.
    """
    return UniFormerV2(
        width,
        depth,
        heads,
        levels=levels,
        local=local,
        stem=stem,
        num_classes=num_classes,
        dropout=dropout,
        mlp_dropout=mlp_dropout,
        drop_path=drop_path,
        level_drop_path=level_drop_path,
        patch=patch,
        size=size,
    )


def uniformerv2_large(
    num_classes: int = 400,
    dropout: Probability = 0.5,
    width: PositiveInt = 1024,
    depth: PositiveInt = 24,
    heads: PositiveInt | None = None,
    levels: PositiveInt = 4,
    local: bool = False,
    stem: PositiveInt = 1,
    mlp_dropout: Probability = 0.5,
    drop_path: Probability = 0.0,
    level_drop_path: Probability = 0.0,
    patch: PositiveInt = 14,
    size: PositiveInt = 224,
) -> UniFormerV2:
    """Build UniFormerV2 on ViT-L/14; for the arguments see `UniFormerV2`.

    The form for Something-Something has `levels=16, local=True, stem=3`.
    """
    return UniFormerV2(
        width,
        depth,
        heads,
        levels=levels,
        local=local,
        stem=stem,
        num_classes=num_classes,
        dropout=dropout,
        mlp_dropout=mlp_dropout,
        drop_path=drop_path,
        level_drop_path=level_drop_path,
        patch=patch,
        size=size,
    )

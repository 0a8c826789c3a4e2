"""Probes: a small classifier on the tokens of a frozen encoder, which is any network of the package.

A probe is trained on stored tokens, without its encoder. `Probe` joins both into one network that maps clips
to logits.

* `probe_linear`: linear classifier on the mean of the standardized tokens.
* `probe_attentive`: attentive probe of V-JEPA (Bardes et al., arXiv:2404.08471).
* `probe_map`: one attention pooling of SigLIP with frame positions, for encoders of single frames.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError, nearest, printable
from mmaction_lite.models.attentive_pool import HEADS, AttentivePool, MapPool, default_heads
from mmaction_lite.models.network import head, layers
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.tokens import Pool, pooled_tokens
from mmaction_lite.settings import PositiveInt, Probability

Arguments = tuple[tuple[str, Any], ...]
"""Arguments of a builder, as pairs of name and value, which a weights file can store."""

ENCODER = "tsm_r50"


class LinearHead(nn.Module):
    """Mean over the tokens, standardization, dropout and a linear classifier.

    The scale of tokens differs by orders of magnitude between encoders. `mean` and `std` are those of the
    training clips, see `standardize`, so that the same learning rates fit every encoder.

    Args:
        width: channels of the tokens.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
    """

    def __init__(self, width: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width, num_classes)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, tokens, width) to logits (B, num_classes)."""
        return self.fc(self.dropout((tokens.mean(1) - self.mean) / self.std))

    def standardize(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and standard deviation of the mean tokens of the training clips, each (width,)."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp_min(1e-6))


class PooledHead(nn.Module):
    """Attention pooling, dropout and a linear classifier.

    Args:
        pooler: maps tokens (B, tokens, width) to vectors (B, width).
        width: channels of the tokens.
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        norm: normalize the vectors before the classifier.
    """

    def __init__(
        self, pooler: nn.Module, width: int, num_classes: int, dropout: float = 0.0, *, norm: bool = False
    ) -> None:
        super().__init__()
        self.pooler = pooler
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, tokens, width) to logits (B, num_classes)."""
        return self.linear(self.dropout(self.norm(self.pooler(tokens))))


class Probe(nn.Module):
    """An encoder and the head of a probe.

    Args:
        encoder: network of the package; its classifier is removed.
        head: maps tokens (B, tokens, D) to logits (B, num_classes).
        pool: see `pooled_tokens`.
        frame_code: see `pooled_tokens`.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, pool: Pool = "none", frame_code: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.pool: Pool = pool
        self.frame_code = frame_code

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to logits (B, num_classes)."""
        return self.head(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Map (B, 3, T, H, W) to the input of the head, tokens (B, tokens, D)."""
        return pooled_tokens(self.encoder, x, self.pool, frame_code=self.frame_code)

    def layers(self) -> list[nn.Module]:
        """Return the layers of the encoder, then the head; see `models.network`."""
        return [*layers(self.encoder)[:-1], self.head]


class ProbeHeads(nn.Module):
    """Heads of one probe that are trained side by side, with different learning rates.

    Args:
        heads: heads of the same form.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, tokens, D) to the logits of all heads, (B, heads, num_classes)."""
        return torch.stack([head(tokens) for head in self.heads], 1)


def can_fold(model: nn.Module) -> bool:
    """Whether `optimize_for_inference` knows the layers of a network, or of the encoder of a probe."""
    return isinstance(model.encoder if isinstance(model, Probe) else model, Recognizer)


def independent_parts(model: nn.Module) -> list[nn.Module]:
    """Return the parts of a network that do not influence each other: the heads of `ProbeHeads`, or all."""
    return list(model.heads) if isinstance(model, ProbeHeads) else [model]


def remove_classifier(model: nn.Module) -> int:
    """Replace the classifier of a network by an identity, in place; return the number of its inputs.

    Networks with tokens name the modules between these and the classifier, such as a pooling, as
    `after_tokens`. They are replaced as well, because a probe classifies the tokens.

    Raises:
        UserError: the network has no linear classifier, see `models.network.head`.
    """
    found = head(model)
    linear = [module for module in found.modules() if isinstance(module, nn.Linear)]
    names = [name for name, module in model.named_modules() if module is found]
    if not linear or not names:
        raise UserError(
            f"{type(model).__name__}: has no linear classifier; expected an nn.Linear in its head"
        )
    for name in (names[0], *getattr(model, "after_tokens", ())):
        model.set_submodule(name, nn.Identity())
    return linear[-1].in_features


def without_unused(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights without those of modules that `remove_classifier` removes, which older probes stored."""
    encoder = model.encoder if isinstance(model, Probe) else None
    unused = tuple(f"encoder.{name}." for name in getattr(encoder, "after_tokens", ()))
    return {name: tensor for name, tensor in weights.items() if not name.startswith(unused)}


def build_encoder(name: str, arguments: Arguments = (), width: int | None = None) -> tuple[nn.Module, int]:
    """Build a network of the package without its classifier; return it with the channels of its tokens.

    Args:
        name: name of the builder.
        arguments: arguments of the builder, without `num_classes`.
        width: argument `width` of the builder; None: that of `arguments`, or its default.

    Raises:
        UserError: no network of the package has this name, or it is a probe.
        TypeError: the builder has no such argument.
    """
    given = {} if width is None else {"width": width}
    model = encoder_builder(name)(**dict(arguments) | given)
    return model, remove_classifier(model)


def heads_note(model: nn.Module) -> str:
    """Return a line if an attentive probe has fewer heads than the published ones; empty otherwise."""
    pooler = getattr(getattr(model, "head", None), "pooler", None)
    if not isinstance(pooler, AttentivePool) or pooler.heads == HEADS:
        return ""
    width = pooler.query_tokens.shape[2]
    return (
        f"the probe has {pooler.heads} attention heads instead of {HEADS}, because the tokens have {width} "
        "channels; --set model.heads=N chooses another divisor of them"
    )


def encoder_builder(name: str) -> Any:
    """Return the builder of an encoder.

    Raises:
        UserError: no network of the package has this name, or it is a probe or a pre-training.
    """
    from mmaction_lite import models  # imports this module

    names = [n for n in models.__all__ if not n.startswith("probe_") and not n.endswith("_for_inference")]
    names = [n for n in names if getattr(models, n) not in models.PRETRAINING]
    names.remove("tsn")  # takes a network of the user
    if name not in names:
        raise UserError(
            f"encoder: no network of the package is {printable(name, 100)!r}; {nearest(name, names)}"
        )
    return getattr(models, name)


def probe_linear(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    encoder: str = ENCODER,
    arguments: Arguments = (),
    width: PositiveInt | None = None,
    pool: Pool = "all",
) -> Probe:
    """Build an encoder with a linear classifier on the mean of its tokens.

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        encoder: name of the builder of the encoder.
        arguments: arguments of that builder, as pairs of name and value.
        width: argument `width` of that builder; None: its default.
        pool: axes over which tokens are averaged before they are stored. The head averages the others.
    """
    network, channels = build_encoder(encoder, arguments, width)
    return Probe(network, LinearHead(channels, num_classes, dropout), pool)


def probe_attentive(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    encoder: str = ENCODER,
    arguments: Arguments = (),
    width: PositiveInt | None = None,
    pool: Pool = "none",
    frame_code: bool = False,
    depth: PositiveInt = 4,
    heads: PositiveInt | None = None,
) -> Probe:
    """Build an encoder with the attentive probe of V-JEPA; see `AttentivePool`.

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        encoder: name of the builder of the encoder.
        arguments: arguments of that builder, as pairs of name and value.
        width: argument `width` of that builder; None: its default.
        pool: axes over which tokens are averaged before they are stored.
        frame_code: add the position in time to every token, see `pooled_tokens`. Needed for the order of
            frames if the encoder computes every frame separately.
        depth: number of blocks, the cross-attention included.
        heads: number of attention heads, which divides the channels; None: see `default_heads`.

    Raises:
        UserError: `heads` does not divide the channels.
    """
    network, channels = build_encoder(encoder, arguments, width)
    if heads is not None and channels % heads:
        raise UserError(
            f"probe_attentive: heads is {heads}, and the tokens of {encoder} have {channels} channels; "
            f"expected a divisor. Pass --set model.heads={default_heads(channels)}"
        )
    pooler = AttentivePool(channels, depth=depth, heads=heads)
    return Probe(network, PooledHead(pooler, channels, num_classes, dropout), pool, frame_code)


def probe_map(
    num_classes: int = 400,
    dropout: Probability = 0.0,
    encoder: str = ENCODER,
    arguments: Arguments = (),
    width: PositiveInt | None = None,
    pool: Pool = "none",
    frame_code: bool = True,
) -> Probe:
    """Build an encoder with one attention pooling of SigLIP, for encoders of single frames; see `MapPool`.

    Args:
        num_classes: number of classes.
        dropout: dropout probability before the classifier.
        encoder: name of the builder of the encoder.
        arguments: arguments of that builder, as pairs of name and value.
        width: argument `width` of that builder; None: its default.
        pool: axes over which tokens are averaged before they are stored.
        frame_code: add the position in time to every token, see `pooled_tokens`.
    """
    network, channels = build_encoder(encoder, arguments, width)
    head = PooledHead(MapPool(channels), channels, num_classes, dropout, norm=True)
    return Probe(network, head, pool, frame_code)


PROBES = (probe_linear, probe_attentive, probe_map)

"""LoRA: train small low-rank matrices beside frozen linear layers (Hu et al. 2021, arXiv:2106.09685)."""

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.fast.linear import Linear, linear
from mmaction_lite.models.network import head_layer
from mmaction_lite.settings import NOT_EMPTY, PositiveFloat, PositiveInt, at_least, below, check_fields

FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v")}
"""Linear layers that compute several projections of equal size, by name, in the order of their outputs."""


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Settings of low-rank adapters.

    The output of an adapted layer is `x Wᵀ + b + alpha / rank · dropout(x) Aᵀ Bᵀ`, with A of shape
    (rank, in_features) and B of shape (out_features, rank). A starts like the weight of an `nn.Linear`, B
    with zeros, so that training starts from the given network. Only the adapters and the classifier are
    trained.

    Args:
        rank: rank of each adapter.
        alpha: numerator of the factor of the adapter's output; None: twice the rank.
        dropout: dropout probability of the adapter's input.
        targets: linear layers to adapt, by the end of their names: "qkv", "proj", "fc1", "mlp.fc1" or
            "blocks.11.attn.proj". "q", "k" and "v" also select the parts of a fused layer "qkv" or "kv"; each
            part has an adapter of its own.
        norms: also train the weights and biases of all normalization layers.
    """

    rank: PositiveInt = 8
    alpha: PositiveFloat | None = None
    dropout: Annotated[float, at_least(0), below(1)] = 0.0
    targets: Annotated[tuple[str, ...], NOT_EMPTY] = ("q", "v")
    norms: bool = False

    def __post_init__(self):
        check_fields(self)

    @property
    def factor(self) -> float:
        """Return the factor of the adapter's output."""
        return 2.0 if self.alpha is None else self.alpha / self.rank


class LoRALinear(nn.Linear):
    """A linear layer with adapters; it shares weight and bias with the layer that it replaces.

    In evaluation mode the adapters are merged into the weight first, so that the output is bitwise equal to
    that of the merged layer.

    Args:
        linear: the layer to adapt.
        lora: settings.
        parts: which of the `num_parts` equal parts of the output have an adapter.
        num_parts: number of parts; 1 if the layer is not fused.
    """

    def __init__(self, linear: nn.Linear, lora: LoRA, parts: tuple[int, ...], num_parts: int) -> None:
        nn.Module.__init__(self)  # not that of `nn.Linear`, which would create another weight
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.weight = linear.weight
        self.bias = linear.bias
        self.parts = parts
        self.num_parts = num_parts
        self.factor = lora.factor
        self.dropout = lora.dropout
        options = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        rank, rows = lora.rank, linear.out_features // num_parts
        self.lora_a = nn.Parameter(torch.empty(len(parts), rank, linear.in_features, **options))
        self.lora_b = nn.Parameter(torch.zeros(len(parts), rows, rank, **options))
        for part in self.lora_a:
            nn.init.kaiming_uniform_(part, a=math.sqrt(5))

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        if not self.training:
            return linear(input, self.merged_weight(), self.bias)
        dropped = functional.dropout(input, self.dropout) if self.dropout else input
        low = functional.linear(dropped, self.lora_a.flatten(0, 1))
        return linear(input, self.weight, self.bias) + functional.linear(low, self._spread_b())

    def merged_weight(self) -> Tensor:
        """Return the weight of an `nn.Linear` that computes the same."""
        return self.weight + self._spread_b() @ self.lora_a.flatten(0, 1)

    def _spread_b(self) -> Tensor:
        """Return the matrices B times the factor, in one of shape (out_features, adapters · rank)."""
        num_adapters, rows, rank = self.lora_b.shape
        b = self.lora_b * self.factor
        if self.num_parts == 1:
            return b[0]
        blocks = [b.new_zeros(rows, num_adapters * rank)] * self.num_parts
        for i, part in enumerate(self.parts):
            blocks[part] = functional.pad(b[i], (i * rank, (num_adapters - 1 - i) * rank))
        return torch.cat(blocks)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{super().extra_repr()}, rank={self.lora_a.shape[1]}, parts={self.parts} of {self.num_parts}"


class Adapted(NamedTuple):
    """Result of `add_adapters`.

    Args:
        layers: number of adapted layers.
        adapters: parameters of the adapters.
        trained: all trained parameters: adapters, classifier and, if chosen, normalization.
        total: parameters of the network without adapters.
    """

    layers: int
    adapters: int
    trained: int
    total: int

    def __str__(self) -> str:
        megabyte = 12 / 2**20  # float32 gradient and two averages of AdamW
        return (
            f"LoRA: {self.layers} layers adapted; {self.trained:,} of {self.total:,} parameters trained "
            f"({self.adapters:,} in adapters); gradients and the state of AdamW take "
            f"{self.trained * megabyte:.1f} MiB instead of {self.total * megabyte:.1f}"
        )


def add_adapters(model: nn.Module, lora: LoRA) -> Adapted:
    """Add adapters to a network and freeze everything else but the classifier, in place.

    Args:
        model: the network with its initial weights. Parameters keep their names; those of the adapters are
            `<layer>.lora_a` and `<layer>.lora_b`.
        lora: settings.

    Raises:
        UserError: a target matches no linear layer below the classifier.
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    classifier = head_layer(model)
    found = _find_layers(model, lora, set(classifier.modules()))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    classifier.requires_grad_(True)
    if lora.norms:
        for module in model.modules():
            if _is_norm(module):
                module.requires_grad_(True)
    adapters = 0
    for name, (parts, num_parts) in found.items():
        parent, _, child = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        adapted = LoRALinear(linear, lora, parts, num_parts).train(linear.training)
        setattr(model.get_submodule(parent), child, adapted)
        adapters += adapted.lora_a.numel() + adapted.lora_b.numel()
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return Adapted(len(found), adapters, trained, total)


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a network with its adapters merged into the weights.

    The names are those of the network without adapters. The network does not change.
    """
    state = dict(model.state_dict())
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, LoRALinear):
                del state[f"{name}.lora_a"], state[f"{name}.lora_b"]
                state[f"{name}.weight"] = module.merged_weight()
    return state


def _find_layers(
    model: nn.Module, lora: LoRA, excluded: set[nn.Module]
) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return the layers to adapt: their name, the parts with an adapter, and the number of parts.

    Raises:
        UserError: a target matches nothing.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and type(module) in (nn.Linear, Linear) and module not in excluded
    }
    found: dict[str, tuple[tuple[int, ...], int]] = {}
    unmatched = set(lora.targets)
    for name, module in layers.items():
        parent, _, last = name.rpartition(".")
        fused = FUSED.get(last, ())
        if module.out_features % max(1, len(fused)):
            fused = ()
        whole = {target for target in lora.targets if f".{name}".endswith(f".{target}")}
        parts = {
            target: part
            for target in lora.targets
            for part, letter in enumerate(fused)
            if f".{parent}.{letter}".endswith(f".{target}")
        }
        unmatched -= whole | parts.keys()
        if whole:
            found[name] = ((0,), 1)
        elif parts:
            found[name] = (tuple(sorted(set(parts.values()))), len(fused))
    if unmatched:
        missing = ", ".join(map(repr, sorted(unmatched)))
        raise UserError(
            f"lora: {type(model).__name__} has no linear layer named {missing} below its classifier; it has "
            f"{_names(layers)}. Choose from them with --set 'lora.targets=(...,)', or fine-tune without LoRA"
        )
    return found


def _names(linear: Collection[str]) -> str:
    """Return the last parts of the names of linear layers with their number, for a message."""
    if not linear:
        return "none, as networks of convolutions do"
    counts = Counter(name.rpartition(".")[2] for name in linear)
    parts = {letter: counts[fused] for fused in FUSED if fused in counts for letter in FUSED[fused]}
    return ", ".join(f"{name} ({count})" for name, count in (counts + Counter(parts)).items())


def _is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes its input and has a weight or bias of its own."""
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)
    return isinstance(module, kinds)

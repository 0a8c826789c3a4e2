"""Names of VideoMAE in transformers, with a classifier, a decoder or neither.

The published files name the biases of q and v `q_bias` and `v_bias`. Versions 5.7 to 5.17 of transformers
ignore these and train `query.bias`, `key.bias` and `value.bias` instead. The bias of k adds the same value to
all scores of a row, which the softmax cancels, so it is left out. Epsilons of transformers' normalizations
are 1e-12 in the blocks and 1e-5 in `fc_norm`, which moves logits by 1e-6.
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from mmaction_lite.weights.converters.videomae import FC_NORM

NAME = "VideoMAE of transformers"

_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")
_QUERY = "attention.attention.query.weight"
_NAMES = {
    "attention.attention.qkv.weight": "attn.qkv.weight",
    "attention.attention.q_bias": "attn.q_bias",
    "attention.attention.v_bias": "attn.v_bias",
    "attention.attention.query.bias": "attn.q_bias",
    "attention.attention.value.bias": "attn.v_bias",
    "attention.attention.key.bias": None,
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
}
_PRETRAINING = re.compile(r"(videomae\.)?(layernorm|decoder|encoder_to_decoder|mask_token)\b.*")


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from VideoMAE in transformers."""
    return any(
        f"{prefix}embeddings.patch_embeddings.projection.weight" in keys
        and f"{prefix}encoder.layer.0.{_QUERY}" in keys
        and f"{prefix}embeddings.cls_token" not in keys  # an image network
        for prefix in ("videomae.", "")
    )


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the projections to q, k and v of each layer joined to `qkv`."""
    weights = dict(state_dict)
    for key in state_dict:
        if key.endswith(_QUERY):
            stem = key.removesuffix("query.weight")
            parts = [weights.pop(f"{stem}{name}.weight") for name in ("query", "key", "value")]
            weights[f"{stem}qkv.weight"] = torch.cat(parts)
    return weights


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    has_head = "classifier.weight" in keys
    renamed: dict[str, str | None] = {}
    for key in keys:
        name = key.removeprefix("videomae.")
        if name.startswith("embeddings.patch_embeddings.projection."):
            renamed[key] = name.replace("embeddings.patch_embeddings.projection.", "patch_embed.proj.")
        elif name in FC_NORM:
            renamed[key] = name
        elif name.startswith("classifier."):
            renamed[key] = name.replace("classifier.", "head.")
        elif name.endswith("embeddings.position_embeddings"):  # the published table
            renamed[key] = None
        elif match := _LAYER.fullmatch(name):
            renamed |= _rename_layer(key, *match.groups())
        elif not has_head and _PRETRAINING.fullmatch(key):
            renamed[key] = None
    return renamed


def untrained(keys: Collection[str], names: Collection[str]) -> Collection[str]:
    """Return our names of parameters that weights with these keys lack on purpose."""
    return () if set(FC_NORM) & set(keys) or "classifier.weight" in keys else FC_NORM


def _rename_layer(key: str, number: str, rest: str) -> dict[str, str | None]:
    if rest in _NAMES:
        name = _NAMES[rest]
        return {key: None if name is None else f"blocks.{number}.{name}"}
    stem, _, kind = rest.rpartition(".")
    return {key: f"blocks.{number}.{_NAMES[stem]}.{kind}"} if stem in _NAMES else {}

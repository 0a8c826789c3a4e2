"""Names of V-JEPA 2 in transformers, with or without a classifier.

The encoder is that of the authors. The pooler differs twice: its normalizations have epsilon 1e-6, not 1e-5,
and it has as many heads as the encoder, where the authors' probes always have 16. For ViT-L and ViT-H both
numbers are 16. The published ViT-g probes are those of the authors, with 16 heads; transformers computes them
with 22, and its logits are wrong. Probes that are trained in transformers on ViT-g have 22 heads. `adapt`
keeps the 16 heads for ViT-g, and `notes` describes how to get 22.

transformers also computes the Diving48 probes on the tokens of the last layer, although they are trained on
those of four layers.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmaction_lite.models.attentive_pool import HEADS, default_heads
from mmaction_lite.models.vjepa import VJepa
from mmaction_lite.weights.converters.vjepa import check_version, levels_notes

NAME = "V-JEPA 2 of transformers"

EPS = 1e-6
GIANT_HEADS = 22

_LAYER = re.compile(r"(?:vjepa2\.)?encoder\.layer\.(\d+)\.(.+)")
_POOLER_LAYER = re.compile(r"pooler\.(cross_attention_layer|self_attention_layers\.(\d+))\.(.+)")
_QUERY = re.compile(r"(.+\.)(query|q_proj)\.(weight|bias)")
_RENAMED = {
    "attention.qkv": "attn.qkv",
    "attention.proj": "attn.proj",
    "self_attn.qkv": "attn.qkv",
    "self_attn.out_proj": "attn.proj",
    "cross_attn.q_proj": "xattn.q",
    "cross_attn.kv": "xattn.kv",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
}


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from V-JEPA 2 in transformers."""
    return any(
        f"{prefix}encoder.embeddings.patch_embeddings.proj.weight" in keys
        and f"{prefix}encoder.layer.0.attention.query.weight" in keys
        for prefix in ("vjepa2.", "")
    )


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the projections to q, k and v of each layer joined, without the predictor's.

    The cross-attention keeps the projection of its query.
    """
    weights = dict(state_dict)
    for key in state_dict:
        match = _QUERY.fullmatch(key)
        if match is None or "predictor." in key:
            continue
        stem, query, kind = match.groups()
        is_cross = stem.endswith("cross_attn.")
        names = ("key", "value") if query == "query" else ("k_proj", "v_proj")
        parts = [weights.pop(f"{stem}{name}.{kind}") for name in names]
        if not is_cross:
            parts = [weights.pop(key), *parts]
        weights[f"{stem}{'kv' if is_cross else 'qkv'}.{kind}"] = torch.cat(parts)
    return weights


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    renamed: dict[str, str | None] = {}
    for key in keys:
        name = key.removeprefix("vjepa2.")
        if name.startswith("predictor."):
            renamed[key] = None
        elif name.startswith("encoder.embeddings.patch_embeddings.proj."):
            renamed[key] = name.replace("embeddings.patch_embeddings.", "patch_embed.")
        elif name.startswith("encoder.layernorm."):
            renamed[key] = name.replace("layernorm", "norm")
        elif match := _LAYER.fullmatch(key):
            renamed[key] = f"encoder.blocks.{match[1]}.{_inside(match[2])}"
        elif match := _POOLER_LAYER.fullmatch(key):
            block = "cross_attention_block" if match[2] is None else f"blocks.{match[2]}"
            renamed[key] = f"pooler.{block}.{_inside(match[3])}"
        elif key == "pooler.query_tokens":
            renamed[key] = key
        elif key.startswith("classifier."):
            renamed[key] = key.replace("classifier.", "head.")
    return renamed


def untrained(keys: Collection[str], names: Collection[str]) -> list[str]:
    """Return our names of parameters that weights with these keys lack on purpose: the pooler's."""
    if "pooler.query_tokens" in keys:
        return []
    return [name for name in names if name.startswith("pooler.")]


def adapt(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    """Change the pooler to the form of transformers, in place, but keep 16 heads for ViT-g.

    A number of heads that the user has chosen stays, too.

    Returns:
        The builder arguments of this form; empty for files without a pooler.

    Raises:
        UserError: the network is no V-JEPA 2.
    """
    check_version(
        [f"encoder.blocks.{match[1]}.x" for match in map(_LAYER.fullmatch, state_dict) if match], model
    )
    assert isinstance(model, VJepa)
    if "pooler.query_tokens" not in state_dict:
        return {}
    encoder_heads, heads = model.encoder.heads, model.pooler.heads
    if heads == default_heads(model.head.in_features) and encoder_heads != GIANT_HEADS:
        heads = encoder_heads
    model.pooler.adapt(heads=heads, eps=EPS)
    return {"pool_heads": heads, "pool_eps": EPS}


def notes(state_dict: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Return remarks about errors of transformers that concern these weights."""
    if not isinstance(model, VJepa) or "pooler.query_tokens" not in state_dict:
        return []
    found = levels_notes(len(state_dict["classifier.weight"]), model)
    if model.encoder.heads == GIANT_HEADS and model.pooler.heads == HEADS:
        found.append(
            f"the pooler has {HEADS} heads, as in the published training; transformers computes it with "
            f"{GIANT_HEADS}, and its logits differ. For weights that were trained in transformers, use a "
            f"recipe with Build(..., pool_heads={GIANT_HEADS})"
        )
    return found


def _inside(name: str) -> str:
    """Return our name of a parameter of a block."""
    stem, _, kind = name.rpartition(".")
    return f"{_RENAMED.get(stem, stem)}.{kind}"

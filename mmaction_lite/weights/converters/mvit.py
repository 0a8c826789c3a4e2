"""MViT in the names of torchvision, PySlowFast, PyTorchVideo and MMAction2.

torchvision's names are ours except for the classifier. The other three projects share the names inside of
blocks.
"""

import re
from collections.abc import Collection, Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from mmaction_lite.models.mvit import MViT
from mmaction_lite.weights.converters.rules import apply_rules, compile_rules

_KEY_OF_ATTENTION = re.compile(r"(?:backbone\.)?blocks\.0\.attn\.(?:_attention_)?pool_k\.(?:pool\.)?weight")
_PARTS = re.compile(r"(blocks\.\d+\.attn\.)[qkv]\.(weight|bias)")  # of PyTorchVideo
_RULES = compile_rules(
    (r"^backbone\.", ""),
    (r"^cls_positional_encoding\.", ""),
    (r"^cls_token$", "pos_encoding.class_token"),
    (r"^pos_embed_(spatial|temporal|class)$", r"pos_encoding.\1_pos"),
    (r"^patch_embed\.(proj|projection|patch_model)\.", "conv_proj."),
    (r"\.attn\.proj\.", ".attn.project.0."),
    (r"\.attn\.pool_([qkv])\.weight$", r".attn.pool_\1.pool.weight"),
    (r"\.attn\.norm_([qkv])\.", r".attn.pool_\1.norm_act.0."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.3."),
    (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
    (r"^norm(3|_embed)\.", "norm."),  # MMAction2 numbers the stages
    (r"^(head\.projection|head\.proj|cls_head\.fc_cls|head\.1)\.", "head."),
)


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys is of an MViT of any project."""
    return any(_KEY_OF_ATTENTION.fullmatch(key) for key in keys)


def is_torchvision(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys is of torchvision's MViT."""
    return "pos_encoding.class_token" in keys and matches(keys)


def is_pytorchvideo(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys is of PyTorchVideo's MViT."""
    return "patch_embed.patch_model.weight" in keys and matches(keys)


def is_pyslowfast(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys is of PySlowFast's MViT."""
    return "patch_embed.proj.weight" in keys and matches(keys)


def is_mmaction2(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys is of MMAction2's MViT."""
    return "backbone.patch_embed.projection.weight" in keys and matches(keys)


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with one projection to q, k and v, and positions without axes of length 1.

    PyTorchVideo has three projections. It stores the pooling layers twice, under two names; the second copy
    is removed.
    """
    weights = {}
    for key, weight in state_dict.items():
        match = _PARTS.fullmatch(key)
        name = rename_key(key) or ""
        if match:
            whole, kind = match.groups()
            parts = [state_dict[f"{whole}{part}.{kind}"] for part in "qkv"]
            weights[f"{whole}qkv.{kind}"] = torch.cat(parts)
        elif name.startswith("pos_encoding.") and weight.ndim == 3:
            weights[key] = weight[0, 0] if "class" in name else weight[0]
        elif "._attention_pool" not in key or _single_name(key) not in state_dict:
            weights[_single_name(key)] = weight
    return weights


def _single_name(key: str) -> str:
    """Return the other name of a pooling layer that PyTorchVideo stores twice."""
    return re.sub(r"\._attention_pool_([qkv])\.(pool|norm)\.", r".\2_\1.", key)


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    return {key: rename_key(key) for key in keys}


def rename_key(key: str) -> str | None:
    """Return our name for a key of any project; None for the preprocessor of MMAction2."""
    if key.startswith("data_preprocessor."):
        return None
    return apply_rules(_RULES, key)


def adapt(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    """Give the tables of positions of an MViT the sizes of those of the weights, in place.

    Returns:
        The builder arguments of this form; empty for other networks, and for tables of the same sizes.
    """
    if not isinstance(model, MViT):
        return {}
    shapes = {rename_key(key): weight.shape for key, weight in state_dict.items()}
    if shape := shapes.get("blocks.0.attn.rel_pos_t"):
        time, side = (shape[0] + 1) // 2, (shapes["blocks.0.attn.rel_pos_h"][0] + 1) // 2
    elif shape := shapes.get("pos_encoding.temporal_pos"):
        time, side = shape[-2], isqrt(shapes["pos_encoding.spatial_pos"][-2])
    else:
        return {}
    return model.build_positions(time, side)

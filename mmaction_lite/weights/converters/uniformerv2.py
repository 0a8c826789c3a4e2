"""Names of OpenGVLab/UniFormerV2, of the same network in MMAction2, and of the image network of CLIP.

CLIP's file holds an image and a text network. The image network, whose names begin with `visual.` or have no
prefix, starts a training; its output normalization and projection are not used. A first convolution over one
frame becomes one over three frames with the weights in the middle, and zeros elsewhere.
"""

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from mmaction_lite.models.uniformerv2 import UniFormerV2
from mmaction_lite.weights.converters.rules import apply_rules, compile_rules

NAME = "UniFormerV2"

CONV1 = "conv1.weight"
_CLIP = "transformer.resblocks.0.attn.in_proj_weight"
_TOKEN = "backbone.transformer.temporal_cls_token"
_MMACTION2_NORM = "backbone.transformer.norm.weight"
_EXTRACTOR = re.compile(r"(.*transformer\.dec\.\d+\.attn\.)in_proj_(weight|bias)")
_LOCAL = re.compile(r".*\.lmhra\d\.pos_embed\.[123]\.weight")
_RULES = compile_rules(
    (r"^(backbone\.|visual\.)", ""),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"^transformer\.dpe\.(\d+)\.", r"extractors.\1.dpe."),
    (r"^transformer\.dec\.(\d+)\.mlp\.", r"extractors.\1."),
    (r"^transformer\.dec\.", "extractors."),
    (r"^transformer\.temporal_cls_token$", "temporal_token.weight"),
    (r"^transformer\.balance$", "mixture.balance"),
    (r"^transformer\.(proj\.0|norm)\.", "mixture.norm."),
    (r"^(transformer\.proj\.2|cls_head\.fc_cls)\.", "head."),
    (r"^positional_embedding$", "positions.weight"),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.c_fc\.", ".fc1."),
    (r"\.c_proj\.", ".fc2."),
    (r"\.lmhra(\d)\.pos_embed\.0\.", r".local\1.bn."),
    (r"\.lmhra(\d)\.pos_embed\.1\.", r".local\1.reduce."),
    (r"\.lmhra(\d)\.pos_embed\.2\.", r".local\1.temporal."),
    (r"\.lmhra(\d)\.pos_embed\.3\.", r".local\1.expand."),
)


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from UniFormerV2's repository or CLIP."""
    return (_TOKEN in keys and not is_mmaction2(keys)) or is_clip(keys)


def is_mmaction2(keys: Collection[str]) -> bool:
    """Whether keys are those of MMAction2, where the normalization before the classifier has another name."""
    return _TOKEN in keys and _MMACTION2_NORM in keys


def is_clip(keys: Collection[str]) -> bool:
    """Whether keys are those of CLIP with an image transformer, or of its image network alone."""
    return any(f"{prefix}{_CLIP}" in keys and f"{prefix}{CONV1}" in keys for prefix in ("visual.", ""))


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in our shapes; projections of the temporal class token are split into q and kv."""
    weights = dict(state_dict)
    for key, weight in state_dict.items():
        if match := _EXTRACTOR.fullmatch(key):
            part = len(weight) // 3
            q, kv = torch.split(weights.pop(key), [part, len(weight) - part])
            weights |= {f"{match[1]}q.{match[2]}": q, f"{match[1]}kv.{match[2]}": kv}
        elif _LOCAL.fullmatch(key):  # convolutions of one pixel
            weights[key] = weight.flatten(1 if ".2.weight" not in key else 2)
        elif key == _TOKEN:
            weights[key] = weight.flatten(0, 1)
    return weights


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    if _TOKEN not in keys:
        prefix = "visual." if f"visual.{_CLIP}" in keys else ""
        unused = ("proj", "ln_post.weight", "ln_post.bias")
        beside = [key for key in keys if not key.startswith(prefix) or key.removeprefix(prefix) in unused]
        return {key: None if key in beside else _rename(key) for key in keys}
    return {key: None if key.startswith("data_preprocessor.") else _rename(key) for key in keys}


def untrained(keys: Collection[str], names: Collection[str]) -> Collection[str]:
    """Return our names of parameters that weights of CLIP lack."""
    if any(name.startswith("backbone.") for name in keys):
        return ()
    image = re.compile(r"conv1\.|class_embedding|positions\.|ln_pre\.|blocks\.\d+\.(norm\d|attn|mlp)\.")
    return [name for name in names if not image.match(name)]


def fit(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights by our names, with a first convolution over one frame inflated for the network.

    The weights stand in the middle of the kernel, as published. For other networks than `UniFormerV2`,
    nothing changes.
    """
    weight = weights.get(CONV1)
    if not isinstance(model, UniFormerV2) or weight is None or weight.ndim != 4:
        return weights
    frames = model.conv1.kernel_size[0]
    inflated = weight.new_zeros((*weight.shape[:2], frames, *weight.shape[2:]))
    inflated[:, :, frames // 2] = weight
    return weights | {CONV1: inflated}


def _rename(key: str) -> str:
    return apply_rules(_RULES, key)

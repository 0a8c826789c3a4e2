"""Names of PyTorchVideo: a list of blocks; those with `res_blocks` are the stages."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from mmaction_lite.weights.converters import mvit, x3d
from mmaction_lite.weights.converters.pyslowfast import authors_form

NAME = "PyTorchVideo"

_STEM = re.compile(r"blocks\.0\.(?:multipathway_blocks\.(\d)\.)?(conv|norm)\.(.+)")
_BLOCK = re.compile(r"blocks\.(\d)\.(?:multipathway_blocks\.(\d)\.)?res_blocks\.(\d+)\.(.+)")
_FUSION = re.compile(r"blocks\.(\d)\.multipathway_fusion\.(conv_fast_to_slow|norm)\.(.+)")
_HEAD = re.compile(r"blocks\.\d\.proj\.(weight|bias)")

_INSIDE = {
    "branch1_conv.": "downsample.0.",
    "branch1_norm.": "downsample.1.",
    # In R(2+1)D conv_b is a factored convolution. Its names begin with that of conv_b, so they come first.
    "branch2.conv_b.conv_t.": "conv2.temporal.",
    "branch2.conv_b.conv_xy.": "conv2.spatial.",
    "branch2.conv_b.norm.": "conv2.bn.",
    "branch2.conv_a.": "conv1.",
    "branch2.conv_b.": "conv2.",
    "branch2.conv_c.": "conv3.",
    "branch2.norm_a.": "bn1.",
    "branch2.norm_b.": "bn2.",
    "branch2.norm_c.": "bn3.",
}


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from PyTorchVideo."""
    return mvit.is_pytorchvideo(keys) or any(_STEM.match(key) for key in keys)


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, those of MViT in the form of `mvit.prepare`."""
    return mvit.prepare(state_dict) if mvit.is_pytorchvideo(state_dict) else dict(state_dict)


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key; unknown keys are missing.

    Stages are numbered by their order: in I3D and C2D the pooling after the first stage is a block too.
    """
    if x3d.PYTORCHVIDEO_STEM in keys:
        return x3d.rename(keys, x3d.PYTORCHVIDEO)
    if mvit.is_pytorchvideo(keys):
        return mvit.rename(keys)
    blocks = sorted({match[1] for match in map(_BLOCK.match, keys) if match})
    stages = {block: number for number, block in enumerate(blocks, 1)}
    renamed: dict[str, str | None] = {}
    for key in keys:
        if match := _STEM.fullmatch(key):
            pathway, kind, rest = match.groups()
            renamed[key] = f"backbone.{_pathway(pathway)}{'conv1' if kind == 'conv' else 'bn1'}.{rest}"
        elif match := _BLOCK.fullmatch(key):
            block, pathway, number, rest = match.groups()
            for theirs, ours in _INSIDE.items():
                if rest.startswith(theirs):
                    prefix = f"backbone.{_pathway(pathway)}layer{stages[block]}.{number}"
                    renamed[key] = f"{prefix}.{ours}{rest.removeprefix(theirs)}"
                    break
        elif match := _FUSION.fullmatch(key):
            block, kind, rest = match.groups()
            renamed[key] = f"backbone.lateral.{block}.{'bn' if kind == 'norm' else 'conv'}.{rest}"
        elif match := _HEAD.fullmatch(key):
            renamed[key] = f"fc.{match[1]}"
    return renamed


def _pathway(number: str | None) -> str:
    return {None: "", "0": "slow.", "1": "fast."}[number]


def adapt(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    """Change SlowFast to the form of its authors, and X3D and MViT to that of the weights, in place.

    Returns:
        The builder arguments of this form; empty for other networks.
    """
    if x3d.PYTORCHVIDEO_STEM in state_dict:
        return x3d.adapt(state_dict, model)
    if mvit.is_pytorchvideo(state_dict):
        return mvit.adapt(state_dict, model)
    return authors_form(state_dict.get("blocks.0.multipathway_fusion.conv_fast_to_slow.weight"), model)

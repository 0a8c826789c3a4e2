"""Names of PySlowFast: stages s1 to s5, with numbered pathways and residual blocks."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from mmaction_lite.models.resnet import MaxPool, ResNet
from mmaction_lite.models.slowfast import SlowFast
from mmaction_lite.weights.converters import mvit, x3d

NAME = "PySlowFast"

_STEM = re.compile(r"s1\.pathway(\d)_stem\.(conv|bn)\.(.+)")
_BLOCK = re.compile(r"s(\d)\.pathway(\d)_res(\d+)\.(?:(branch1)(_bn)?|branch2\.([abc])(_bn)?)\.(.+)")
_FUSION = re.compile(r"s(\d)_fuse\.(conv_f2s|bn)\.(.+)")


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from PySlowFast."""
    return mvit.is_pyslowfast(keys) or any(_STEM.match(key) for key in keys)


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights, those of MViT in the form of `mvit.prepare`."""
    return mvit.prepare(state_dict) if mvit.is_pyslowfast(state_dict) else dict(state_dict)


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    if x3d.PYSLOWFAST_STEM in keys:
        return x3d.rename(keys, x3d.PYSLOWFAST)
    if mvit.is_pyslowfast(keys):
        return mvit.rename(keys)
    both = any(key.startswith("s1.pathway1_") for key in keys)
    pathways = ("slow.", "fast.") if both else ("",)
    renamed: dict[str, str | None] = {}
    for key in keys:
        if match := _STEM.fullmatch(key):
            pathway, kind, rest = match.groups()
            renamed[key] = f"backbone.{pathways[int(pathway)]}{kind}1.{rest}"
        elif match := _BLOCK.fullmatch(key):
            stage, pathway, block, shortcut, shortcut_norm, letter, norm, rest = match.groups()
            if shortcut:
                layer = "downsample.1" if shortcut_norm else "downsample.0"
            else:
                layer = f"{'bn' if norm else 'conv'}{'abc'.index(letter) + 1}"
            prefix = f"backbone.{pathways[int(pathway)]}layer{int(stage) - 1}.{block}"
            renamed[key] = f"{prefix}.{layer}.{rest}"
        elif match := _FUSION.fullmatch(key):
            stage, kind, rest = match.groups()
            renamed[key] = f"backbone.lateral.{int(stage) - 1}.{kind.removesuffix('_f2s')}.{rest}"
        elif key.startswith("head.projection."):
            renamed[key] = key.replace("head.projection.", "fc.")
    return renamed


def adapt(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    """Change SlowFast to the form of its authors, and X3D and MViT to that of the weights, in place.

    Returns:
        The builder arguments of this form; empty for other networks.
    """
    if x3d.PYSLOWFAST_STEM in state_dict:
        return x3d.adapt(state_dict, model)
    if mvit.is_pyslowfast(state_dict):
        return mvit.adapt(state_dict, model)
    return authors_form(state_dict.get("s1_fuse.conv_f2s.weight"), model)


def authors_form(lateral: Tensor | None, model: nn.Module) -> dict[str, Any]:
    """Change SlowFast and C2D to the form of PySlowFast and PyTorchVideo, in place.

    Args:
        lateral: weight of the first lateral connection (C', C, T, 1, 1); None: not a SlowFast checkpoint.
        model: the network.

    Returns:
        The builder arguments of this form; empty for other networks.
    """
    backbone = getattr(model, "backbone", None)
    if lateral is None and isinstance(backbone, ResNet):
        return _padded(backbone)
    if lateral is None or not isinstance(backbone, SlowFast):
        return {}
    form: dict[str, Any] = {
        "lateral_kernel": lateral.shape[2],
        "lateral_norm": True,
        "slow_frames": "linspace",
        "fast_first": False,
    }
    backbone.adapt(**form)
    return form


def _padded(backbone: ResNet) -> dict[str, Any]:
    """Pad the pooling after the stem; only C2D in the form of MMAction2 has none."""
    if not isinstance(backbone.maxpool, MaxPool) or backbone.maxpool.padding == 1:
        return {}
    backbone.maxpool.padding = 1
    return {"pool_padding": 1}

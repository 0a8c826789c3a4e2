"""Names of X3D in PySlowFast, PyTorchVideo and MMAction2."""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from mmaction_lite.models.x3d import X3DBackbone
from mmaction_lite.weights.converters.rules import Rule, apply_rules, compile_rules

PYSLOWFAST_STEM = "s1.pathway0_stem.conv_xy.weight"
PYTORCHVIDEO_STEM = "blocks.0.conv.conv_t.weight"
MMACTION2_STEM = "backbone.conv1_s.conv.weight"
"""Names of the weight of the first convolution, which no other network of the project has."""

_FIRST_NORMS = (
    "s2.pathway0_res0.branch1_bn.weight",
    "blocks.1.res_blocks.0.branch1_norm.weight",
    "backbone.layer1.0.downsample.bn.weight",
)
"""Names of the weight of the normalization of the first shortcut, in the order of the stems."""


def _minus_one(name: str) -> Callable[[re.Match[str]], str]:
    """Return a replacement: our name of a stage whose number in the project is one higher, and its block."""
    return lambda match: f"backbone.layer{int(match[1]) - 1}.{match[2]}.{name}"


def _letter(suffix: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f".{suffix}{'abc'.index(match[1]) + 1}."


PYSLOWFAST = compile_rules(
    (r"^s1\.pathway0_stem\.conv_xy\.", "backbone.conv1."),
    (r"^s1\.pathway0_stem\.conv\.", "backbone.conv1_t."),
    (r"^s1\.pathway0_stem\.bn\.", "backbone.bn1."),
    (r"^s([2-5])\.pathway0_res(\d+)\.branch1\.", _minus_one("downsample.0.")),
    (r"^s([2-5])\.pathway0_res(\d+)\.branch1_bn\.", _minus_one("downsample.1.")),
    (r"^s([2-5])\.pathway0_res(\d+)\.branch2\.", _minus_one("")),
    (r"\.([abc])_bn\.", _letter("bn")),
    (r"\.([abc])\.", _letter("conv")),
    (r"^head\.conv_5\.", "backbone.conv5."),
    (r"^head\.conv_5_bn\.", "backbone.bn5."),
    (r"^head\.lin_5\.", "projection."),
    (r"^head\.projection\.", "fc."),
)
# The kernel over pixels is called `conv_t`, and the one over frames `conv_xy`.
PYTORCHVIDEO = compile_rules(
    (r"^blocks\.0\.conv\.conv_t\.", "backbone.conv1."),
    (r"^blocks\.0\.conv\.conv_xy\.", "backbone.conv1_t."),
    (r"^blocks\.0\.norm\.", "backbone.bn1."),
    (r"^blocks\.([1-4])\.res_blocks\.", r"backbone.layer\1."),
    (r"\.branch1_conv\.", ".downsample.0."),
    (r"\.branch1_norm\.", ".downsample.1."),
    (r"\.branch2\.conv_([abc])\.", _letter("conv")),
    (r"\.branch2\.norm_b\.0\.", ".bn2."),
    (r"\.branch2\.norm_b\.1\.block\.0\.", ".se.fc1."),
    (r"\.branch2\.norm_b\.1\.block\.2\.", ".se.fc2."),
    (r"\.branch2\.norm_([ac])\.", _letter("bn")),
    (r"^blocks\.5\.pool\.pre_conv\.", "backbone.conv5."),
    (r"^blocks\.5\.pool\.pre_norm\.", "backbone.bn5."),
    (r"^blocks\.5\.pool\.post_conv\.", "projection."),
    (r"^blocks\.5\.proj\.", "fc."),
)
MMACTION2 = compile_rules(
    (r"^backbone\.conv1_s\.conv\.", "backbone.conv1."),
    (r"^backbone\.conv1_t\.conv\.", "backbone.conv1_t."),
    (r"^backbone\.conv1_t\.bn\.", "backbone.bn1."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
    (r"\.se_module\.", ".se."),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
    (r"\.conv(\d)\.bn\.", r".bn\1."),
    (r"^cls_head\.fc1\.", "projection."),
    (r"^cls_head\.fc2\.", "fc."),
)


def rename(keys: Collection[str], rules: list[Rule]) -> dict[str, str | None]:
    """Return our name for each key by the rules of a project, in their order."""
    return {key: apply_rules(rules, key) for key in keys}


def adapt(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    """Change X3D to the form that the weights are for, in place.

    Returns:
        The builder arguments of this form; empty for other networks.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, X3DBackbone):
        return {}
    shortcut_norm = any(name in state_dict for name in _FIRST_NORMS)
    backbone.adapt(shortcut_norm)
    return {"shortcut_norm": shortcut_norm}

"""Names of MMAction2, versions 0.x and 1.x; they differ only in the data preprocessor of 1.x."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from mmaction_lite.models.resnet import MaxPool, ResNet
from mmaction_lite.models.slowfast import SlowFast
from mmaction_lite.models.videomae import VideoMAE
from mmaction_lite.models.vit import sinusoid_table
from mmaction_lite.weights.converters import mvit, swin, uniformerv2, x3d
from mmaction_lite.weights.converters.rules import apply_rules, compile_rules

NAME = "MMAction2"

_VIDEOMAE = "backbone.blocks.0.attn.q_bias"
_TABLE = "backbone.pos_embed"  # positions of VideoMAE, which other projects do not store
_OTHER_TABLE = "backbone.positions.table"  # the same, if it is not the published one
_SAME_TABLE = 1e-3  # largest difference of tables that are computed in float32 and in float64

_SIGNATURE = re.compile(r"backbone\.((slow|fast)_path\.)?conv1\.conv\.|cls_head\.fc_cls\.")

# Blocks before each stage of MobileNetV2; our blocks are numbered across stages.
_MOBILENET_OFFSETS = (0, 1, 3, 6, 10, 13, 16)

_RULES = compile_rules(
    (r"^cls_head\.(fc_cls|new_fc)\.", "fc."),
    (r"\.slow_path\.conv1_lateral\.conv\.", ".lateral.0.conv."),
    (r"\.slow_path\.layer(\d)_lateral\.conv\.", r".lateral.\1.conv."),
    (r"\.(slow|fast)_path\.", r".\1."),
    # The temporal shift and the non-local block are wrappers of other modules.
    (r"\.net\.", "."),
    (r"\.(\d+)\.block\.", r".\1."),
    (r"\.(\d+)\.non_local_block\.(g|theta|phi)(\.0)?\.conv\.", r".non_local\1.\2."),
    (r"\.(\d+)\.non_local_block\.conv_out\.conv\.", r".non_local\1.out."),
    (r"\.(\d+)\.non_local_block\.conv_out\.bn\.", r".non_local\1.bn."),
    # Before the rule of factored convolutions, whose inner normalization becomes "conv1.bn".
    (r"\.conv(\d)\.bn\.", r".bn\1."),
    (r"\.conv\.conv_s\.", ".conv.spatial."),
    (r"\.conv\.conv_t\.", ".conv.temporal."),
    (r"\.conv\.bn_s\.", ".conv.bn."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
    (r"\.conv(\d)\.conv\.", r".conv\1."),
)


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from MMAction2."""
    is_other = {_VIDEOMAE, _TABLE} <= set(keys) or x3d.MMACTION2_STEM in keys or mvit.is_mmaction2(keys)
    is_other = is_other or uniformerv2.is_mmaction2(keys)
    return is_other or any(_SIGNATURE.match(key) for key in keys)


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights; a table of positions of VideoMAE that is not the published one gets another name.

    A file that stores another table was trained with it. Those of MViT and UniFormerV2 get the form of their
    modules' `prepare`.
    """
    if uniformerv2.is_mmaction2(state_dict):
        return uniformerv2.prepare(state_dict)
    if mvit.is_mmaction2(state_dict):
        return mvit.prepare(state_dict)
    weights = dict(state_dict)
    table = weights.get(_TABLE)
    if _VIDEOMAE in weights and table is not None and not table.is_meta:
        published = sinusoid_table(*table.shape[-2:])
        if float((table[0] - published).abs().max()) > _SAME_TABLE:
            weights[_OTHER_TABLE] = weights.pop(_TABLE)[0]
    return weights


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    if f"backbone.{swin.BLOCK}" in keys:
        return swin.rename(keys)
    if x3d.MMACTION2_STEM in keys:
        found = x3d.rename(keys, x3d.MMACTION2)
        return {key: None if key.startswith("data_preprocessor.") else found[key] for key in keys}
    if mvit.is_mmaction2(keys):
        return mvit.rename(keys)
    if uniformerv2.is_mmaction2(keys):
        return uniformerv2.rename(keys)
    rename_key = _rename_videomae if _VIDEOMAE in keys else _rename
    return {
        key: rename_key(key)
        for key in keys
        if key.startswith(("backbone.", "cls_head.", "data_preprocessor."))
    }


def fit(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights by our names in the shapes of the network; see `swin.fit`."""
    return swin.fit(weights, model)


def _rename(key: str) -> str | None:
    if key.startswith("data_preprocessor."):
        return None
    mobilenet = re.match(r"backbone\.layer(\d)\.(\d+)\.conv\.(\d)\.(net\.)?(conv|bn)\.(.+)", key)
    if mobilenet:
        stage, block, position, _, kind, rest = mobilenet.groups()
        number = _MOBILENET_OFFSETS[int(stage) - 1] + int(block)
        return f"backbone.blocks.{number}.{kind}{int(position) + 1}.{rest}"
    return apply_rules(_RULES, key)


def _rename_videomae(key: str) -> str | None:
    if key == _TABLE or key.startswith("data_preprocessor."):
        return None
    name = key.removeprefix("backbone.").replace("cls_head.fc_cls.", "head.")
    name = name.replace("patch_embed.projection.", "patch_embed.proj.")
    return name.replace(".mlp.layers.0.0.", ".mlp.fc1.").replace(".mlp.layers.1.", ".mlp.fc2.")


def adapt(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    """Change SlowFast, C2D, VideoMAE, X3D and MViT to the form of MMAction2, in place.

    Returns:
        The builder arguments of this form; empty for other networks.
    """
    if mvit.is_mmaction2(state_dict):
        return mvit.adapt(state_dict, model)
    backbone = getattr(model, "backbone", None)
    lateral = state_dict.get("backbone.slow_path.conv1_lateral.conv.weight")
    if lateral is not None and isinstance(backbone, SlowFast):
        form: dict[str, Any] = {
            "lateral_kernel": lateral.shape[2],
            "lateral_norm": False,
            "slow_frames": "strided",
            "fast_first": True,
        }
        backbone.adapt(**form)
        return form
    if x3d.MMACTION2_STEM in state_dict:
        return x3d.adapt(state_dict, model)
    if _OTHER_TABLE in state_dict and isinstance(model, VideoMAE):
        model.positions.store()
        return {"positions": "stored"}
    stem = state_dict.get("backbone.conv1.conv.weight")
    if stem is not None and stem.ndim == 4 and isinstance(backbone, ResNet) and _is_c2d(backbone):
        if isinstance(backbone.maxpool, MaxPool):
            backbone.maxpool.padding = 0
        return {"pool_padding": 0}
    return {}


def _is_c2d(backbone: nn.Module) -> bool:
    kernels = [module.kernel_size for module in backbone.modules() if isinstance(module, nn.Conv3d)]
    return bool(kernels) and all(kernel[0] == 1 for kernel in kernels)

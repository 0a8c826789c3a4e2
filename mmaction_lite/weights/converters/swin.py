"""Names of Video Swin's repository and of image Swin networks, and the inflation of the latter.

The table is for files of SwinTransformer/Video-Swin-Transformer, whose names begin with `backbone.`, and for
image networks of microsoft/Swin-Transformer and timm. `rename_torchvision` is for torchvision's video and
image networks. MMAction2's names are those of Video-Swin-Transformer, with `norm3` for `norm`.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.swin3d import VideoSwin, WindowAttention
from mmaction_lite.weights.converters.inflate import inflate

NAME = "Video Swin"

TABLE = "relative_position_bias_table"
BLOCK = f"layers.0.blocks.0.attn.{TABLE}"
PATCHES = "patch_embed.proj.weight"
_COMPUTED = ("relative_position_index", "attn_mask")  # constants that files store
_CLASSIFIER = re.compile(r"(?:cls_head\.fc_cls|head|head\.fc)\.(weight|bias)")


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from Video-Swin-Transformer or an image Swin network."""
    return BLOCK in keys or (f"backbone.{BLOCK}" in keys and "backbone.norm.weight" in keys)


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    prefix = "backbone." if f"backbone.{BLOCK}" in keys else ""
    # timm counts a merging to the stage after it.
    is_timm = not any(key.startswith(f"{prefix}layers.0.downsample.") for key in keys)
    renamed: dict[str, str | None] = {}
    for key in keys:
        name = key.removeprefix(prefix)
        if key.endswith(_COMPUTED) or key.startswith("data_preprocessor."):
            renamed[key] = None
        elif match := _CLASSIFIER.fullmatch(key):
            renamed[key] = f"head.{match[1]}" if prefix else None
        elif match := re.fullmatch(r"layers\.(\d+)\.downsample\.(.+)", name):
            renamed[key] = f"stages.{int(match[1]) - is_timm}.downsample.{match[2]}"
        elif match := re.fullmatch(r"layers\.(\d+\.blocks\..+)", name):
            renamed[key] = f"stages.{match[1]}"
        elif match := re.fullmatch(r"norm3?\.(.+)", name):
            renamed[key] = f"norm.{match[1]}"
        elif name.startswith("patch_embed."):
            renamed[key] = name
    return renamed


def is_torchvision(keys: Collection[str]) -> bool:
    """Whether keys are those of torchvision's video or image Swin networks."""
    return bool({f"features.{first}.0.attn.{TABLE}" for first in (0, 1)} & set(keys))


def is_torchvision_image(keys: Collection[str]) -> bool:
    """Whether keys are those of torchvision's image Swin networks."""
    return f"features.1.0.attn.{TABLE}" in keys


def rename_torchvision(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key of torchvision, as `rename`."""
    is_image = is_torchvision_image(keys)
    renamed: dict[str, str | None] = {}
    for key in keys:
        if key.endswith(_COMPUTED) or (is_image and key.startswith("head.")):
            renamed[key] = None
        elif match := re.fullmatch(r"features\.(\d+)\.(.+)", key):
            renamed[key] = _rename_feature(int(match[1]) - is_image, match[2])
        elif key.startswith(("patch_embed.", "norm.", "head.")):
            renamed[key] = key
    return renamed


def _rename_feature(number: int, rest: str) -> str:
    """Return our name for `features.{number}.{rest}`: stages and mergings in turn, -1 for the embedding."""
    if number < 0:
        kind, _, rest = rest.partition(".")
        return f"patch_embed.{'proj' if kind == '0' else 'norm'}.{rest}"
    if number % 2:
        return f"stages.{number // 2}.downsample.{rest}"
    return f"stages.{number // 2}.blocks.{rest}".replace(".mlp.0.", ".mlp.fc1.").replace(
        ".mlp.3.", ".mlp.fc2."
    )


def fit(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights by our names, with those of an image network inflated for the network.

    The patch embedding is repeated over the frames of a token and divided by their number. The bias tables,
    resized by bicubic interpolation if the windows differ, are repeated for every distance in time. Source:
    `inflate_weights` of Video-Swin-Transformer. Weights that need no change are returned unchanged.

    Args:
        weights: by our names.
        model: the network that receives them. For others than `VideoSwin`, nothing changes.

    Raises:
        UserError: the weights are of a video network with another window.
    """
    patches = weights.get(PATCHES)
    if not isinstance(model, VideoSwin) or patches is None:
        return weights
    fitted = dict(weights)
    is_image = patches.ndim == 4
    if is_image:
        fitted[PATCHES] = inflate(patches, model.patch_embed.proj.weight.shape)
    for name, module in model.named_modules():
        table = weights.get(f"{name}.{TABLE}")
        if not isinstance(module, WindowAttention) or table is None or table.ndim != 2:
            continue
        if is_image:
            fitted[f"{name}.{TABLE}"] = _inflate_table(table, module.window)
        else:
            _check_window(len(table), module.window)
    return fitted


def _inflate_table(table: Tensor, window: tuple[int, int, int]) -> Tensor:
    """Return the bias table (rows, heads) of square windows for windows of tokens over time."""
    side = math.isqrt(len(table))
    time, height, width = (2 * length - 1 for length in window)
    if side * side != len(table) or not side:
        return table
    if (side, side) != (height, width):
        planes = table.t().reshape(1, -1, side, side)
        planes = functional.interpolate(planes.float(), (height, width), mode="bicubic")
        table = planes.flatten(2)[0].t().to(table.dtype)
    return table.repeat(time, 1)


def _check_window(rows: int, window: tuple[int, int, int]) -> None:
    _, height, width = window
    frames, rest = divmod(rows, (2 * height - 1) * (2 * width - 1))
    found = (frames + 1) // 2
    if rest or frames % 2 == 0 or found == window[0]:
        return  # a difference of another kind, which the comparison of shapes reports
    theirs = f"({found}, {height}, {width})"
    raise UserError(
        f"the weights are for windows of {theirs} tokens, and the network has windows of {window}; expected "
        f"the same. Add --set 'model.window={theirs}'"
    )


def notes(state_dict: Mapping[str, Any], model: nn.Module) -> list[str]:
    """Return a remark about the inflation of image weights."""
    patches = state_dict.get(PATCHES, state_dict.get("features.0.0.weight"))
    if not isinstance(model, VideoSwin) or patches is None or patches.ndim != 4:
        return []
    frames = model.patch_embed.size[0]
    return [
        f"the weights are of an image network. They are inflated as published: the patch embedding is "
        f"repeated over {frames} frames and divided by {frames}, and the bias tables are repeated for every "
        "distance in time. The classifier keeps its initial values"
    ]

"""Names of the TSM authors' repository (mit-han-lab/temporal-shift-module), for TSM, TSN and the online TSM.

The online TSM is the MobileNetV2 of their `online_demo`, whose names have no prefix. Its blocks are flat
lists, those of torchvision's MobileNetV2 are nested.
"""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from mmaction_lite.weights.converters.torchvision import rename_mobilenet

NAME = "MIT TSM"

_NON_LOCAL = {"g.0": "g", "theta": "theta", "phi.0": "phi", "W.0": "out", "W.1": "bn"}


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from MIT TSM."""
    return any(key.startswith("base_model.") for key in keys) or is_online(keys)


def is_online(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys is of the online TSM."""
    return {"classifier.weight", "features.0.0.weight", "features.2.conv.7.weight"} <= set(keys)


# Convolutions in front of which the online TSM shifts: those of blocks with a shortcut
# (`online_demo/mobilenet_v2_tsm.py`). Nothing in the names of the weights shows them.
ONLINE_SHIFTS = {f"backbone.blocks.{block}.conv1.weight" for block in (2, 4, 5, 7, 8, 9, 11, 12, 14, 15)}


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict without biases of the output convolutions of non-local blocks.

    Each bias is subtracted from the running mean of the normalization that follows, which has the same effect
    in evaluation mode.
    """
    prepared = dict(state_dict)
    for key, bias in state_dict.items():
        if key.endswith(".nl.W.0.bias"):
            del prepared[key]
            mean = key.replace(".W.0.bias", ".W.1.running_mean")
            prepared[mean] = state_dict[mean] - bias
    return prepared


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    renamed: dict[str, str | None] = {}
    for key in keys:
        # The shift and the non-local block are wrappers of other modules.
        name = key.removeprefix("base_model.").replace(".net.", ".").replace(".block.", ".")
        if key.startswith("new_fc."):
            renamed[key] = key.replace("new_fc.", "fc.")
        elif key.startswith("classifier."):
            renamed[key] = key.replace("classifier.", "fc.")
        elif match := re.fullmatch(r"(layer\d)\.(\d+)\.nl\.(g\.0|theta|phi\.0|W\.[01])\.(.+)", name):
            layer, block, part, rest = match.groups()
            renamed[key] = f"backbone.{layer}.non_local{block}.{_NON_LOCAL[part]}.{rest}"
        elif match := re.fullmatch(r"features\.(\d+)\.(?:conv\.)?(.+)", name):
            renamed[key] = rename_mobilenet(int(match[1]), _nest(int(match[1]), match[2]))
        elif re.match(r"(conv1|bn1|layer\d)\.", name):
            renamed[key] = f"backbone.{name}"
    return renamed


def _nest(number: int, rest: str) -> str:
    """Return torchvision's name of a layer in a block of MobileNetV2.

    Args:
        number: index of the block in `features`.
        rest: index in the flat list of convolutions, normalizations and activations, and parameter name.
    """
    place, name = rest.split(".")
    if number in (0, 18):
        return rest
    step, kind = divmod(int(place), 3)
    last = 1 if number == 1 else 2
    return f"{step + kind}.{name}" if step == last else f"{step}.{kind}.{name}"

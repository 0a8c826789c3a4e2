"""The names of the TSM authors' repository (MIT), also of the TSN weights published there."""

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from mmaction_lite.weights.converters.torchvision import rename_mobilenet

NAME = "MIT TSM"

_NON_LOCAL = {"g.0": "g", "theta": "theta", "phi.0": "phi", "W.0": "out", "W.1": "bn"}


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys is MIT TSM's."""
    return any(key.startswith("base_model.") for key in keys)


def prepare(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move the bias of non-local output convolutions into the mean that is subtracted right after them."""
    prepared = dict(state_dict)
    for key, bias in state_dict.items():
        if key.endswith(".nl.W.0.bias"):
            del prepared[key]
            mean = key.replace(".W.0.bias", ".W.1.running_mean")
            prepared[mean] = state_dict[mean] - bias
    return prepared


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Their names to ours."""
    renamed: dict[str, str | None] = {}
    for key in keys:
        # The shift and the non-local block wrap what they act on.
        name = key.removeprefix("base_model.").replace(".net.", ".").replace(".block.", ".")
        if key.startswith("new_fc."):
            renamed[key] = key.replace("new_fc.", "fc.")
        elif match := re.fullmatch(r"(layer\d)\.(\d+)\.nl\.(g\.0|theta|phi\.0|W\.[01])\.(.+)", name):
            layer, block, part, rest = match.groups()
            renamed[key] = f"backbone.{layer}.non_local{block}.{_NON_LOCAL[part]}.{rest}"
        elif match := re.fullmatch(r"features\.(\d+)\.(?:conv\.)?(.+)", name):
            renamed[key] = rename_mobilenet(int(match[1]), _nest(int(match[1]), match[2]))
        elif re.match(r"(conv1|bn1|layer\d)\.", name):
            renamed[key] = f"backbone.{name}"
    return renamed


def _nest(number: int, rest: str) -> str:
    """Position in one flat list of convolution, normalisation, activation … to torchvision's nesting."""
    place, name = rest.split(".")
    if number in (0, 18):
        return rest
    step, kind = divmod(int(place), 3)
    last = 1 if number == 1 else 2
    return f"{step + kind}.{name}" if step == last else f"{step}.{kind}.{name}"

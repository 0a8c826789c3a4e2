"""Names of torchvision: its image networks, its three video networks of 18 layers, MViT and Swin."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from mmaction_lite.weights.converters import mvit, swin

NAME = "torchvision"

_LAYERS = re.compile(r"(conv1|bn1|layer\d)\..+")
_MOBILENET = re.compile(r"features\.(\d+)\.(?:conv\.)?(.+)")

_FACTORED = {"0": "conv{}.spatial", "1": "conv{}.bn", "3": "conv{}.temporal", "4": "bn{}"}


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from torchvision."""
    resnet = any(key.startswith("layer1.0.conv1.") for key in keys)
    return resnet or _is_mobilenet(keys) or mvit.is_torchvision(keys) or swin.is_torchvision(keys)


def is_image(keys: Collection[str]) -> bool:
    """Whether keys are those of an image network of torchvision: a ResNet, MobileNetV2 or Swin."""
    return "conv1.weight" in keys or _is_mobilenet(keys) or swin.is_torchvision_image(keys)


def _is_mobilenet(keys: Collection[str]) -> bool:
    return {"features.0.0.weight", "features.18.0.weight"} <= set(keys)


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    if mvit.is_torchvision(keys):
        return mvit.rename(keys)
    if swin.is_torchvision(keys):
        return swin.rename_torchvision(keys)
    factored = "stem.3.weight" in keys
    renamed: dict[str, str | None] = {}
    for key in keys:
        if match := re.fullmatch(r"stem\.(\d)\.(.+)", key):
            number, rest = match.groups()
            places = _FACTORED if factored else {"0": "conv{}", "1": "bn{}"}
            renamed[key] = f"backbone.{places[number].format(1)}.{rest}"
        elif match := re.fullmatch(r"(layer\d\.\d+\.)conv(\d)\.0\.(\d)\.(.+)", key):
            prefix, conv, number, rest = match.groups()
            renamed[key] = f"backbone.{prefix}{_FACTORED[number].format(conv)}.{rest}"
        elif match := re.fullmatch(r"(layer\d\.\d+\.)conv(\d)\.([01])\.(.+)", key):
            prefix, conv, number, rest = match.groups()
            renamed[key] = f"backbone.{prefix}{'bn' if number == '1' else 'conv'}{conv}.{rest}"
        elif _LAYERS.fullmatch(key):
            renamed[key] = f"backbone.{key}"
        elif match := re.fullmatch(r"(?:fc|classifier\.1)\.(weight|bias)", key):
            renamed[key] = f"fc.{match[1]}"
        elif match := _MOBILENET.fullmatch(key):
            renamed[key] = rename_mobilenet(int(match[1]), match[2])
    return renamed


def fit(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return weights by our names in the shapes of the network; see `swin.fit`."""
    return swin.fit(weights, model)


def notes(state_dict: Mapping[str, Any], model: nn.Module) -> list[str]:
    """Return remarks about these weights for the user."""
    return swin.notes(state_dict, model)


def rename_mobilenet(number: int, rest: str) -> str | None:
    """Return our name for `features.{number}.{rest}` of MobileNetV2 ("0.0", "0.1", …, "2", "3")."""
    *places, name = rest.split(".")
    if number in (0, 18):
        kind, position = ("conv", "bn")[int(places[0])], 1 if number == 0 else 2
        return f"backbone.{kind}{position}.{name}"
    if len(places) == 2:
        kind, position = ("conv", "bn")[int(places[1])], int(places[0]) + 1
    else:  # the last convolution and its normalization, which are not nested
        last = 2 if number == 1 else 3
        kind, position = ("conv", "bn")[int(places[0]) - last + 1], last
    return f"backbone.blocks.{number - 1}.{kind}{position}.{name}"


def adapt(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    """Change MViT to the form of the weights, in place.

    Returns:
        The builder arguments of this form; empty for other networks.
    """
    return mvit.adapt(state_dict, model) if mvit.is_torchvision(state_dict) else {}

"""Weights files: what they store, checkpoints, and conversion from other projects."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmaction_lite.weights.card import ModelCard, load, save_weights
    from mmaction_lite.weights.catalogue import WeightsEntry, list_weights
    from mmaction_lite.weights.conversion import convert_file
    from mmaction_lite.weights.converters import Conversion, convert, read_checkpoint

__all__ = [
    "Conversion",
    "ModelCard",
    "WeightsEntry",
    "convert",
    "convert_file",
    "list_weights",
    "load",
    "read_checkpoint",
    "save_weights",
]

_HOMES = {
    "Conversion": "converters",
    "ModelCard": "card",
    "WeightsEntry": "catalogue",
    "convert": "converters",
    "convert_file": "conversion",
    "list_weights": "catalogue",
    "load": "card",
    "read_checkpoint": "converters",
    "save_weights": "card",
}


def __getattr__(name: str) -> Any:
    # Imported on first use: reading a checkpoint does not need recipes, nor a card the converters.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

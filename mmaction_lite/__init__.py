"""mmaction-lite: video action recognition in plain PyTorch."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmaction_lite.inference.features import extract_features
    from mmaction_lite.inference.predict import Prediction, predict
    from mmaction_lite.recipes import get_recipe, list_recipes
    from mmaction_lite.weights.card import load
    from mmaction_lite.weights.catalogue import list_weights

__version__ = "0.2.0.dev0"

__all__ = ["Prediction", "extract_features", "get_recipe", "list_recipes", "list_weights", "load", "predict"]

_HOMES = {
    "Prediction": "mmaction_lite.inference.predict",
    "extract_features": "mmaction_lite.inference.features",
    "predict": "mmaction_lite.inference.predict",
    "get_recipe": "mmaction_lite.recipes",
    "list_recipes": "mmaction_lite.recipes",
    "list_weights": "mmaction_lite.weights.catalogue",
    "load": "mmaction_lite.weights.card",
}


def __getattr__(name: str) -> Any:
    # PyTorch takes two seconds to import: --help, and processes that only draw or decode, do without.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

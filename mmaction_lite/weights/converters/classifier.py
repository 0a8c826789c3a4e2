"""The classifier of a network in its state dict, and the comparison of class names."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.network import head

ClassMatch = Literal["unknown", "same", "permuted", "different"]


def classifier_names(model: nn.Module, num_classes: int | None = None) -> list[str]:
    """Return the names, in the state dict, of the linear layer that yields the logits.

    This is the last `nn.Linear` of the head, or the head itself if it has none; see `models.network.head`.

    Args:
        model: the network.
        num_classes: length of the logits, if known.

    Returns:
        The names; empty if the network has no head.
    """
    try:
        module = head(model, num_classes)
    except UserError:
        return []
    linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
    module = linear[-1] if linear else module
    prefix = next((name for name, part in model.named_modules() if part is module), None)
    if prefix is None:
        return []
    return [f"{prefix}.{name}" if prefix else name for name in module.state_dict()]


def compare_classes(source: Sequence[str] | None, target: Sequence[str] | None) -> ClassMatch:
    """Compare class names, each in the order of the logits.

    Args:
        source: of the checkpoint; None if it stores none.
        target: of the network; None if unknown.

    Returns:
        "unknown" if either is None, or numbers the classes from 0 instead of naming them; "permuted" if the
        names are the same in another order.
    """
    if source is None or target is None or _is_numbered(source) or _is_numbered(target):
        return "unknown"
    if tuple(source) == tuple(target):
        return "same"
    is_permuted = sorted(source) == sorted(target) and len(set(source)) == len(source)
    return "permuted" if is_permuted else "different"


def _is_numbered(classes: Sequence[str]) -> bool:
    return all(name == str(number) for number, name in enumerate(classes))

"""The classifier of a network in its state dict, and the comparison of class names."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.network import head

ClassMatch = Literal["unknown", "same", "permuted", "different"]


def classifier_names(model: nn.Module, num_classes: int | None = None) -> list[str]:
    """Return the names, in the state dict, of the linear layers that yield the logits.

    This is the last `nn.Linear` of the head, or the head itself if it has none; see `models.network.head`. If
    the head has several with `num_classes` outputs together, as for verbs and nouns, these are all of them.

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
    if sum(part.out_features for part in linear) != num_classes:
        linear = linear[-1:]
    prefixes = {part: name for name, part in model.named_modules()}
    return [
        f"{prefixes[part]}.{name}" if prefixes[part] else name
        for part in linear or [module]
        if part in prefixes
        for name in part.state_dict()
    ]


def place_classifier(
    weights: dict[str, Tensor],
    ours: Mapping[str, Tensor],
    names: Sequence[str],
    classes: Sequence[str] | None = None,
    source_classes: Sequence[str] | None = None,
) -> tuple[dict[str, Tensor], list[str], ClassMatch]:
    """Load, permute or leave out the classifier of a checkpoint.

    Args:
        weights: of the checkpoint, by our names.
        ours: state dict of the network.
        names: of the classifier, layer after layer.
        classes: class names of the network, if known.
        source_classes: class names of the checkpoint, if known.

    Returns:
        The weights to load, in which rows of the classifier may be permuted; the names of a classifier that
        keeps its initial values; and how the class names relate to each other.

    Raises:
        UserError: the checkpoint is for other classes or another order of them, and `names` is empty.
    """
    match = compare_classes(source_classes, classes)
    if match in ("permuted", "different") and not names:
        raise UserError(
            "the classes of the weights are not those of the network in the same order, and the network has "
            "no classifier to adapt; expected an attribute `head`. Assign the classifier to self.head"
        )
    given = [name for name in names if name in weights]
    if given and not _differs_in_size(weights, ours, names) and match != "different":
        if match != "permuted" or len(given) < len(names):
            return weights, [], match
        assert classes is not None
        assert source_classes is not None
        order = class_order(source_classes, classes)
        assert order is not None
        rows = _permuted(weights, names, order)
        if rows is not None:
            return weights | rows, [], match
        match = "different"
    return {name: weight for name, weight in weights.items() if name not in given}, [*names], match


def _differs_in_size(weights: Mapping[str, Tensor], ours: Mapping[str, Tensor], names: Sequence[str]) -> bool:
    """Whether a complete classifier differs from that of the network only in the number of classes."""
    if not all(name in weights and weights[name].shape[1:] == ours[name].shape[1:] for name in names):
        return False
    rows: dict[str, set[torch.Size]] = {}
    for name in names:
        rows.setdefault(_layer(name), set()).add(weights[name].shape[:1])
    is_complete = all(len(sizes) == 1 for sizes in rows.values())
    return is_complete and any(weights[name].shape[:1] != ours[name].shape[:1] for name in names)


def _permuted(
    weights: Mapping[str, Tensor], names: Sequence[str], order: Sequence[int]
) -> dict[str, Tensor] | None:
    """Return a classifier with its rows in `order`, which counts them across all layers.

    None if a row would move to another layer, or if the rows are not those of `order`.
    """
    found: dict[str, Tensor] = {}
    first = 0
    for layer in dict.fromkeys(map(_layer, names)):
        weight, *_ = entries = [name for name in names if _layer(name) == layer]
        size = sum(weights[weight].shape[:1])
        rows = [row - first for row in order[first : first + size]]
        if sorted(rows) != list(range(size)) or any(sum(weights[name].shape[:1]) != size for name in entries):
            return None
        found |= {name: weights[name][rows] for name in entries}
        first += size
    return found if first == len(order) else None


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


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
    order = class_order(source, target)
    if order is None:
        return "different"
    return "same" if order == list(range(len(order))) else "permuted"


def class_order(source: Sequence[str], target: Sequence[str]) -> list[int] | None:
    """Return the position in `source` of every name in `target`; None if the names are not the same.

    Names are compared exactly, otherwise in Unicode normalization form C, otherwise without regard to case,
    spaces, hyphens and underscores. Each comparison must assign the names one to one.
    """
    for spelling in (str, _composed, _simplified):
        ours, theirs = [spelling(name) for name in target], [spelling(name) for name in source]
        places = {name: number for number, name in enumerate(theirs)}
        if len(places) == len(theirs) and set(places) == set(ours) and len(ours) == len(theirs):
            return [places[name] for name in ours]
    return None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _simplified(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", _composed(name).casefold()).strip()


def _is_numbered(classes: Sequence[str]) -> bool:
    return all(name == str(number) for number, name in enumerate(classes))

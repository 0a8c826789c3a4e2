"""Other projects' weights under our names: one table per project, one function that applies them.

    conversion = convert(read_checkpoint("slowonly.pth"), slowonly_r50())

A table is a module: `NAME`; `matches(keys)`; `rename(keys)`, their keys to ours, None for what is left out
on purpose; and, where needed, `prepare(state_dict)`, which returns another, and `adapt(state_dict, model)`,
which gives the model the form that the weights imply and returns the builder's arguments for it.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.weights.converters import mit_tsm, mmaction2, pyslowfast, pytorchvideo, torchvision
from mmaction_lite.weights.converters.files import find_state_dict, read_checkpoint
from mmaction_lite.weights.converters.inflate import inflate

__all__ = ["Conversion", "classifier_size", "convert", "read_checkpoint"]

TABLES: tuple[Any, ...] = (mmaction2, pyslowfast, pytorchvideo, mit_tsm, torchvision)
OURS = "mmaction-lite"
COUNTER = "num_batches_tracked"  # not in every checkpoint, and used by nothing here
HEAD = ("fc.weight", "fc.bias")


@dataclass(frozen=True)
class Conversion:
    """What became of a checkpoint.

    Attributes:
        source: the project whose names it has.
        loaded: our names, filled from the checkpoint.
        reinitialised: our names, left as the builder made them: a classifier of other classes.
        unused: their names, left out on purpose.
        arguments: the builder's, for the form of the network that the checkpoint implies; to be stored
            with the weights.
    """

    source: str
    loaded: list[str]
    reinitialised: list[str]
    unused: list[str]
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(
            (
                f"loaded: {len(self.loaded)} entries, from names of {self.source}",
                f"re-initialised: {', '.join(self.reinitialised) or 'none'}",
                f"unused: {', '.join(self.unused) or 'none'}",
            )
        )


def convert(state_dict: Mapping[str, Any], model: nn.Module) -> Conversion:
    """Fill `model` in place from other projects' weights, or our own, recognised by their names.

    torchvision's image weights are inflated where the model looks along time. A classifier of other classes,
    or none, leaves the model's own as it is. Every other difference raises a `UserError` before any weight is
    written: an entry without a place, a missing one, another shape, a number that is not finite.

    Args:
        state_dict: the weights, or a whole checkpoint as `read_checkpoint` returns it.
        model: for the classes that are wanted; `adapt` may give it the checkpoint's form.
    """
    conversion, found = _match(find_state_dict(dict(state_dict)), model)
    for name, weight in found.items():
        if weight.is_floating_point() and not torch.stack(weight.aminmax()).isfinite().all():
            raise UserError(
                f"{conversion.source}'s weights are damaged: {name} holds numbers that are not finite"
            )
    ours = model.state_dict()
    with torch.no_grad():
        for name, weight in found.items():
            ours[name].copy_(weight)
    return conversion


def classifier_size(state_dict: Mapping[str, Any]) -> int | None:
    """How many classes the weights in a checkpoint tell apart; None where it has no classifier."""
    weights = find_state_dict(dict(state_dict))
    table = _recognise(weights)
    names = table.rename(weights) if table else {key: key for key in weights}
    return next((len(weights[key]) for key, name in names.items() if name == HEAD[0]), None)


def _match(weights: dict[str, Tensor], model: nn.Module) -> tuple[Conversion, dict[str, Tensor]]:
    """Every weight at its place by our names, of the model's shape, with nothing left over on either side."""
    table = _recognise(weights)
    source = table.NAME if table else OURS
    names: Mapping[str, str | None] = {key: key for key in weights}
    arguments: dict[str, Any] = {}
    if table:
        weights, names, arguments = _translate(weights, table, model)

    ours = model.state_dict()
    found: dict[str, Tensor] = {}
    strays, unused = [], []
    for key, weight in weights.items():
        name = names.get(key, "")
        if name is None:
            unused.append(key)
        elif name not in ours or name in found:
            strays.append(key)
        else:
            found[name] = _unfolded(weight, ours[name], image=table is torchvision)
    kept = _classifier_to_keep(found, ours)
    found = {name: weight for name, weight in found.items() if name not in kept}
    missing = [name for name in ours if name not in found and name not in kept and not name.endswith(COUNTER)]
    misfits = [name for name, weight in found.items() if not _fits(weight, ours[name])]
    if strays or missing or misfits:
        shapes = (
            f" ({misfits[0]} is {_kind(found[misfits[0]])}, expected {_kind(ours[misfits[0]])})"
            if misfits
            else ""
        )
        raise UserError(
            f"{source}'s {len(weights)} weights do not fit this model's {len(ours)}: "
            f"{len(strays)} have no place here{_examples(strays, missing or ours)}, "
            f"{len(missing)} are missing{_examples(missing, strays)}, "
            f"{len(misfits)} differ in shape or type{shapes}; build the model that they are for"
        )
    return Conversion(source, list(found), kept, unused, arguments), found


def _recognise(weights: Mapping[str, Tensor]) -> Any | None:
    """The table whose names these are, or None for our own names."""
    for table in TABLES:
        if table.matches(weights):
            return table
    if all(key.startswith(("backbone.", *HEAD)) for key in weights):
        return None
    raise UserError(
        f"weights of unknown origin, {len(weights)} entries such as {', '.join(list(weights)[:3])}; "
        f"expected names of {', '.join(table.NAME for table in TABLES)} or {OURS}"
    )


def _translate(
    weights: dict[str, Tensor], table: Any, model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, str | None], dict[str, Any]]:
    """Apply a table: weights, their names to ours, and the builder's arguments that they imply."""
    shifts = any(getattr(module, "share", 0) for module in model.modules())
    if not shifts and any(".net." in key for key in weights):
        raise UserError(
            f"{table.NAME}'s weights are of a TSM, the model does not shift in time; build a tsm model"
        )
    try:
        if hasattr(table, "prepare"):
            weights = table.prepare(weights)
        arguments = table.adapt(weights, model) if hasattr(table, "adapt") else {}
        return weights, table.rename(weights), arguments
    except (LookupError, ValueError, RuntimeError) as error:  # a table trusts the names and shapes it knows
        raise UserError(
            f"{table.NAME}'s weights have names or shapes that are not known: {error!r:.80}"
        ) from None


def _unfolded(weight: Tensor, wanted: Tensor, *, image: bool) -> Tensor:
    """A convolution over pixels where ours is over frames too: over one of them, or any of image weights."""
    if weight.ndim != 4 or wanted.ndim != 5 or not (image or wanted.shape[2] == 1):
        return weight
    return inflate(weight, wanted.shape)


def _classifier_to_keep(found: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """The model's classifier, where the checkpoint's is for another number of classes or is not there."""
    head = [name for name in HEAD if name in ours]
    theirs = {name: found[name].shape for name in head if name in found}
    if not theirs:
        return head
    classes = {shape[:1] for shape in theirs.values()}
    whole = len(theirs) == len(head) and len(classes) == 1
    alike = all(shape[1:] == ours[name].shape[1:] for name, shape in theirs.items())
    return head if whole and alike and ours[head[0]].shape[:1] not in classes else []


def _fits(weight: Tensor, wanted: Tensor) -> bool:
    return weight.shape == wanted.shape and weight.is_floating_point() == wanted.is_floating_point()


def _kind(weight: Tensor) -> str:
    return f"{str(weight.dtype).removeprefix('torch.')} {tuple(weight.shape)}"


def _examples(names: list[str], others: Iterable[str]) -> str:
    """The first of some names and what resembles it most, in brackets."""
    if not names:
        return ""
    near = difflib.get_close_matches(names[0], others, n=1, cutoff=0.3)
    return f" ({names[0]}{', …' if len(names) > 1 else ''}; nearest: {near[0] if near else 'none'})"

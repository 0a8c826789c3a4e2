"""Conversion of checkpoints: other projects' weights under the names of this package.

    conversion = convert(read_checkpoint("slowonly.pth"), slowonly_r50())

Each project has a table, which is a module with

* `NAME`: the project;
* `matches(keys) -> bool`: whether a checkpoint with these keys comes from the project;
* `rename(keys) -> dict`: keys of the project to ours; None for entries that are left out on purpose;
* `prepare(state_dict) -> dict` (optional): the state dict with changed values;
* `untrained(keys, names) -> Collection[str]` (optional): those of our names besides the classifier that the
  weights lack on purpose, and that keep their initial values;
* `notes(state_dict, model) -> list[str]` (optional): remarks for the user about these weights;
* `normalize(model) -> Normalize | None` (optional): normalization of pixels, if it depends on the network;
* `fit(weights, model) -> dict` (optional): the weights by our names with the shapes of the network, such as
  those of an image network inflated for clips;
* `adapt(state_dict, model) -> dict` (optional): changes the network, in place, to the form that the weights
  are for, and returns the arguments with which the builder makes this form.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.weights.checks import check_values, fits_dtype
from mmaction_lite.weights.converters import (
    hiera,
    huggingface_videomae,
    huggingface_vjepa,
    mit_tsm,
    mmaction2,
    pyslowfast,
    pytorchvideo,
    swin,
    timm,
    torchvision,
    uniformerv2,
    videomae,
    vjepa,
)
from mmaction_lite.weights.converters.channels import reverse_input_channels
from mmaction_lite.weights.converters.classifier import ClassMatch, classifier_names, place_classifier
from mmaction_lite.weights.converters.files import (
    find_state_dict,
    find_weights,
    read_checkpoint,
    stored_classes,
)
from mmaction_lite.weights.converters.forms import differences
from mmaction_lite.weights.converters.inflate import inflate
from mmaction_lite.weights.converters.sources import StoredSettings, source_normalize, stored_settings

__all__ = ["Conversion", "classifier_size", "convert", "read_checkpoint", "stored_classes"]

TABLES: tuple[Any, ...] = (
    swin,
    hiera,
    uniformerv2,
    mmaction2,
    pyslowfast,
    pytorchvideo,
    mit_tsm,
    torchvision,
    videomae,
    huggingface_videomae,
    huggingface_vjepa,
    vjepa,
)
OURS = "mmaction-lite"
COUNTER = "num_batches_tracked"  # absent from some checkpoints, and not used in this package


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        source: project of the checkpoint.
        loaded: our names of the entries that were loaded.
        reinitialized: our names of the entries that keep their initial values: the classifier, if the
            checkpoint has none or is for other classes, and what a pre-training does not train.
        unused: the project's names of entries that were left out on purpose.
        arguments: builder arguments for the form of the network that the checkpoint is for; to be stored
            with the weights.
        classes: how the class names of the checkpoint relate to those of the network. "permuted": the
            classifier was loaded in the order of the network's classes.
        other_form: differences between the network that the weights are for and the network that received
            them, although all shapes are equal; see `forms`.
        normalize: normalization of pixels that the weights expect; None if unknown.
        settings: settings of the training that the checkpoint stores.
        notes: further remarks for the user.
    """

    source: str
    loaded: list[str]
    reinitialized: list[str]
    unused: list[str]
    arguments: dict[str, Any] = field(default_factory=dict)
    classes: ClassMatch = "unknown"
    other_form: list[str] = field(default_factory=list)
    normalize: Normalize | None = None
    notes: list[str] = field(default_factory=list)
    settings: StoredSettings = field(default_factory=StoredSettings)

    def __str__(self) -> str:
        permuted = "; head permuted to the order of the training classes" * (self.classes == "permuted")
        differ = " (classes differ)" * (self.classes == "different")
        return "\n".join(
            (
                f"loaded: {len(self.loaded)} entries, from names of {self.source}{permuted}",
                f"re-initialized: {', '.join(self.reinitialized) or 'none'}{differ}",
                f"unused: {', '.join(self.unused) or 'none'}",
                *(f"note: {note}" for note in [*self.other_form, *self.notes]),
            )
        )


def convert(
    state_dict: Mapping[str, Any],
    model: nn.Module,
    *,
    classes: Sequence[str] | None = None,
    source_classes: Sequence[str] | None = None,
) -> Conversion:
    """Load weights of this network, of this package or of another project into `model`, in place.

    The names decide: those of the network's own state dict first, then those of each project. The weights of
    torchvision's image networks are inflated for networks with convolutions over time.

    The classifier keeps its initial values if the checkpoint has none, or one for another number of classes.
    If both class names are given, it does so for every other set of classes, and is permuted if the same
    classes are in another order. Any other difference raises an error before a weight is written.

    Args:
        state_dict: the weights, or a whole checkpoint as `read_checkpoint` returns it.
        model: the network, built for the number of classes that is wanted; `adapt` of a table may change it.
        classes: names of the classes of `model`, in the order of its logits.
        source_classes: names of the classes of the checkpoint, in the order of its logits.

    Returns:
        What was loaded.

    Raises:
        UserError: entries without a counterpart, missing ones, other shapes or types, or values that are not
            finite.
    """
    settings = stored_settings(state_dict)
    weights, notes = find_weights(dict(state_dict), model.state_dict())
    conversion, found = _match(weights, model, classes, source_classes, settings)
    conversion = replace(conversion, notes=[*notes, *conversion.notes])
    try:
        check_values(found, model.state_dict())
    except UserError as error:
        raise UserError(f"{conversion.source}: {error}") from None
    ours = model.state_dict()
    with torch.no_grad():
        for name, weight in found.items():
            ours[name].copy_(weight)
    return conversion


def classifier_size(
    state_dict: Mapping[str, Any], model: nn.Module, num_classes: int | None = None
) -> int | None:
    """Return the number of classes of a checkpoint; None if it has no classifier.

    Args:
        state_dict: as for `convert`.
        model: the network that the checkpoint is for, built for any number of classes.
        num_classes: number of classes that `model` is built for. If several heads have this many together, as
            for verbs and nouns, the classes of all heads are counted.

    Raises:
        UserError: the checkpoint is of unknown origin, or its classifier is not that of the network.
    """
    ours, names = model.state_dict(), classifier_names(model, num_classes)
    weights = find_state_dict(dict(state_dict), ours)
    table = _recognize(weights, ours, names)
    renamed = table.rename(weights) if table else {key: key for key in weights}
    found = {name: weights[key] for key, name in renamed.items() if name in names}
    sizes: dict[str, int] = {}
    for name, weight in found.items():
        wanted = ours[name].shape
        if weight.ndim != len(wanted) or not len(wanted) or weight.shape[1:] != wanted[1:]:
            raise UserError(f"the classifier {name} is {_kind(weight)}, which is not that of this network")
        sizes.setdefault(name.rpartition(".")[0], len(weight))
    return sum(sizes.values()) if sizes else None


def _match(
    weights: dict[str, Tensor],
    model: nn.Module,
    classes: Sequence[str] | None = None,
    source_classes: Sequence[str] | None = None,
    settings: StoredSettings | None = None,
) -> tuple[Conversion, dict[str, Tensor]]:
    """Return the conversion, and the weights by our names, each of the shape that the network has."""
    head = classifier_names(model, None if classes is None else len(classes))
    table = _recognize(weights, model.state_dict(), head)
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
            found[name] = weight
    found = table.fit(found, model) if table and hasattr(table, "fit") else found
    is_image = table is torchvision
    found = {name: _unfolded(weight, ours[name], image=is_image) for name, weight in found.items()}
    found, kept, match = place_classifier(found, ours, head, classes, source_classes)
    if table and hasattr(table, "untrained"):
        untrained = table.untrained(weights, ours)
        kept += [name for name in untrained if name in ours and name not in found and name not in kept]
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
    settings = settings or StoredSettings()
    found, reversed_note = reverse_input_channels(found, model) if settings.is_bgr else (found, "")
    return (
        Conversion(
            source,
            list(found),
            kept,
            unused,
            arguments,
            match,
            list(differences(source, names, model, settings)) if table else [],
            source_normalize(source, weights.keys(), settings) or _table_normalize(table, model),
            [
                *_class_notes(kept, match, head, classes),
                *_table_notes(table, weights, model),
                *([reversed_note] if reversed_note else []),
            ],
            settings,
        ),
        found,
    )


def _class_notes(
    kept: Sequence[str], match: ClassMatch, head: Sequence[str], classes: Sequence[str] | None
) -> list[str]:
    if set(kept) & set(head) or match != "unknown" or not head or classes is None:
        return []
    return [
        f"the classifier is loaded, because it has {len(classes)} classes, too. The file does not name them: "
        "if they are others, or in another order, first store their names with "
        "`mmaction-lite convert --classes`"
    ]


def _table_normalize(table: Any, model: nn.Module) -> Normalize | None:
    return table.normalize(model) if table and hasattr(table, "normalize") else None


def _table_notes(table: Any, weights: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    return table.notes(weights, model) if table and hasattr(table, "notes") else []


def _recognize(weights: Mapping[str, Tensor], ours: Mapping[str, Tensor], head: Sequence[str]) -> Any | None:
    """Return the table of the project with these names; None for the names of the network itself.

    Args:
        weights: of the checkpoint.
        ours: state dict of the network.
        head: the names in it that the checkpoint may lack.

    Raises:
        UserError: no name is known.
    """
    required, given = (
        {name for name in state if name not in head and not name.endswith(COUNTER)}
        for state in (ours, weights)
    )
    if required == given:
        return None
    for table in (*timm.tables(ours), *TABLES):
        if table.matches(weights):
            return table
    if required & given:
        return None
    raise UserError(
        f"weights of unknown origin, {len(weights)} entries such as {', '.join(list(weights)[:3])}; "
        f"expected names of {', '.join(table.NAME for table in TABLES)} or {OURS}, or those of this model, "
        f"such as {', '.join(list(ours)[:3])}"
    )


def _translate(
    weights: dict[str, Tensor], table: Any, model: nn.Module
) -> tuple[dict[str, Tensor], dict[str, str | None], dict[str, Any]]:
    """Apply a table; return the weights, our name of each entry, and the implied builder arguments."""
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
    except (LookupError, ValueError, RuntimeError) as error:  # tables do not check names and shapes
        raise UserError(
            f"{table.NAME}'s weights have names or shapes that are not known: {error!r:.80}"
        ) from None


def _unfolded(weight: Tensor, wanted: Tensor, *, image: bool) -> Tensor:
    """Return a weight with the axes of ours.

    A weight over pixels gets a time axis: of length 1, or inflated if it comes from an image network. A 1×1×1
    convolution becomes a linear layer.
    """
    if weight.ndim == 5 and wanted.ndim == 2 and weight.shape[2:] == (1, 1, 1):
        return weight.flatten(1)
    if weight.ndim != 4 or wanted.ndim != 5 or not (image or wanted.shape[2] == 1):
        return weight
    return inflate(weight, wanted.shape)


def _fits(weight: Tensor, wanted: Tensor) -> bool:
    return weight.shape == wanted.shape and fits_dtype(weight.dtype, wanted.dtype)


def _kind(weight: Tensor) -> str:
    return f"{str(weight.dtype).removeprefix('torch.')} {tuple(weight.shape)}"


def _examples(names: list[str], others: Iterable[str]) -> str:
    """Return the first name and the most similar name in `others`, in brackets."""
    if not names:
        return ""
    near = difflib.get_close_matches(names[0], others, n=1, cutoff=0.3)
    return f" ({names[0]}{', …' if len(names) > 1 else ''}; nearest: {near[0] if near else 'none'})"

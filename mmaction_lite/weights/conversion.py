"""Conversion of a checkpoint of another project to a weights file."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.files import check_replaceable
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.converters import (
    Conversion,
    classifier_size,
    convert,
    find_state_dict,
    read_checkpoint,
    stored_classes,
)
from mmaction_lite.weights.converters.forms import is_for_images
from mmaction_lite.weights.converters.vjepa import PROBES, is_encoder
from mmaction_lite.weights.fitting_protocol import fit_protocol
from mmaction_lite.weights.same_form import check_same_form


def convert_file(
    file: Path,
    recipe: Recipe,
    out: Path,
    classes: Sequence[str] | None = None,
    *,
    probe: Path | None = None,
    keep_protocol: bool = False,
) -> Conversion:
    """Convert the weights in `file` to a weights file with the network and the protocols of `recipe`.

    If the project of the weights normalizes pixels or samples clips differently from `recipe`, the protocols
    become those of the recipe of the package that fits the weights, if there is one, and otherwise get the
    normalization and the sampling of the project; see `converters.sources`. Weights of PySlowFast are stored
    with its test: if the test crops are larger than the training crops, the protocols get a `window`.

    Args:
        file: a checkpoint of MMAction2, PySlowFast, PyTorchVideo, MIT TSM or torchvision, or of the network.
        recipe: recipe of the network that the weights are for; its protocols are stored with the weights.
        out: the new file (.safetensors); it must not exist.
        classes: class names in the order of the logits. None: those that `file` stores, or numbers.
        probe: file with the probe of V-JEPA, if `file` has the encoder only.
        keep_protocol: store the protocols of `recipe` unchanged.

    Returns:
        What was loaded, with notes about changed protocols.

    Raises:
        UserError: the file cannot be read or does not fit the network, is for another form of it, has no
            classifier or one for another number of classes, or `out` exists.
    """
    if out.suffix != ".safetensors" or os.path.lexists(out) or not out.parent.is_dir():
        exists = "; this file exists already" if os.path.lexists(out) else ""
        raise UserError(f"{out}: expected a new file ending in .safetensors, in a folder that exists{exists}")
    checkpoint = read_checkpoint(file)
    if probe is not None:
        checkpoint |= read_probes(probe)
    stored = stored_classes(checkpoint)
    try:
        check_same_form(checkpoint, recipe.model)
        size = _num_classes(checkpoint, recipe, classes or stored)
        if size is None:
            with reading(file):
                convert(checkpoint, recipe.model(num_classes=1))  # refuses weights of another network
            add = "Add the file of its probe as --probe. " * is_encoder(checkpoint)
            raise UserError(
                f"no classifier, so it predicts no classes. {add}To train from it, use --init-from"
            )
        if classes is not None and len(classes) != size:
            raise UserError(f"the classifier has {size} classes; expected {len(classes)} as in the names")
        model = recipe.model(num_classes=size)
        with reading(file):
            conversion = convert(checkpoint, model)
        if conversion.other_form:
            raise UserError(conversion.other_form[0])
        if is_for_images(conversion.source, find_state_dict(checkpoint), model):
            raise UserError(
                "the weights are of an image network, and the recipe is of a video network, which must be "
                "trained first. Pass the file to `mmaction-lite train` as --init-from"
            )
    except UserError as error:
        raise UserError(f"{error}" if str(error).startswith(f"{file}: ") else f"{file}: {error}") from None
    if not keep_protocol:
        recipe, notes = fit_protocol(recipe, conversion)
        conversion = replace(conversion, notes=[*conversion.notes, *notes])
    del checkpoint  # its weights are in the model
    names = classes or stored or ()
    card = ModelCard.of(recipe, tuple(names) if len(names) == size else tuple(map(str, range(size))))
    check_replaceable(out, "a new weights file")  # written since the start of the conversion?
    save_weights(out, model.state_dict(), card.starting_from(file.name, conversion.arguments))
    return conversion


def read_probes(file: Path) -> dict[str, Any]:
    """Return the probes in a file of V-JEPA, under their key.

    Raises:
        UserError: the file cannot be read, or has no probes.
    """
    checkpoint = read_checkpoint(file)
    if not isinstance(checkpoint.get(PROBES), list) or not checkpoint[PROBES]:
        keys = ", ".join(printable(str(key), 40) for key in list(checkpoint)[:5])
        raise UserError(
            f"{file}: has {keys or 'no entry'}; expected a list of state dicts under {PROBES!r}, as in the "
            "probe files of V-JEPA. Pass the file of the encoder first, and that of the probe as --probe"
        )
    return {PROBES: checkpoint[PROBES]}


def _num_classes(checkpoint: dict, recipe: Recipe, names: Sequence[str] | None) -> int | None:
    """Return the number of classes of a checkpoint; None if it has no classifier.

    A network with several heads, as for verbs and nouns, can be built for the number of names only.
    """
    if names:
        model = recipe.model(num_classes=len(names))
        with suppress(UserError):
            if classifier_size(checkpoint, model, len(names)) == len(names):
                return len(names)
    return classifier_size(checkpoint, recipe.model(num_classes=1))

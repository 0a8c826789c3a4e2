"""Conversion of a checkpoint of another project to a weights file."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmaction_lite.errors import UserError
from mmaction_lite.files import check_replaceable
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.converters import (
    Conversion,
    classifier_size,
    convert,
    pyslowfast,
    read_checkpoint,
    stored_classes,
)

STRIDE = 32  # pixels for each position of the last feature map, in every network of PySlowFast


def convert_file(file: Path, recipe: Recipe, out: Path, classes: Sequence[str] | None = None) -> Conversion:
    """Convert the weights in `file` to a weights file with the network and the protocols of `recipe`.

    Weights of PySlowFast are stored with its test: if the test crops of `recipe` are larger than its training
    crops, the protocols get a `window`.

    Args:
        file: a checkpoint of MMAction2, PySlowFast, PyTorchVideo, MIT TSM or torchvision, or of the network.
        recipe: recipe of the network that the weights are for; its protocols are stored with the weights.
        out: the new file (.safetensors); it must not exist.
        classes: class names in the order of the logits. None: those that `file` stores, or numbers.

    Returns:
        What was loaded.

    Raises:
        UserError: the file cannot be read or does not fit the network, has no classifier or one for another
            number of classes, or `out` exists.
    """
    if out.suffix != ".safetensors" or out.exists() or not out.parent.is_dir():
        exists = "; this file exists already" if out.exists() else ""
        raise UserError(f"{out}: expected a new file ending in .safetensors, in a folder that exists{exists}")
    check_replaceable(out, "a new file", sources=[file])
    checkpoint = read_checkpoint(file)
    try:
        size = classifier_size(checkpoint, recipe.model(num_classes=1))
        if size is None:
            raise UserError("no classifier, so it predicts no classes. To train from it, use --init-from")
        if classes is not None and len(classes) != size:
            raise UserError(f"the classifier has {size} classes; expected {len(classes)} as in the names")
        model = recipe.model(num_classes=size)
        conversion = convert(checkpoint, model)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if conversion.source == pyslowfast.NAME:
        recipe = _with_window(recipe)
    names = classes or stored_classes(checkpoint) or ()
    card = ModelCard.of(recipe, tuple(names) if len(names) == size else tuple(map(str, range(size))))
    check_replaceable(out, "a new file", sources=[file])
    save_weights(out, model.state_dict(), card.starting_from(file.name, conversion.arguments))
    return conversion


def _with_window(recipe: Recipe) -> Recipe:
    """Return the recipe with PySlowFast's test of clips that are larger than those of the training.

    PySlowFast classifies every window of the features that has the size of the features in training. Recipes
    that already set a window, and those with equal sizes, stay unchanged.
    """
    trained, tested = min(recipe.train.crop.size), min(recipe.test.crop.size)
    if recipe.window is not None or tested <= trained:
        return recipe
    return replace(recipe, window=trained // STRIDE)

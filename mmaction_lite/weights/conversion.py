"""Another project's checkpoint to a weights file of ours."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mmaction_lite.errors import UserError
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.converters import Conversion, classifier_size, convert, pyslowfast, read_checkpoint

STRIDE = 32  # pixels for each position of the last feature map, in every network of PySlowFast


def convert_file(file: Path, recipe: Recipe, out: Path, classes: Sequence[str] | None = None) -> Conversion:
    """Write the weights in `file` to `out` (.safetensors), with the network and protocols of `recipe`.

    Args:
        file: a checkpoint of MMAction2, PySlowFast, PyTorchVideo, MIT's TSM or torchvision, or ours.
        recipe: its network must be the one that the weights are for, its test views become theirs.
        out: a file that does not exist yet.
        classes: names in the order of the logits; None numbers them.

    Raises:
        UserError: the file cannot be read, does not fit, has no classifier or one of another size than
            `classes`, or `out` exists.
    """
    if out.suffix != ".safetensors" or out.exists() or not out.parent.is_dir():
        raise UserError(f"{out}: expected a new file ending in .safetensors, in a folder that exists")
    checkpoint = read_checkpoint(file)
    try:
        with torch.device("meta"):
            model = recipe.model(num_classes=1)
        size = classifier_size(checkpoint, model)
        if size is None:
            raise UserError("has no classifier, so it names no action; train from it with --init-from")
        if classes is not None and len(classes) != size:
            raise UserError(f"tells {size} classes apart, {len(classes)} names were given")
        model = recipe.model(num_classes=size)
        conversion = convert(checkpoint, model)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    if conversion.source == pyslowfast.NAME:
        recipe = _with_window(recipe)
    card = ModelCard.of(recipe, tuple(classes or map(str, range(size))))
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

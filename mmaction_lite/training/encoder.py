"""The frozen encoder of a probe: which network it is, its weights, and the recipe that fits it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.models.probe import ENCODER, Probe, encoder_builder, remove_classifier
from mmaction_lite.models.videomae_pretrain import VideoMAEPretraining, network_to_tune
from mmaction_lite.recipes.probe import adopt_views, encoder_of, with_encoder
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.weights.card import BUILDERS, ModelCard, load, run_weights
from mmaction_lite.weights.converters import convert, read_checkpoint
from mmaction_lite.weights.converters.folders import is_hub_folder
from mmaction_lite.weights.fitting_protocol import normalize_notes
from mmaction_lite.weights.named import locate, locate_initial
from mmaction_lite.weights.same_form import stored_build

FILE = "encoder.safetensors"
"""File of a run folder with the encoder of a probe, so that a resumed run needs no other file."""


class Encoder(NamedTuple):
    """An encoder with its weights.

    Args:
        weights: state dict of the network without its classifier.
        source: name of the weights file.
        recipe: the recipe of the probe for this encoder.
    """

    weights: dict[str, Tensor]
    source: str
    recipe: Recipe


def find_encoder(out: Path, init_from: str | Path | None, resume: bool) -> str | Path:
    """Return where the encoder of a run is: in the run folder to resume, or in the initial weights.

    Raises:
        UserError: neither is there.
    """
    if resume and (out / FILE).is_file():
        return out / FILE
    if init_from is None:
        missing = (
            f"{out / FILE}: no such file; p" if resume else "the recipe trains a probe on a frozen encoder; p"
        )
        raise UserError(f"{missing}ass the weights of the encoder as --init-from")
    return init_from


def load_encoder(given: str | Path, recipe: Recipe, report: Callable[[str], None]) -> Encoder:
    """Load the encoder of a probe.

    Weights with a model card define the network and the normalization of its pixels, and, if the recipe names
    no encoder, the views. Other weights are converted for the network that the recipe names.

    Args:
        given: weights file, run folder, address or name of public weights.
        recipe: recipe of the probe.
        report: called with lines about the weights.

    Raises:
        UserError: there are no such weights, or they are of another network than that of the recipe.
    """
    wanted = encoder_of(recipe)
    path = (
        locate(given) if wanted is None else locate_initial(given, replace(recipe, model=wanted, probe=None))
    )
    if not path.exists():
        raise UserError(f"{path}: no such file or run folder; --init-from takes trained weights")
    if path.is_dir() and not is_hub_folder(path):
        path = run_weights(path)
    checkpoint = read_checkpoint(path)
    found = stored_build(checkpoint)
    if found is None:
        return _converted(path, checkpoint, recipe, wanted, report)
    if found[0] not in BUILDERS:
        raise UserError(
            f"{path}: the weights are of {printable(found[0], 100)}, a network from outside of the package; "
            "expected a network of the package, because the weights of a probe store the name of its encoder"
        )
    model = load(path)
    card = model.card
    assert isinstance(card, ModelCard)
    builder, arguments = card.builder, {k: v for k, v in card.arguments.items() if k != "num_classes"}
    if isinstance(model, Probe):  # the encoder of another probe
        builder, arguments = arguments.get("encoder", ENCODER), dict(arguments.get("arguments", ()))
    elif isinstance(model, VideoMAEPretraining):
        model, builder, arguments = _without_decoder(checkpoint, builder, arguments, report)
    if wanted is not None and wanted.builder.__name__ != builder:
        raise UserError(
            f"{path}: the weights are of {builder}, and the encoder of the recipe is "
            f"{wanted.builder.__name__}; pass the recipe of their training with --probe, or "
            "probe_linear_1x1x8_50e_own_rgb, which takes the encoder of the weights"
        )
    if wanted is None:
        recipe = adopt_views(recipe, card.val, card.test)
    elif recipe.normalize != card.test.normalize:
        report(f"note: pixels are normalized as the weights expect, with {card.test.normalize}")
        recipe = replace(recipe, normalize=card.test.normalize)
    return _encoder(model, builder, arguments, path, recipe)


def _converted(
    path: Path,
    checkpoint: dict[str, Any],
    recipe: Recipe,
    wanted: Build | None,
    report: Callable[[str], None],
) -> Encoder:
    """Convert weights without a model card for the encoder that the recipe names."""
    if wanted is None:
        raise UserError(
            f"{path}: has no model card, and the recipe names no encoder; expected --probe with a recipe of "
            "the network, or --set model.encoder=NAME"
        )
    network = wanted()
    with reading(path):
        conversion = convert(checkpoint, network)
    notes = normalize_notes(recipe.normalize, conversion, checkpoint)
    report(f"encoder: {replace(conversion, notes=[*conversion.notes, *notes])}")
    if conversion.normalize is not None:
        recipe = replace(recipe, normalize=conversion.normalize)
    return _encoder(network, wanted.builder.__name__, wanted.arguments | conversion.arguments, path, recipe)


def _without_decoder(
    checkpoint: dict[str, Any], builder: str, arguments: dict[str, Any], report: Callable[[str], None]
) -> tuple[nn.Module, str, dict[str, Any]]:
    """Return the network that a pre-training is for, with its weights, and its builder and arguments."""
    builder, arguments = network_to_tune(builder, arguments)
    network = encoder_builder(builder)(**arguments)
    report(f"encoder: {convert(checkpoint, network)}")
    return network, builder, arguments


def _encoder(
    network: nn.Module, builder: str, arguments: dict[str, Any], path: Path, recipe: Recipe
) -> Encoder:
    """Return the encoder without its classifier."""
    if isinstance(network, Probe):
        network = network.encoder
    else:
        remove_classifier(network)
    model = with_encoder(recipe.model, builder, tuple(arguments.items()))
    return Encoder(network.state_dict(), path.name, replace(recipe, model=model))

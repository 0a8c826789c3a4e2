"""Comparison of the network that weights with a model card are for with the network of a recipe."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from mmaction_lite.errors import UserError, printable
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import BUILDERS
from mmaction_lite.weights.converters.files import CARD


def check_same_form(checkpoint: Mapping[str, Any], build: Build) -> None:
    """Check that weights with a model card are for the network that `build` makes.

    Equal shapes do not suffice: strides, shifted channels and the order of features have none.

    Args:
        checkpoint: content of the file, as `read_checkpoint` returns it.
        build: builder of the network and its arguments.

    Raises:
        UserError: the card names another builder of the package, or other arguments of it.
    """
    found = stored_build(checkpoint)
    if found is None or found[0] not in BUILDERS:  # the builder of a user may have been renamed
        return
    builder, arguments = found
    if builder != build.builder.__name__:
        raise UserError(
            f"these are weights of {builder}, and the recipe builds {build.builder.__name__}; pass the "
            "recipe of their training"
        )
    for name, value, wanted in differing_arguments(arguments, build):
        raise UserError(
            f"these are weights of {builder} with {name}={printable(repr(value), 60)}, and the recipe has "
            f"{name}={wanted!r}, which is another network. Pass the recipe of their training, or --set "
            f"model.{name}={printable(str(value), 60)}"
        )


def check_same_heads(arguments: Mapping[str, Any], build: Build) -> None:
    """Check that weights of another builder have the attention heads of the network that `build` makes.

    The number of heads changes no shape, so weights of a pre-training would be loaded without an error.

    Args:
        arguments: of the builder of the weights, as `stored_build` returns them.
        build: builder of the network and its arguments.

    Raises:
        UserError: both networks have a number of heads, and it differs.
    """
    if "heads" not in inspect.signature(build.builder).parameters:
        return
    stored, wanted = arguments.get("heads"), build.arguments.get("heads")
    if stored != wanted:
        raise UserError(
            f"the weights have heads={printable(repr(stored), 60)}, and the recipe has heads={wanted!r}, "
            f"which is another network; add --set model.heads={printable(str(stored), 60)}"
        )


def stored_build(checkpoint: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the name of the builder and its arguments in the model card of a checkpoint, if it has one."""
    try:
        fields = json.loads(checkpoint[CARD])
        builder, arguments = fields["builder"], fields["arguments"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    return (builder, arguments) if isinstance(builder, str) and isinstance(arguments, dict) else None


def differing_arguments(arguments: Mapping[str, Any], build: Build) -> list[tuple[str, Any, Any]]:
    """Return name, stored value and value in `build` of the arguments that change what a network computes."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(build.builder).parameters.items()
        if name not in ("num_classes", "dropout") and parameter.default is not parameter.empty
    }
    stored = {name: tuple(v) if isinstance(v, list) else v for name, v in arguments.items()}
    return [
        (name, stored.get(name, default), build.arguments.get(name, default))
        for name, default in defaults.items()
        if stored.get(name, default) != build.arguments.get(name, default)
    ]

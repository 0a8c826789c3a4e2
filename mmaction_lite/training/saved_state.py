"""Read `last.pt` of an interrupted run, and check its content before a training continues with it."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.settings import check_value
from mmaction_lite.weights.card import ModelCard
from mmaction_lite.weights.checkpoint import load_state
from mmaction_lite.weights.checks import check_fit, check_values

T = TypeVar("T")


def read_saved(path: Path) -> tuple[dict[str, Any], ModelCard]:
    """Return the content of `last.pt` and its model card.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        saved = load_state(path)
    except UserError as error:
        best = path.with_name("best.pt")
        if not path.exists() or not best.is_file():
            raise
        raise UserError(
            f"{error}. To continue, restore a copy of last.pt; to train on from the best weights, start a "
            f"new run with another --out and --init-from {best}"
        ) from None
    with reading(path, advice="it is no checkpoint of this version; start a new run with another --out"):
        found = ModelCard.from_json(saved["card"])
        if not isinstance(saved.get("recipe"), str) or not isinstance(saved.get("progress"), dict):
            raise ValueError("no text 'recipe' or no dict 'progress'")
    return saved, found


def check_card(path: Path, found: ModelCard, card: ModelCard) -> None:
    """Check that the card of `last.pt` is that of the training, except for arguments and initial weights.

    Raises:
        UserError: it is of another network, of other classes or of another task.
    """
    if (found.builder, found.classes, found.task) != (card.builder, card.classes, card.task):
        raise UserError(f"{path}: is of another network or other classes; start a new run with another --out")


def read_progress(path: Path, saved: Mapping[str, Any], kind: type[T]) -> T:
    """Return the progress that `last.pt` stores, as an instance of the dataclass `kind`.

    Raises:
        UserError: a field is missing or unknown, or has another type.
    """
    wanted = {field.name: field.type for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    if wanted.keys() != saved.keys():
        name = printable(str(min(map(str, wanted.keys() ^ saved.keys()))), 100)
        raise UserError(
            f"{path}: the progress lacks or adds the field {name!r}, so another version of mmaction-lite "
            "wrote it; continue with that version, or start a new run with another --out"
        )
    for name, value in saved.items():
        check_value(value, wanted[name], f"{path}: {name} of the progress")
    return kind(**saved)


def restore_weights(path: Path, weights: Any, model: Any) -> None:
    """Load the weights of `last.pt` into a network.

    Args:
        path: the file, for messages.
        weights: its state dict.
        model: the network, or a view of a sharded one, whose tensors are not compared.

    Raises:
        UserError: they do not fit, or are not finite.
    """
    with reading(path):
        if isinstance(model, nn.Module):
            check_fit(weights, model.state_dict(), type(model).__name__)
            check_values(weights, model.state_dict())
        model.load_state_dict(weights)


def restore_state(path: Path, name: str, saved: Any, state: Any) -> None:
    """Load a saved state of the optimizer or another object.

    Raises:
        UserError: the state does not fit the object.
    """
    with reading(path):
        if isinstance(state, torch.optim.Optimizer):
            hyperparameters = [_hyperparameters(group) for group in state.param_groups]
            state.load_state_dict(saved)
            if [_hyperparameters(group) for group in state.param_groups] != hyperparameters:
                raise ValueError(f"{name} with other settings than those of the recipe")
            for parameter, values in state.state.items():
                if not isinstance(parameter, Tensor):
                    raise TypeError(f"{name} with the state of no parameter")
                _check_buffers(name, parameter, values)
        else:
            state.load_state_dict(saved)


def _hyperparameters(group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a group of parameters that do not change during a training."""
    changing = ("params", "lr", "initial_lr", "param_names")
    return {name: value for name, value in group.items() if name not in changing}


def _check_buffers(name: str, parameter: Tensor, values: Any) -> None:
    for key, value in values.items():
        if not isinstance(value, Tensor):
            continue
        if value.ndim and value.shape != parameter.shape:
            raise ValueError(
                f"{name}: {key} of shape {tuple(value.shape)}, expected {tuple(parameter.shape)}"
            )
        check_values({f"{name}: {key}": value}, {})

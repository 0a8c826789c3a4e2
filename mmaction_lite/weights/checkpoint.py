"""Checkpoints: written whole or not at all, and read without running anybody's code."""

import warnings
from pathlib import Path
from typing import Any

import torch

from mmaction_lite.errors import UserError
from mmaction_lite.files import write_atomically

FOREIGN = "`mmaction-lite convert` and `train --init-from` read those of other projects"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them; see `write_atomically`."""
    write_atomically(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, onto the CPU, with `weights_only=True`.

    Raises:
        UserError: no such file, damaged, or not one of ours.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint written by mmaction-lite train")
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes raise whatever they happen to run into
        raise UserError(f"{path}: is damaged or not a checkpoint of mmaction-lite; {FOREIGN}") from None
    if not isinstance(state, dict) or not {"card", "model"} <= state.keys():
        raise UserError(f"{path}: was not written by mmaction-lite train; {FOREIGN}")
    return state

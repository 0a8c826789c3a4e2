"""Checkpoints of training runs: written atomically, and read without executing pickled code."""

import warnings
from pathlib import Path
from typing import Any

import torch

from mmaction_lite.errors import UserError
from mmaction_lite.files import write_atomically

FOREIGN = "Use `mmaction-lite convert` or `train --init-from` for checkpoints of other projects"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a dict of tensors, numbers, strings and containers of them; see `write_atomically`."""
    write_atomically(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read a file of `save_state` onto the CPU, with `weights_only=True`.

    Raises:
        UserError: the file does not exist, is damaged, or is not a checkpoint of this package.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint written by mmaction-lite train")
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file can raise any exception
        raise UserError(f"{path}: is damaged or not a checkpoint of mmaction-lite. {FOREIGN}") from None
    if not isinstance(state, dict) or not {"card", "model"} <= state.keys():
        raise UserError(f"{path}: was not written by mmaction-lite train. {FOREIGN}")
    return state

"""Checkpoints of training runs: written atomically, and read without executing pickled code."""

from pathlib import Path
from typing import Any

import torch

from mmaction_lite.errors import UserError, describe
from mmaction_lite.files import write_atomically
from mmaction_lite.weights.tensor_files import UnknownFormatError, read_tensor_file

FOREIGN = "Use `mmaction-lite convert` or `train --init-from` for checkpoints of other projects"


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a dict of tensors, numbers, strings and containers of them; see `write_atomically`."""
    write_atomically(path, lambda file: torch.save(state, file))


def load_state(path: Path) -> dict[str, Any]:
    """Read a file of `save_state` onto the CPU, without executing code of the file; see `tensor_files`.

    Raises:
        UserError: the file does not exist, is damaged, or is not a checkpoint of this package.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint written by mmaction-lite train")
    try:
        file = read_tensor_file(path)
        if file.ignored:
            raise ValueError(f"holds a {min(file.ignored)}")
    except UnknownFormatError:
        raise UserError(f"{path}: is damaged or not a checkpoint of mmaction-lite. {FOREIGN}") from None
    except Exception as error:  # a damaged file can raise any exception
        raise UserError(
            f"{path}: is damaged or not a checkpoint of mmaction-lite ({describe(error)}). {FOREIGN}"
        ) from None
    state = file.content
    if not isinstance(state, dict) or not {"card", "model"} <= state.keys():
        raise UserError(f"{path}: was not written by mmaction-lite train. {FOREIGN}")
    return state

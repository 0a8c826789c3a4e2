"""Files that are whole or not there: atomic writing, and reading without running anybody's code."""

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from mmaction_lite.errors import UserError

FOREIGN = "`mmaction-lite convert` and `train --init-from` read those of other projects"


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, then give it the name.

    Killed at any moment, or with a full disk, the old file is still there and whole.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            write(file)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # PyTorch's writer turns a full disk into a RuntimeError.
        raise UserError(f"{path}: could not be written ({error}); an earlier file is unchanged") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the new name itself must survive a power cut
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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

"""Files that are whole or not there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from mmaction_lite.errors import UserError


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

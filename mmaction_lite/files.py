"""Write files atomically."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from mmaction_lite.errors import UserError


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a temporary file in the folder of `path`, flush it to disk, and rename it to `path`.

    If the process is killed or the disk is full, an existing file at `path` stays unchanged.

    Args:
        path: the file to write or replace.
        write: writes the contents to a binary file object.

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
        # torch.save raises a RuntimeError when the disk is full.
        raise UserError(f"{path}: could not be written ({error}); an earlier file is unchanged") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    if os.name == "posix":  # flush the renaming, too, so that it survives a power failure
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

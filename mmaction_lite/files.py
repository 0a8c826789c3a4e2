"""Write files atomically."""

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from mmaction_lite.errors import UserError


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a temporary file in the folder of `path`, flush it to disk, and rename it to `path`.

    If the process is killed or the disk is full, an existing file at `path` stays unchanged. The new file has
    the permissions of the file that it replaces, otherwise those of the umask.

    Args:
        path: the file to write or replace.
        write: writes the contents to a binary file object.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch.save raises a RuntimeError when the disk is full.
        raise UserError(f"{path}: could not be written ({error}); an earlier file is unchanged") from error
    finally:
        with suppress(OSError):  # it was renamed, or its folder does not exist
            temporary.unlink()
    if os.name == "posix":  # flush the renaming, too, so that it survives a power failure
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

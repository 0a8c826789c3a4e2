"""Read regular files only, write files atomically, never replace a file of the user, and find the cache."""

import glob
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from platformdirs import user_cache_path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from mmaction_lite.errors import UserError, describe, printable, reading

CACHE = "MMACTION_LITE_CACHE"
"""Environment variable that names the cache folder."""
WRITTEN = ".written.json"
"""File with the checksums of the files that `rewriting` wrote to a folder."""
LOCK = ".lock"
"""File that a process locks while it writes to a folder; see `FolderLock`."""


def cache_folder() -> Path:
    """Return the folder of downloaded weights and of packet indexes, which may not exist yet.

    Raises:
        RuntimeError: its path begins with `~`, and the user has no home folder.
    """
    chosen = os.environ.get(CACHE)
    return Path(chosen).expanduser() if chosen else user_cache_path("mmaction-lite", appauthor=False)


def open_regular(path: str | PathLike[str], otherwise: UserError) -> io.FileIO:
    """Open a regular file for reading. Opening a named pipe would block, and a device may have no end.

    Args:
        path: the file.
        otherwise: raised if `path` is something else, such as a folder, a pipe or a device.

    Returns:
        The file, whose `name` is a number: libraries that receive it cannot open the path themselves.

    Raises:
        OSError: the file cannot be opened.
        ValueError: `path` is not a valid file name.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise otherwise
        return io.FileIO(number)
    except BaseException:
        os.close(number)
        raise


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a temporary file in the folder of `path`, flush it to disk, and rename it to `path`.

    If the process is killed or the disk is full, an existing file at `path` stays unchanged. Ctrl-C, SIGTERM
    and the end of the terminal (SIGHUP) delete the temporary file before they end the process. The new file
    has the permissions of the file that it replaces, otherwise those of the umask.

    Args:
        path: the file to write or replace.
        write: writes the contents to a binary file object.

    Raises:
        UserError: the disk is full or the folder is not writable.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with _deleted_by_signals(temporary), temporary.open("xb") as file:
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
        with suppress(OSError):  # the folder may not be readable, and some file systems flush no folders
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@contextmanager
def _deleted_by_signals(file: Path) -> Iterator[None]:
    """Delete a file if a signal that no other code handles ends the process while the block runs."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers in this thread only
        numbers = []
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    writer = os.getpid()

    def handle(number: int, *_: object) -> None:
        with suppress(OSError):
            if os.getpid() == writer:  # not in a forked process, which inherits the handler
                file.unlink()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def writing(path: Path, advice: str = "free space on the disk, or use another folder") -> Iterator[None]:
    """Convert an OSError of the block, such as a full disk, to one line about the file that it writes.

    Args:
        path: the file, for the message.
        advice: end of the message: how to fix the problem.

    Raises:
        UserError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{printable(str(path))}: could not be written ({describe(error)}); {advice}"
        ) from None


def check_features_fit(folder: Path, size: int, shape: str, advice: str) -> None:
    """Check that the disk of a folder has room for features.

    Args:
        folder: an existing folder.
        size: bytes to write.
        shape: number and shape of the features, for the message.
        advice: end of the message: how to need less.

    Raises:
        UserError: the disk has fewer bytes free.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{printable(str(folder))}: the disk has {describe_bytes(free)} free, and the features need "
            f"{describe_bytes(size)} ({shape}); {advice}"
        )


def describe_bytes(size: int) -> str:
    """Return a number of bytes in kB, MB or GB."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6)):
        if size >= divisor:
            return f"{size / divisor:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def partial_files(path: Path) -> list[Path]:
    """Return the temporary files that killed calls of `write_atomically` left beside `path`.

    Files of editors, such as `.recipe.txt.swp`, are not among them.
    """
    pattern = re.compile(re.escape(f".{path.name}.") + r"(?:[a-z0-9_]{8}|\w*\d\w*)")
    return [file for file in path.parent.glob(f".{glob.escape(path.name)}.*") if pattern.fullmatch(file.name)]


def check_replaceable(
    path: Path,
    kind: str,
    is_ours: Callable[[Path], bool] | None = None,
    sources: Iterable[str | Path] = (),
) -> None:
    """Check that a file can be written to `path` without the loss of a file that the user made.

    Commands call this before their work starts, and again before they write.

    Args:
        path: the file to write.
        kind: description of the file for messages, such as "a report of mmaction-lite".
        is_ours: whether an existing file may be replaced, because this package wrote it. Files for which it
            raises an exception are not replaced. None replaces no file.
        sources: files and folders that the command reads.

    Raises:
        UserError: `path` is a folder, one of the sources, or a file that may not be replaced; or its folder
            does not exist or is not writable.
    """
    try:
        if path.is_dir():
            raise UserError(f"{printable(str(path))}: is a folder; expected the name of a file, {kind}")
        if path.is_symlink() and not path.exists():
            raise UserError(f"{printable(str(path))}: is a link to a missing file; choose another name")
        if path.exists():
            if any(path.samefile(source) for source in sources if Path(source).exists()):
                raise UserError(f"{printable(str(path))}: is an input of this command; choose another name")
            if is_ours is None:
                raise UserError(f"{printable(str(path))}: expected a new file; choose another name")
            if not path.is_file() or not _holds(is_ours, path):
                raise UserError(
                    f"{printable(str(path))}: exists and is not {kind}, so it is not overwritten; choose "
                    "another name, or move the file"
                )
        folder = path.parent
        if not folder.is_dir():
            problem = "is a file" if folder.exists() else "does not exist"
            raise UserError(
                f"{printable(str(path))}: could not be written: {printable(str(folder))} {problem}; "
                "expected a name in a writable folder"
            )
        # A temporary file with a name of the same length, as `write_atomically` writes it.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.name}."):
            pass
    except (OSError, ValueError) as error:
        raise UserError(
            f"{printable(str(path))}: could not be written ({describe(error)}); choose another name or folder"
        ) from None


def check_output_folder(
    out: Path, sources: Iterable[str | Path] = (), scanned: Iterable[str | Path] = ()
) -> None:
    """Check that `out` is a folder or can be created, and lies apart from what a command reads.

    Args:
        out: the folder to write to.
        sources: files and folders that the command reads. `out` must not be or contain one of them.
        scanned: folders whose contents the command lists. `out` must not lie inside of one of them.

    Raises:
        UserError: `out` is a file, overlaps a source, or cannot be created or written.
    """
    shown = printable(str(out))
    try:
        if out.is_symlink() and not out.exists():
            raise UserError(f"{shown}: is a link to a missing folder; use another folder")
        place = out.resolve()
        for source in map(Path, sources):
            read = source.resolve()
            if place == read or place in read.parents:
                raise UserError(f"{shown}: holds the data that are read; use another folder")
        for folder in map(Path, scanned):
            if folder.resolve() in (place, *place.parents):
                raise UserError(f"{shown}: is inside of the data that are read; use a folder outside of them")
        existing = next(folder for folder in (place, *place.parents) if folder.exists())
        if not existing.is_dir():
            where = "" if existing == place else f" {printable(str(existing))}"
            raise UserError(f"{shown}:{where} is a file; expected a folder. Use another folder")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a loop of links, in Python 3.11
        raise UserError(f"{shown}: cannot be written ({describe(error)}); use another folder") from None


def has_marker(*markers: bytes) -> Callable[[Path], bool]:
    """Return a function of a path: whether one of `markers` is in the first 4 KiB of the file."""

    def is_marked(path: Path) -> bool:
        with path.open("rb") as file:
            head = file.read(4096)
        return any(marker in head for marker in markers)

    return is_marked


def _holds(predicate: Callable[[Path], bool], path: Path) -> bool:
    try:
        return predicate(path)
    except Exception:
        return False


def check_unchanged(folder: Path, names: Iterable[str]) -> None:
    """Check that the files `names` in `folder` are absent, or as `rewriting` left them.

    Raises:
        UserError: a file was changed, or was not written inside `rewriting`.
    """
    written = _written(folder)
    for name in names:
        file = folder / name
        if not os.path.lexists(file) or (name in written and written[name] is None):
            continue
        if written.get(name) != _checksum(file):
            raise UserError(
                f"{printable(str(file))}: was changed since it was written, or was not written by this "
                "command, so it is not overwritten; move the file, or use another folder"
            )


@contextmanager
def rewriting(folder: Path, names: Iterable[str]) -> Iterator[None]:
    """Write or replace the files `names` in `folder`, unless the user has changed them since the last time.

    The checksums of the files are stored in `.written.json` in the folder. If the body is interrupted, the
    next call replaces its files.

    Raises:
        UserError: a file was changed, or was not written inside `rewriting`.
    """
    names = list(names)
    check_unchanged(folder, names)
    _save_written(folder, _written(folder) | dict.fromkeys(names))
    yield
    written = {name: _checksum(folder / name) for name in names if (folder / name).exists()}
    earlier = {name: sum_ for name, sum_ in _written(folder).items() if name not in names}
    _save_written(folder, earlier | written)


def _written(folder: Path) -> dict[str, str | None]:
    file = folder / WRITTEN
    if not file.exists():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _save_written(folder: Path, checksums: dict[str, str | None]) -> None:
    text = json.dumps(checksums, indent=1, sort_keys=True) + "\n"
    write_atomically(folder / WRITTEN, lambda file: file.write(text.encode()))


def _checksum(file: Path) -> str:
    """Return the SHA-256 of a file; a text that no file has if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON Lines file, one object per line; see `write_atomically`."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json_lines(
    path: Path, *keys: str, advice: str = "restore the file, or delete it"
) -> list[tuple[int, dict[str, Any]]]:
    """Read a JSON Lines file that a program appends to and a user may edit.

    Blank lines and an incomplete last line, which a killed program leaves, are left out.

    Args:
        path: the file.
        keys: keys that every row must have.
        advice: how to fix a file that cannot be read.

    Returns:
        The rows, each with the number of its line, from 1.

    Raises:
        UserError: the file cannot be read, or a line is not an object with these keys.
    """
    with reading(path, advice=advice):
        *lines, last = path.read_text(encoding="utf-8-sig").split("\n")
    rows = []
    for number, line in enumerate([*lines, last], start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not row.keys() >= set(keys):
                raise ValueError(f"expected an object with {' and '.join(keys)}")
        except (ValueError, RecursionError) as error:
            if number == len(lines) + 1:
                break
            raise UserError(f"{path}, line {number}: damaged ({describe(error)}); delete this line") from None
        rows.append((number, row))
    return rows


class FolderLock:
    """Lock that keeps other processes from writing to a folder. A context manager.

    The lock belongs to the process: it ends with the process, however that ends, and forked processes do not
    inherit it. A second lock in the same process has no effect. Nothing is locked where the file system or
    Windows has no POSIX locks, or where the folder is not writable.

    Args:
        folder: an existing folder.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._path = folder / LOCK
        self._file: int | None = None

    def __del__(self) -> None:
        self.release()

    def __enter__(self) -> "FolderLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Lock the folder, unless this object has locked it.

        Raises:
            UserError: another process has locked it.
        """
        while fcntl is not None and self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError:
                return  # the first write to the folder reports the reason
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                owner = os.pread(file, 200, 0).decode(errors="replace").strip()
                os.close(file)
                raise UserError(
                    f"{printable(str(self.folder))}: {printable(owner) or 'another process'} writes to this "
                    "folder; wait until it ends, or use another folder"
                ) from None
            except OSError:
                os.close(file)
                return
            if not self._is_current(file):  # the process that held the lock has deleted the file meanwhile
                os.close(file)
                continue
            self._file = file
            with suppress(OSError):
                os.ftruncate(file, 0)
                os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Unlock the folder and delete the file, if this object has locked it."""
        if self._file is None:
            return
        file, self._file = self._file, None
        with suppress(OSError):
            if self._is_current(file):
                self._path.unlink()
        os.close(file)

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except OSError:
            return False

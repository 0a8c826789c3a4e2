"""The cache folder of downloaded weights, and the environment variables that control downloads.

* `MMACTION_LITE_CACHE`: the folder. By default, `mmaction-lite` in the cache folder of the platform.
* `MMACTION_LITE_MIRROR`: address of a mirror. `https://HOST/PATH` is then read from `MIRROR/HOST/PATH`. A
  cache folder has the same layout, so a web server of a cache folder is a mirror.
* `MMACTION_LITE_OFFLINE`: 1 never opens a connection.
* `MMACTION_LITE_ALLOW_HTTP`: 1 permits addresses without encryption.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from mmaction_lite.errors import UserError, describe, printable
from mmaction_lite.files import CACHE, cache_folder

MIRROR = "MMACTION_LITE_MIRROR"
OFFLINE = "MMACTION_LITE_OFFLINE"
ALLOW_HTTP = "MMACTION_LITE_ALLOW_HTTP"


def is_offline() -> bool:
    """Whether downloads are forbidden."""
    return _is_set(OFFLINE)


def allows_http() -> bool:
    """Whether addresses without encryption are permitted."""
    return _is_set(ALLOW_HTTP)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").strip().lower() in ("1", "true", "yes", "on")


def cached_path(url: str) -> Path:
    """Return the path in the cache of the file at `url`: the host, then the path of the address.

    Raises:
        UserError: `url` names no host or no file.
    """
    parts = urlsplit(url)
    names = [unquote(name) for name in parts.path.split("/") if name]
    if not parts.hostname or not names or any(name in (".", "..") for name in names):
        raise UserError(f"{without_login(url)}: not the address of a file; expected https://HOST/PATH/FILE")
    if parts.query:  # another query may be another file
        names[-1] = f"{sha256(parts.query.encode()).hexdigest()[:8]}-{names[-1]}"
    host = parts.hostname if parts.port is None else f"{parts.hostname}_{parts.port}"
    return cache_folder().joinpath(*(re.sub(r"[^\w.@=+-]", "_", name) for name in (host, *names)))


def mirrored(url: str) -> str:
    """Return the address from which `url` is read: itself, or that of the mirror.

    Raises:
        UserError: `MMACTION_LITE_MIRROR` is not an address.
    """
    mirror = os.environ.get(MIRROR, "").strip().rstrip("/")
    if not mirror:
        return url
    if not urlsplit(mirror).hostname or urlsplit(mirror).scheme not in ("http", "https"):
        raise UserError(f"{MIRROR}={mirror}: not an address; expected https://HOST or https://HOST/PATH")
    parts = urlsplit(url)
    return f"{mirror}/{parts.netloc}{parts.path}{f'?{parts.query}' if parts.query else ''}"


def without_login(address: str) -> str:
    """Return an address for messages: printable, and without user name and password."""
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return printable(f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}")


def make_folder(folder: Path) -> None:
    """Create a folder of the cache.

    Raises:
        UserError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: the cache folder cannot be created ({describe(error)}); set {CACHE} to a writable "
            "folder"
        ) from None
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder}: the cache folder is not writable; set {CACHE} to a writable folder")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path`, so that one of several processes writes it and the others wait.

    The operating system releases the lock of a process that ends, also of one that is killed.
    """
    make_folder(path.parent)
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"waiting for another process that writes {path}", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def check_space(folder: Path, needed: int) -> None:
    """Check that the disk of `folder` has room for `needed` bytes.

    Raises:
        UserError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the disk has {free / 1e6:.0f} MB left, and the download needs {needed / 1e6:.0f} MB; "
            f"free some space, or set {CACHE} to a folder on another disk"
        )


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()

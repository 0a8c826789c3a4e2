"""Download of one file: resumed after interruptions, checked, and renamed to its name when complete."""

import contextlib
import errno
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from mmaction_lite.errors import UserError, describe, printable
from mmaction_lite.files import write_atomically
from mmaction_lite.settings import NonNegativeInt, PositiveInt, above, at_least, check_fields
from mmaction_lite.weights import cache
from mmaction_lite.weights.cache import (
    check_space,
    digest_of,
    is_offline,
    make_folder,
    mirrored,
    without_login,
)

FULL_DISK = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT")}
PERMANENT = {400, 401, 403, 404, 405, 410, 451}  # status codes that another attempt does not change


@dataclass(frozen=True, kw_only=True)
class DownloadSettings:
    """Retries and timeouts of a download.

    Args:
        retries: attempts in a row that receive nothing before the download fails; -1 permits one attempt.
        backoff_seconds: pause before the second attempt; doubled before each further one.
        longest_pause_seconds: upper bound of a pause, also of the Retry-After header.
        timeout_seconds: time limit for a connection, and for the arrival of more bytes.
        stall_seconds: an attempt that receives less than `stall_bytes` in this time is repeated.
        stall_bytes: see `stall_seconds`.
        most_bytes: largest file whose length neither the server nor the caller states.
    """

    retries: Annotated[int, at_least(-1)] = 5
    backoff_seconds: Annotated[float, at_least(0)] = 1.0
    longest_pause_seconds: Annotated[float, at_least(0)] = 60.0
    timeout_seconds: Annotated[float, above(0)] = 30.0
    stall_seconds: Annotated[float, above(0)] = 60.0
    stall_bytes: NonNegativeInt = 64 * 1024
    most_bytes: PositiveInt = 16 << 30

    def __post_init__(self) -> None:
        check_fields(self)


class _Retry(Exception):
    """An attempt failed; another one may succeed after `pause_seconds`."""

    def __init__(self, reason: str, pause_seconds: float = 0.0):
        super().__init__(reason)
        self.pause_seconds = pause_seconds


def download(
    url: str,
    target: Path,
    *,
    sha256: str = "",
    size: int | None = None,
    settings: DownloadSettings | None = None,
) -> None:
    """Download `url` to `target`, which does not exist. The caller holds the lock of `target`.

    The bytes arrive in `TARGET.partial`, which a later call continues after an interruption. The file gets
    its name only when it is complete and its hash is right. Proxies come from the environment (`HTTPS_PROXY`,
    `NO_PROXY`), as in other programs.

    Args:
        url: address of the file.
        target: path of the file; its folder is created.
        sha256: SHA-256 in hexadecimal, or its first digits; empty if unknown.
        size: length in bytes, if known.
        settings: retries and timeouts; None: the defaults.

    Raises:
        UserError: the server does not deliver the file, its hash is wrong, downloads are forbidden, or the
            disk is full.
    """
    address, settings = mirrored(url), settings or DownloadSettings()
    check_address(address)
    if is_offline():
        raise UserError(
            f"{without_login(url)}: not in the cache, and {cache.OFFLINE} forbids downloads. "
            f"{_by_hand(target)}"
        )
    make_folder(target.parent)
    partial = target.with_name(f"{target.name}.partial")
    was_partial = partial.exists()
    _transfer(address, target, partial, size, settings)
    found = digest_of(partial)
    if not found.startswith(sha256) and was_partial:
        # The first bytes may come from another version of the file, or a crash may have damaged them.
        _remove(partial)
        _transfer(address, target, partial, size, settings)
        found = digest_of(partial)
    if not found.startswith(sha256):
        _remove(partial)
        raise UserError(
            f"{without_login(address)}: the file has the wrong SHA-256: expected {sha256}, found {found}. "
            f"Nothing was kept; the server has another file, or the connection changes it. {_by_hand(target)}"
        )
    if len(sha256) < 64:
        write_atomically(recorded_digest(target), lambda file: file.write(f"{found}\n".encode()))
    partial.replace(target)
    _validator(partial).unlink(missing_ok=True)


def recorded_digest(target: Path) -> Path:
    """Return the path of the SHA-256 that is recorded for a file of which it is not published in full."""
    return target.with_name(f"{target.name}.sha256")


def check_address(address: str) -> None:
    """Check that an address is encrypted, unless `MMACTION_LITE_ALLOW_HTTP` permits others.

    Raises:
        UserError: it is not.
    """
    scheme = urlsplit(address).scheme
    if scheme == "https" or (scheme == "http" and cache.allows_http()):
        return
    advice = f" Set {cache.ALLOW_HTTP}=1 to permit http" if scheme == "http" else ""
    raise UserError(f"{without_login(address)}: not an https address; expected https://HOST/PATH.{advice}")


def _transfer(
    address: str, target: Path, partial: Path, size: int | None, settings: DownloadSettings
) -> None:
    """Receive all bytes into `partial`, in as many attempts as necessary."""
    timeout = httpx.Timeout(settings.timeout_seconds)
    hooks = {"request": [lambda request: check_address(str(request.url))]}  # for redirects as well
    failures = 0
    print(f"downloading {without_login(address)} to {target}", file=sys.stderr)
    try:
        client = httpx.Client(timeout=timeout, follow_redirects=True, event_hooks=hooks)
    except Exception as error:  # of a proxy in the environment
        raise UserError(f"HTTPS_PROXY or ALL_PROXY: not a usable proxy ({describe(error)})") from None
    with client, _progress() as progress:
        while True:
            before = partial.stat().st_size if partial.exists() else 0
            try:
                return _attempt(client, address, partial, size, settings, progress=progress)
            except httpx.InvalidURL as error:
                raise UserError(f"{without_login(address)}: not an address ({describe(error)})") from None
            except (httpx.HTTPError, httpx.StreamError, _Retry) as error:
                after = partial.stat().st_size if partial.exists() else 0
                failures = 0 if after > before else failures + 1
                if failures > settings.retries:
                    raise UserError(
                        f"{without_login(address)}: cannot be downloaded ({describe(error)}). Check the "
                        f"network and the proxy settings, or set {cache.MIRROR}. {_by_hand(target)}"
                    ) from None
                pause = settings.backoff_seconds * 2 ** max(0, failures - 1)
                pause = max(pause, error.pause_seconds if isinstance(error, _Retry) else 0.0)
                time.sleep(min(pause, settings.longest_pause_seconds))
            except OSError as error:
                if error.errno in FULL_DISK:
                    raise UserError(
                        f"{partial}: the disk is full; free some space and repeat the command, which "
                        f"continues the download, or set {cache.CACHE} to a folder on another disk"
                    ) from None
                raise UserError(f"{partial}: cannot be written ({describe(error)})") from None


def _attempt(
    client: httpx.Client,
    address: str,
    partial: Path,
    size: int | None,
    settings: DownloadSettings,
    *,
    progress: Progress,
) -> None:
    """Request the missing bytes and append them to `partial`; return when the file is complete."""
    have = partial.stat().st_size if partial.exists() else 0
    validator = _read_validator(partial, address) if have else ""
    if not validator:  # without it, a change of the file on the server is not detected
        have = 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with client.stream("GET", address, headers=headers) as response:
        if response.status_code == 416 and have:
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return  # an earlier process received everything
            _remove(partial)
            raise _Retry("the server refused to continue the download")
        _check_status(response, address)
        if response.status_code != 206 or _first_byte(response) != have:
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else size
        if size is not None and total != size:
            raise UserError(
                f"{without_login(address)}: the file has {total} bytes; expected {size}. Use another mirror"
            )
        if total is not None:
            check_space(partial.parent, total - have)
        if not have:
            partial.unlink(missing_ok=True)
            _write_validator(partial, address, response)
        task = progress.add_task(partial.name.removesuffix(".partial"), total=total, completed=have)
        try:
            with partial.open("ab") as file:
                _receive(response, file, settings, total=total, progress=progress, task=task)
                file.flush()
                os.fsync(file.fileno())
        except UserError:  # too long
            _remove(partial)
            raise
        finally:
            progress.remove_task(task)
    if total is not None and partial.stat().st_size < total:
        raise _Retry(f"the connection ended after {partial.stat().st_size} of {total} bytes")


def _receive(
    response: httpx.Response,
    file: BinaryIO,
    settings: DownloadSettings,
    *,
    total: int | None,
    progress: Progress,
    task: object,
) -> None:
    """Append the body of a response to a file, up to its `total` length, or to `settings.most_bytes`.

    Raises:
        UserError: the body is longer.
    """
    limit = settings.most_bytes if total is None else total
    since, received = time.monotonic(), 0
    for chunk in response.iter_raw():
        if file.tell() + len(chunk) > limit:
            unstated = " and does not state its length" if total is None else ""
            raise UserError(
                f"{without_login(str(response.url))}: the server sends more than {limit} bytes{unstated}. "
                "Check the address, or download the file yourself and pass its path"
            )
        file.write(chunk)
        progress.advance(task, len(chunk))  # pyright: ignore[reportArgumentType]
        received += len(chunk)
        now = time.monotonic()
        if now - since > settings.stall_seconds:
            if received < settings.stall_bytes:
                raise _Retry(f"only {received} bytes arrived in {now - since:.0f} seconds")
            since, received = now, 0


def _check_status(response: httpx.Response, address: str) -> None:
    """Raise unless the server delivers the file."""
    status = f"{response.status_code} {printable(response.reason_phrase, 60)}".rstrip()
    if response.status_code in PERMANENT:
        raise UserError(
            f"{without_login(address)}: the server answers {status}. The file may have moved; use a mirror"
        )
    if not response.is_success:
        seconds = response.headers.get("Retry-After", "")
        raise _Retry(f"the server answers {status}", float(seconds) if seconds.isdecimal() else 0.0)
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise UserError(
            f"{without_login(address)}: the server sends a web page instead of the file. The network "
            "may need a login"
        )


def _first_byte(response: httpx.Response) -> int | None:
    """Return the position of the first byte of a partial response."""
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None


def _validator(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.tag")


def _write_validator(partial: Path, address: str, response: httpx.Response) -> None:
    """Store what identifies this version of the file on the server: its entity tag or its date."""
    tag = response.headers.get("ETag", "")
    if tag.startswith("W/"):  # the bytes may differ under an equal weak tag
        tag = ""
    tag = tag or response.headers.get("Last-Modified", "")
    text = f"{address}\n{tag}\n".encode()
    write_atomically(_validator(partial), lambda file: file.write(text))


def _read_validator(partial: Path, address: str) -> str:
    """Return what `_write_validator` stored for this address; empty if there is nothing."""
    try:
        stored, tag, _ = _validator(partial).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return ""
    return tag if stored == address else ""


def _remove(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _validator(partial).unlink(missing_ok=True)


def _by_hand(target: Path) -> str:
    return f"A file that you download yourself is used if you save it as {target}"


@contextlib.contextmanager
def _progress():
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    disable = not console.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=disable
    ) as progress:
        yield progress

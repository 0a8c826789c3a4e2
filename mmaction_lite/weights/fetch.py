"""Files at an address: from the cache, or downloaded; their hash is checked before every use."""

import re
from pathlib import Path

from mmaction_lite.errors import UserError, printable
from mmaction_lite.weights.cache import cached_path, digest_of, locked, without_login
from mmaction_lite.weights.download import DownloadSettings, download, recorded_digest
from mmaction_lite.weights.hub import download_from_hub


def fetch_address(url: str) -> Path:
    """Return the path in the cache of the file at an address; download it if necessary.

    Args:
        url: `https://HOST/PATH/FILE` or `hf://OWNER/NAME/FILE`; `#sha256=HEXADECIMAL` at its end checks the
            file.

    Raises:
        UserError: the file cannot be downloaded, or its hash is wrong.
    """
    address, _, fragment = url.partition("#")
    expected = fragment.removeprefix("sha256=").lower()
    if fragment and not re.fullmatch(r"[0-9a-f]{8,64}", expected):
        raise UserError(
            f"{without_login(address)}: the end is #{printable(fragment, 100)}; expected #sha256= and 8 to "
            "64 hexadecimal digits"
        )
    return fetch_file(address, expected)


def fetch_file(
    url: str, expected: str = "", size: int | None = None, settings: DownloadSettings | None = None
) -> Path:
    """Return the path of a file whose hash was checked; download it if it is not in the cache.

    Of several processes, one downloads the file and the others wait.

    Args:
        url: `https://HOST/PATH/FILE` or `hf://OWNER/NAME/FILE`.
        expected: SHA-256 in hexadecimal, or its first digits, or empty. If it is not complete, that of the
            first download is recorded and expected later.
        size: length in bytes, if known.
        settings: retries and timeouts of the download.

    Raises:
        UserError: the file cannot be downloaded, or its hash is wrong.
    """
    if url.startswith("hf://"):
        path = download_from_hub(url)
        _check_digest(path, expected, "the file of the Hub")
        return path
    path = cached_path(url)
    if not path.is_file():
        with locked(path):
            if not path.is_file():
                download(url, path, sha256=expected, size=size, settings=settings)
                return path
    recorded = recorded_digest(path)
    if len(expected) < 64 and recorded.is_file():
        _check_digest(path, recorded.read_text(encoding="utf-8").strip(), "the file at its download")
    _check_digest(path, expected, f"the file at {without_login(url)}")
    return path


def _check_digest(path: Path, expected: str, origin: str) -> None:
    """Raise if a file has another hash; the file stays, because its owner may have put it there."""
    found = digest_of(path)
    if not found.startswith(expected):
        raise UserError(
            f"{path}: has the SHA-256 {found}; expected {expected} of {origin}. Nothing was deleted; move "
            "the file away to download it again"
        )

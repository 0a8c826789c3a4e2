"""Clips in tar files (shards), local or remote, with random access.

A path such as `shards/train-00000.tar/videos/a.mp4` names a member: a video file, or a directory of images.
The index `<name>.tar.index.json` beside each tar file holds the byte range of every member, so that reading a
clip is one read of its range, in any order, and the length of a data set is known. Remote files are read by
ranges in the same way, over HTTP(S), S3 and the other protocols of fsspec (extra `remote`).

The header of a member, the 512 bytes before its contents, is compared with the index before the contents are
used. An index of an earlier version of a tar file is therefore an error and never gives another clip.
"""

import io
import json
import os
import random
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from tarfile import BLOCKSIZE, TarError, TarInfo
from typing import Any, NamedTuple

from mmaction_lite.data.annotations.samples import absolute, is_remote
from mmaction_lite.errors import UserError, VideoError, describe, reading
from mmaction_lite.files import open_regular

INDEX_SUFFIX = ".index.json"
PROTOCOLS = ("http", "https", "s3", "gs", "gcs", "az", "abfs")
INDICES_IN_MEMORY = 64
MAX_INDEX_BYTES = 2**28
BUSY_STATUS = frozenset({429, 500, 502, 503, 504})
"""HTTP status of servers that may answer later. The libraries of S3 and other stores ask again themselves."""
BUSY_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Mean seconds before a busy server is asked again; random, so that refused loaders do not ask together."""
_RANDOM = random.SystemRandom()  # without an effect on the random numbers of augmentations
GAP_BYTES = 2**16  # parts of a tar file with a smaller distance are read together
COMPARED_NAME = 98  # tar headers may shorten longer names
_TAR = re.compile(r"\.tar/(?=.)")


class Place(NamedTuple):
    """Byte range of a file in a tar file.

    Args:
        name: name of the file in the archive.
        offset: first byte.
        size: number of bytes.
        header: CRC-32 of the 512 bytes before `offset`; None in indexes of version 0.1.
    """

    name: str
    offset: int
    size: int
    header: int | None = None


Places = dict[str, list[Place]]
"""For each member: the place of its file, or of each of its images."""


@dataclass(frozen=True)
class TarIndex:
    """Index of a tar file.

    Args:
        members: places of every member.
        checked: members whose headers were compared in this process; for remote files.
    """

    members: Places
    checked: set[str] = field(default_factory=set)


def is_packed(path: str | Path) -> bool:
    """Whether a path names a member of a tar file or a remote file; both are read into memory first."""
    return is_remote(path) or bool(_split(str(path)) and not Path(path).exists())


def archive_of(path: str | Path) -> Path | None:
    """Return the local tar file that a path names a member of; None for other files and for addresses."""
    parts = None if is_remote(path) or Path(path).exists() else _split(str(path))
    return Path(parts[0]) if parts is not None else None


def has_member(path: str | Path) -> bool:
    """Whether a path names a member of a tar file that its index lists.

    Raises:
        VideoError: the index does not exist, or is damaged.
    """
    parts = _split(str(path))
    return parts is not None and parts[1] in _index(parts[0]).members


def read_packed(path: str | Path) -> list[tuple[str, bytes]]:
    """Read a remote file, or a member of a tar file.

    Returns:
        (name, bytes) of the file, or of each image of a directory.

    Raises:
        VideoError: the file, the member or the index does not exist, the index does not fit the tar file, or
            the server does not answer.
        UserError: a package that the protocol needs is not installed.
    """
    parts = _split(str(path))
    if parts is None:
        return [(str(path), _read(str(path)))]
    tar, member = parts
    index = _index(tar)
    if member not in index.members:
        raise VideoError(f"{path}: {tar} has no such member; its index lists {len(index.members)} members")
    places = sorted(index.members[member], key=lambda place: place.offset)
    # The contents of a remote file are read once per epoch; its headers are compared in the first.
    with_headers = not is_remote(tar) or member not in index.checked
    found = {}
    for run in _runs(places):
        first = run[0].offset - BLOCKSIZE * with_headers
        end = max(place.offset + place.size for place in run)
        data = _read(tar, first, end - first)
        if len(data) != end - first:
            raise VideoError(f"{path}: is after the end of {tar}; the tar file may be truncated")
        for place in run:
            start = place.offset - first
            if with_headers and not _fits(place, data[start - BLOCKSIZE : start]):
                raise VideoError(
                    f"{path}: {tar} was changed after its index was written; write the index again with "
                    "mmaction-lite data index"
                )
            found[place.name] = data[start : start + place.size]
    index.checked.add(member)
    return [(f"{tar}/{place.name}", found[place.name]) for place in index.members[member]]


def _split(path: str) -> tuple[str, str] | None:
    """Split a path into tar file and member; None if it names no member.

    Folders inside and outside of the tar file may have names that end in `.tar`, too.
    """
    ends = [match.end() for match in _TAR.finditer(path)]
    if not ends:
        return None
    if not is_remote(path):
        ends = [end for end in ends if Path(path[: end - 1]).is_file()] or ends[-1:]
    return path[: ends[0] - 1], path[ends[0] :]


def _runs(places: list[Place]) -> Iterator[list[Place]]:
    """Group places, in the order of their offsets, into runs that one read covers.

    The images of a directory are usually adjacent, but a tar file may contain them in any order.
    """
    run: list[Place] = []
    for place in places:
        if run and place.offset - (run[-1].offset + run[-1].size) > GAP_BYTES:
            yield run
            run = []
        run.append(place)
    yield run


def _fits(place: Place, header: bytes) -> bool:
    """Whether a place of the index has this header."""
    if place.header is not None and zlib.crc32(header) != place.header:
        return False
    try:
        info = TarInfo.frombuf(header, "utf-8", "surrogateescape") if place.header is None else None
    except TarError:
        return False
    if info is not None and info.size != place.size:
        return False
    if len(place.name) > COMPARED_NAME or not place.name.isascii():
        return True
    return member_name(header[:100].partition(b"\0")[0].decode("ascii", "replace")) == place.name


def member_name(name: str) -> str:
    """Return the name of a file in an archive without empty parts, such as those of `./a` and `/a`."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _index(tar: str) -> TarIndex:
    file = tar + INDEX_SUFFIX
    if is_remote(tar):
        return _members(tar, 0, 0)
    with reading(file, VideoError, "write it with mmaction-lite data index"):
        status = Path(file).stat()
    return _members(tar, status.st_mtime_ns, status.st_size)


@lru_cache(INDICES_IN_MEMORY)
def _members(tar: str, mtime_ns: int, size: int) -> TarIndex:
    """Read the index of a tar file; `mtime_ns` and `size` tell versions of the index apart."""
    file = tar + INDEX_SUFFIX
    if size > MAX_INDEX_BYTES:
        raise VideoError(f"{file}: has {size} bytes; expected an index of at most {MAX_INDEX_BYTES}")
    data = _read(file)
    try:
        return TarIndex(
            {
                member: [_place(member, entry) for entry in entries]
                for member, entries in json.loads(data)["members"].items()
                if entries or _damaged()
            }
        )
    except Exception:
        raise VideoError(
            f"{file}: is damaged; delete it and write it again with mmaction-lite data index"
        ) from None


def _place(member: str, entry: list) -> Place:
    """Return the place in an entry of an index.

    Raises:
        ValueError: the entry is none that `write_index` writes.
    """
    place = Place(*entry)
    numbers = [place.offset, place.size, 0 if place.header is None else place.header]
    if not isinstance(place.name, str) or any(type(number) is not int for number in numbers):
        _damaged()
    if (
        place.offset < BLOCKSIZE
        or min(numbers) < 0
        or member not in (place.name, folder_of(place.name) or ".")
    ):
        _damaged()
    return place


def _damaged() -> bool:
    raise ValueError("not an index")


def folder_of(name: str) -> str:
    """Return the folder of a file in an archive; an empty string for a file that lies in none."""
    return name.rpartition("/")[0]


def _read(path: str, first: int = 0, size: int | None = None) -> bytes:
    """Return `size` bytes from `first` on; None for everything after it."""
    if not is_remote(path):
        return _read_local(Path(path), first, size)
    protocol = absolute(path).partition("://")[0].lower()
    if protocol not in PROTOCOLS or "::" in path:
        raise VideoError(f"{path}: cannot be read; expected an address of {', '.join(PROTOCOLS)}")
    try:
        import fsspec

        fs, place = fsspec.core.url_to_fs(absolute(path))
        data = _fetch(fs, place, first, None if size is None else first + size)
    except ImportError as error:
        raise UserError(f"{path}: needs {error.name}: pip install 'mmaction-lite[remote]'") from None
    except FileNotFoundError:
        hint = "; write it with mmaction-lite data index" if path.endswith(INDEX_SUFFIX) else ""
        raise VideoError(f"{path}: no such file{hint}") from None
    except Exception as error:  # each protocol raises other exceptions
        raise VideoError(f"{path}: cannot be read ({describe(error)})") from None
    if size is not None and len(data) > size:
        raise VideoError(f"{path}: the server sends whole files only; expected one that supports HTTP ranges")
    return data


def _fetch(fs: Any, place: str, first: int, end: int | None) -> bytes:
    """Return a range of a remote file; a server that is busy is asked again, after growing random pauses."""
    for pause in (*BUSY_PAUSES, None):
        try:
            return fs.cat_file(place, start=first, end=end)
        except Exception as error:  # each protocol raises other exceptions
            if pause is None or getattr(error, "status", None) not in BUSY_STATUS:
                raise
        time.sleep(_RANDOM.uniform(0.5, 1.5) * pause)
    raise AssertionError


def _read_local(path: Path, first: int, size: int | None) -> bytes:
    irregular = VideoError(f"{path}: is not a file")
    with reading(path, VideoError), io.BufferedReader(open_regular(path, irregular)) as file:
        # Numbers of an index are compared with the file before they determine the memory to allocate.
        length = os.fstat(file.fileno()).st_size
        available = max(0, length - first)
        file.seek(min(first, length))
        return file.read(available if size is None else min(size, available))

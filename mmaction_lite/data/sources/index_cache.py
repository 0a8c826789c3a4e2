"""Cache of packet indexes: in memory for the files read last, and on disk for long files.

Making the index of a long film takes longer than decoding a clip of it: a Matroska file is read from its
beginning to its end. The index of such a file is therefore stored in the user's cache folder, never beside
the video. An entry belongs to one state of a file (path, time of modification, size). Entries are plain
arrays with a checksum; an entry that is damaged or does not fit together is ignored.
"""

import hashlib
import json
import os
import tempfile
import threading
import time
import zlib
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mmaction_lite.data.sources.packets import PacketIndex
from mmaction_lite.files import cache_folder

INDEX_CACHE_BYTES = 16 * 2**20
# Files from this size on are looked up on disk, and stored if they have many packets, are large, or took a
# whole decoding pass.
DISK_FILE_BYTES = 2**20
DISK_PACKETS = 4096
LARGE_FILE_BYTES = 64 * 2**20
DISK_CACHE_BYTES = 2**30
STALE_SECONDS = 3600.0
MAGIC = b"mmaction-lite packet index 1\n"
ARRAYS = {
    "order": "i4",
    "rank": "i4",
    "keys": "i4",
    "stamps": "i8",
    "marks": "i8",
    "joins": "i4",
    "times": "f8",
}
VALUES = ("skippable", "fps", "promised", "size", "has_exact_times", "is_measured", "is_learned", "fault")

Key = tuple[str, int, int]
"""Absolute path, time of modification in nanoseconds and size in bytes of a file."""


class IndexCache:
    """Packet indexes of the files that this process read last, up to a limit in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._indexes: OrderedDict[tuple, PacketIndex] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple) -> PacketIndex | None:
        """Return the index of `key` and mark it as most recently used; None if it is not in the cache."""
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
            return self._indexes.get(key)

    def put(self, key: tuple, index: PacketIndex) -> None:
        """Store `index`, and evict the least recently used ones until all fit."""
        with self._lock:
            if key in self._indexes:
                self._nbytes -= self._indexes.pop(key).nbytes
            self._indexes[key] = index
            self._nbytes += index.nbytes
            while self._nbytes > self.limit:
                self._nbytes -= self._indexes.popitem(last=False)[1].nbytes


index_cache = IndexCache(INDEX_CACHE_BYTES)


def load_index(key: Key) -> PacketIndex | None:
    """Return the index of a file from disk; None if there is none, or if it is damaged."""
    if key[2] < DISK_FILE_BYTES:
        return None
    try:
        path = _folder() / _name(key)
        content = bytearray(path.read_bytes())
        index = _unpack(content, key)
    except Exception:  # any damage has the same effect: the index is made again
        return None
    with suppress(OSError):  # entries that are read stay longest
        os.utime(path)
    return index


def store_index(key: Key, index: PacketIndex) -> None:
    """Write the index of a long file to disk; on any error of the disk, write nothing."""
    is_costly = len(index.rank) >= DISK_PACKETS or key[2] >= LARGE_FILE_BYTES or index.is_learned
    if key[2] < DISK_FILE_BYTES or not is_costly:
        return
    temporary = None
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            file.write(_pack(key, index))
        temporary.replace(folder / _name(key))
        _evict(folder)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home folder
        with suppress(OSError):
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def _folder() -> Path:
    """Return the folder of the entries, in the cache folder that also holds downloaded weights."""
    return cache_folder() / "indexes"


def _name(key: Key) -> str:
    return hashlib.sha256(_identity(key)).hexdigest()[:40] + ".index"


def _identity(key: Key) -> bytes:
    return os.fsencode(key[0]) + f"\0{key[1]}\0{key[2]}".encode()


def _pack(key: Key, index: PacketIndex) -> bytes:
    arrays = {name: getattr(index, name) for name in ARRAYS if getattr(index, name) is not None}
    header: dict[str, Any] = {name: getattr(index, name) for name in VALUES}
    header["file"] = hashlib.sha256(_identity(key)).hexdigest()
    header["shapes"] = {name: array.shape for name, array in arrays.items()}
    parts = [MAGIC, json.dumps(header).encode(), b"\n"]
    parts += [np.ascontiguousarray(array, ARRAYS[name]).tobytes() for name, array in arrays.items()]
    content = b"".join(parts)
    return content + zlib.crc32(content).to_bytes(4, "little")


def _unpack(content: bytearray, key: Key) -> PacketIndex:
    """Return the index that `_pack` wrote.

    Raises:
        ValueError: the content is damaged or belongs to another file.
        LookupError, TypeError: likewise.
    """
    end = len(content) - 4
    if not content.startswith(MAGIC) or zlib.crc32(memoryview(content)[:end]) != int.from_bytes(
        content[end:], "little"
    ):
        raise ValueError("checksum")
    begin = content.index(b"\n", len(MAGIC)) + 1
    header = json.loads(bytes(content[len(MAGIC) : begin]))
    if header["file"] != hashlib.sha256(_identity(key)).hexdigest():
        raise ValueError("another file")
    arrays: dict[str, Any] = {"times": None}
    for name, shape in header["shapes"].items():
        count = int(np.prod(shape, dtype=np.int64))
        # A bytearray gives writable arrays: `PacketIndex.read_run` completes the order.
        arrays[name] = np.frombuffer(content, ARRAYS[name], count, begin).reshape(shape)
        begin += arrays[name].nbytes
    values = {name: header[name] for name in VALUES}
    values["size"] = None if values["size"] is None else tuple(map(int, values["size"]))
    index = PacketIndex(**arrays, **values)
    if begin != end or not _is_consistent(index):
        raise ValueError("inconsistent")
    return index


def _is_consistent(index: PacketIndex) -> bool:
    packets = len(index.rank)
    return (
        packets == len(index.marks)
        and 0 < len(index.order) <= packets
        and all(array.min() >= -1 and array.max() < packets for array in (index.order, index.rank))
        and index.keys[0] == 0
        and bool((np.diff(index.keys) > 0).all() and index.keys[-1] < packets)
        and index.stamps.shape == (len(index.keys), 2)
        and (index.times is None or len(index.times) == len(index.order))
    )


def _evict(folder: Path) -> None:
    """Delete entries that were not used for longest, and files of killed processes, until all fit."""
    entries = []
    for file in os.scandir(folder):
        with suppress(OSError):  # another process may have deleted it
            status = file.stat()
            if file.name.endswith(".part") and status.st_mtime < time.time() - STALE_SECONDS:
                Path(file.path).unlink()
            elif file.name.endswith(".index"):
                entries.append((status.st_mtime, status.st_size, Path(file.path)))
    used = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if used <= DISK_CACHE_BYTES:
            return
        with suppress(OSError):
            path.unlink()
        used -= size

"""Cache of features on disk: rows of numbers for every clip, in memory-mapped shards.

A cache belongs to one encoder with its views; `FeatureKey` describes both, and its checksum names the folder.
Inside, a clip is found by the checksum of its file (path in the data set, part, size and time of
modification). Features of another encoder, of other views or of a changed file are therefore never read.

A shard is a safetensors file with the rows of some clips. It is written under a temporary name, flushed and
renamed, so that a killed process leaves complete shards only. Its checksum is compared when it is opened.
"""

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy

from mmaction_lite.data.annotations.samples import Samples, is_remote
from mmaction_lite.data.sources.frames import split_pattern
from mmaction_lite.data.sources.shards import archive_of
from mmaction_lite.errors import describe, printable
from mmaction_lite.files import partial_files, write_atomically

FORMAT = 1
SUFFIX = ".features"
MOST_HEADER_BYTES = 100_000_000


class FeatureKey(NamedTuple):
    """Everything but the clip that features depend on.

    Args:
        weights: checksum of the weights of the encoder.
        encoder: the encoder and its arguments.
        layer: which output is stored, and over which axes it is averaged.
        views: views and normalization of the clips.
        rows: rows of a clip: its views, or random passes.
        shape: shape of a row, (tokens, D).
        dtype: "float16" or "float32".
        seed: seed of random views; None for fixed ones.
    """

    weights: str
    encoder: str
    layer: str
    views: str
    rows: int
    shape: tuple[int, int]
    dtype: str
    seed: int | None = None

    def checksum(self) -> str:
        """Return 16 hexadecimal digits that name the folder of the cache."""
        text = json.dumps([FORMAT, *self])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def clip_bytes(self) -> int:
        """Size of the features of one clip in bytes."""
        return self.rows * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class ClipFeatures(NamedTuple):
    """Features of one clip.

    Args:
        values: (rows, tokens, D).
        altered: whether each row shows the clip mirrored, and reversed; bool (rows, 2).
    """

    values: np.ndarray
    altered: np.ndarray


class _Place(NamedTuple):
    """Place of a clip: the open shard and the number of the clip in it."""

    values: np.ndarray
    altered: np.ndarray
    number: int


class FeatureCache:
    """Features of clips in a folder. One process or several write shards; all read them.

    Args:
        folder: folder of all caches; this one is a folder inside of it.
        key: what the features depend on.
        report: called with a line about a damaged shard, which is left out.
    """

    def __init__(self, folder: Path, key: FeatureKey, report: Callable[[str], None]):
        self.key = key
        self.folder = folder / key.checksum()
        self._report = report
        self._places: dict[str, _Place] = {}
        self._opened: dict[str, tuple[int, int, int]] = {}  # state of each shard by name
        self.names: dict[str, str] = {}
        """Name of the clip in the data set by checksum, also of clips whose file has changed since."""

    def __contains__(self, clip: str) -> bool:
        return clip in self._places

    def __getitem__(self, clip: str) -> ClipFeatures:
        """Return the features of a clip, which are read from disk when they are used."""
        place = self._places[clip]
        return ClipFeatures(place.values[place.number], place.altered[place.number])

    def open(self) -> None:
        """Open the shards in the folder that are new or replaced, and compare their checksums.

        A damaged shard is replaced by one of the same name if the same clips are computed again.
        """
        if not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            status = path.stat()
            state = status.st_ino, status.st_mtime_ns, status.st_size
            if self._opened.get(path.name) != state:
                self._opened[path.name] = state
                self._open(path)

    def write(self, clips: Sequence[tuple[str, str]], features: Sequence[ClipFeatures]) -> None:
        """Write a shard.

        Args:
            clips: checksum and name of every clip.
            features: of these clips.

        Raises:
            UserError: the disk is full, or the folder cannot be written.
        """
        values = np.stack([each.values for each in features])
        altered = np.stack([each.altered for each in features]).astype(np.uint8)
        text = json.dumps({"key": self.key, "clips": clips, "checksum": _checksum(values, altered)})
        data = safetensors.numpy.save({"values": values, "altered": altered}, {"shard": text})
        name = hashlib.sha256("".join(clip for clip, _ in clips).encode()).hexdigest()[:24] + SUFFIX
        write_atomically(self.folder / name, lambda file: file.write(data))

    def remove_partial(self) -> None:
        """Delete the files that killed processes left; only while no other process writes."""
        for path in {Path(str(path).rpartition(".")[0]) for path in self.folder.glob(f".*{SUFFIX}.*")}:
            for partial in partial_files(path.with_name(path.name[1:])):
                partial.unlink(missing_ok=True)

    def _open(self, path: Path) -> None:
        try:
            values, altered, found = self._read(path)
        except Exception as error:  # a damaged file can raise any exception
            self._report(
                f"{printable(str(path))}: is damaged ({describe(error)}), so its clips are computed again; "
                "delete the file"
            )
            return
        for number, (clip, name) in enumerate(found):
            self._places[clip] = _Place(values, altered, number)
            self.names[clip] = name

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
        """Return values, flags and clips of a shard.

        Raises:
            ValueError: the shard is damaged, or of another cache.
            OSError, LookupError, TypeError: likewise.
        """
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > MOST_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(file.read(size))
        shard = json.loads(header["__metadata__"]["shard"])
        clips = [(str(clip), str(name)) for clip, name in shard["clips"]]
        if shard["key"] != json.loads(json.dumps(self.key)):
            raise ValueError("it holds features of another encoder or of other views")
        arrays = {}
        shapes = {"values": (self.key.dtype, self.key.shape), "altered": ("uint8", (2,))}
        for name, (dtype, shape) in shapes.items():
            begin, _ = header[name]["data_offsets"]
            whole = (len(clips), self.key.rows, *shape)
            arrays[name] = np.memmap(path, np.dtype(dtype), "r", 8 + size + begin, whole)
        if path.stat().st_size != 8 + size + sum(array.nbytes for array in arrays.values()):
            raise ValueError("another size")
        if _checksum(arrays["values"], arrays["altered"]) != shard["checksum"]:
            raise ValueError("another checksum")
        return arrays["values"], arrays["altered"], clips


def _checksum(values: np.ndarray, altered: np.ndarray) -> int:
    number = 0
    for array in (values, altered):
        number = zlib.crc32(np.ascontiguousarray(array).data, number)
    return number


def clip_checksum(samples: Samples, sample: int) -> str:
    """Return the checksum of a clip: of its path in the data set, its part, and the state of its file.

    The state is size and time of modification: of the video, of the tar file that contains it, or of all
    images of a folder. Of a file on a server only the address is known.
    """
    words = [samples.paths[sample], str(samples.segment(sample)), _state(samples.path(sample))]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:24]


def _state(path: Path) -> list[Any]:
    """Return the state of a file or folder; empty for addresses and missing files."""
    if is_remote(path):
        return []
    try:
        path = archive_of(path) or split_pattern(path)[0]
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            return [status.st_size, status.st_mtime_ns]
        entries = [(entry.name, entry.stat()) for entry in os.scandir(path)]
        return sorted((name, status.st_size, status.st_mtime_ns) for name, status in entries)
    except OSError:
        return []

"""Read files of tensors (PyTorch and safetensors) without executing code, in memory close to the file size.

`torch.load(weights_only=True)` executes no code either, but allocates what a file claims to hold: archives
with compressed members, storages larger than the file and expanded tensors take any amount of memory. This
reader compares the sizes that a file states with the size of the file before it allocates.
"""

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from mmaction_lite.weights.pickles import Ignored, Name, Unpickler

LEGACY = 0x1950A86A20F9469CFC6C  # magic number of files that torch.save wrote before PyTorch 1.6
DTYPES = {
    f"torch.{device}{name}Storage": dtype
    for device in ("", "cuda.")
    for name, dtype in (
        ("Float", torch.float32),
        ("Double", torch.float64),
        ("Half", torch.float16),
        ("BFloat16", torch.bfloat16),
        ("ComplexFloat", torch.complex64),
        ("ComplexDouble", torch.complex128),
        ("Long", torch.int64),
        ("Int", torch.int32),
        ("Short", torch.int16),
        ("Char", torch.int8),
        ("Byte", torch.uint8),
        ("Bool", torch.bool),
    )
} | {"torch.storage.UntypedStorage": torch.uint8}
HEADER_BYTES = 32 << 20  # largest header of a safetensors file; each tensor takes about 100 bytes
PICKLE_BYTES = 256 << 20  # largest pickle inside of an archive, which holds no weights


@dataclass(frozen=True)
class TensorFile:
    """Content of a file.

    Attributes:
        content: the saved object, usually a dict, with its tensors on the CPU.
        ignored: names of the classes of objects that are not weights.
        metadata: texts that a safetensors file stores beside its tensors.
    """

    content: Any
    ignored: set[str] = field(default_factory=set)
    metadata: dict[str, str] = field(default_factory=dict)


class UnknownFormatError(ValueError):
    """A file of another format."""


def read_tensor_file(path: Path) -> TensorFile:
    """Read a `.safetensors` file, a file of `torch.save`, or a pickle of NumPy arrays.

    Raises:
        UnknownFormatError: the file begins like none of these; the message describes how.
        Exception: of any type, if the file is damaged or hostile. Call inside of `errors.reading`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return _read_safetensors(path, int.from_bytes(head[:8], "little"))
    if head[257:262] == b"ustar":
        raise UnknownFormatError("a tar file of torch.save before 2017, not supported. Save it again")
    if not head.startswith((b"PK\x03\x04", b"\x80", b"(", b"}")):
        raise UnknownFormatError(f"not a checkpoint, it begins with {head[:24]!r}. Download it again")
    return _read_zip(path) if head.startswith(b"PK") else _read_stream(path)


def _read_safetensors(path: Path, header_bytes: int) -> TensorFile:
    if header_bytes > HEADER_BYTES:
        raise ValueError(f"header of {header_bytes} bytes, expected at most {HEADER_BYTES}")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return TensorFile(tensors, metadata=file.metadata() or {})


def _read_zip(path: Path) -> TensorFile:
    """Read a zip archive of torch.save: `data.pkl`, and the bytes of each storage as a member."""
    tensors: dict[str, Tensor] = {}
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if sum(archive.getinfo(name).file_size for name in names) > size:
            raise ValueError("archive whose members are larger than the file")
        if not any(member.CRC for member in archive.infolist()):
            for member in archive.infolist():  # written without checksums, see set_crc32_options
                del member.CRC
        (pickle,) = (name for name in names if name.endswith("/data.pkl"))
        if archive.getinfo(pickle).file_size > PICKLE_BYTES:
            raise ValueError(f"pickle of more than {PICKLE_BYTES} bytes")
        root = pickle.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("numbers in big-endian order")

        def storage(reference: Any) -> Tensor | Ignored:
            kind, key, count, _ = _reference(reference)
            if key not in tensors:
                member = archive.getinfo(f"{root}data/{key}")
                tensors[key] = torch.empty(member.file_size, dtype=torch.uint8)
                with archive.open(member) as file:
                    _fill(tensors[key], file)  # pyright: ignore[reportArgumentType]
            return tensors[key].view(DTYPES[kind])[:count] if kind in DTYPES else Ignored(kind)

        reader = Unpickler(io.BytesIO(archive.read(pickle)), storage, size)
        return TensorFile(reader.load(), reader.ignored)


def _read_stream(path: Path) -> TensorFile:
    """Read a plain pickle, or a file of torch.save before 1.6: five pickles, then bytes of storages."""
    tensors: dict[str, Tensor] = {}
    size = unclaimed = path.stat().st_size  # bytes of the file that no storage has used yet

    def storage(reference: Any) -> Tensor | Ignored:
        nonlocal unclaimed
        kind, key, count, view = _reference(reference)
        if kind not in DTYPES:
            raise ValueError(f"a {kind}, which is not supported")
        if key not in tensors:
            unclaimed -= count * DTYPES[kind].itemsize
            if unclaimed < 0:
                raise ValueError(f"a storage of {count} numbers, more than the file can hold")
            tensors[key] = torch.empty(count, dtype=DTYPES[kind])
        if view:
            _, offset, length = view
            return tensors[key][offset : offset + length]
        return tensors[key]

    with path.open("rb") as data:
        reader = Unpickler(data, storage, size)
        content = reader.load()
        if isinstance(content, int) and content == LEGACY:
            reader.load()  # version of the format
            reader.load()  # byte order and integer sizes of the machine
            content = reader.load()
            keys = [_key(key) for key in reader.load()]
            if set(keys) != set(tensors):
                raise ValueError("storages that are listed but not used, or used but not listed")
            for key in keys:
                tensor = tensors[key]
                count = int.from_bytes(data.read(8), "little")
                if count != len(tensor):
                    raise ValueError(f"storage of {count} numbers, expected {len(tensor)}")
                _fill(tensor.view(torch.uint8), data)
        elif tensors:
            raise ValueError("storages without numbers")
        return TensorFile(content, reader.ignored)


def _reference(reference: Any) -> tuple[str, str, int, Any]:
    """Return name of the class, key, number of elements and view of a storage.

    Raises:
        ValueError, TypeError: the reference is something else.
    """
    tag, kind, key, _, count, *view = reference
    if tag != "storage" or not isinstance(kind, Name) or not isinstance(count, int) or count < 0:
        raise TypeError("a persistent reference to something else than a storage")
    return kind.path, _key(key), count, view[0] if view else None


def _key(key: Any) -> str:
    if not isinstance(key, str | int):
        raise TypeError(f"a {type(key).__name__} as the key of a storage")
    return str(key)


def _fill(tensor: Tensor, file: BinaryIO) -> None:
    """Read the elements of a tensor (1-D, uint8) from a file, in parts of a few megabytes."""
    target = memoryview(tensor.numpy())  # pyright: ignore[reportArgumentType]
    for start in range(0, len(target), 8 << 20):
        part = target[start : start + (8 << 20)]
        data = file.read(len(part))
        if len(data) != len(part):
            raise EOFError("the file ends inside of a storage")
        part[:] = data

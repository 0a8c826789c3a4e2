"""Reading of checkpoint files of any origin, without executing code that they contain."""

import io
import json
import mmap
import sys
import warnings
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.weights.converters.pickles import Ignored, Unpickler

LEGACY = 0x1950A86A20F9469CFC6C  # magic number of files that torch.save wrote before PyTorch 1.6
DTYPES = {
    f"torch.{device}{name}Storage": dtype
    for device in ("", "cuda.")
    for name, dtype in (
        ("Float", torch.float32),
        ("Double", torch.float64),
        ("Half", torch.float16),
        ("BFloat16", torch.bfloat16),
        ("Long", torch.int64),
        ("Int", torch.int32),
        ("Short", torch.int16),
        ("Char", torch.int8),
        ("Byte", torch.uint8),
        ("Bool", torch.bool),
    )
}
HOLDERS = ("state_dict", "model_state", "model_state_dict", "model", "module", "network", "net")
WRAPPERS = ("module.", "_orig_mod.", "model.")  # of DistributedDataParallel, torch.compile, Lightning
PYTORCHVIDEO = (
    "C2D_8x8_R50",
    "I3D_8x8_R50",
    "SLOW_4x16_R50",
    "SLOW_8x8_R50",
    "SLOWFAST_4x16_R50",
    "SLOWFAST_8x8_R50",
)


def read_checkpoint(path: str | Path) -> dict:
    """Return the content of a `.pth`, `.pyth`, `.pt`, `.pkl` or `.safetensors` file, with tensors on the CPU.

    `torch.load(weights_only=True)` is tried first. Files that it refuses, because projects store loggers,
    configurations and dates beside the weights, are read by `pickles`, which executes nothing; a line on
    standard error names the classes of ignored objects.

    Raises:
        UserError: the file does not exist, is damaged, or is not a checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}; expected a checkpoint (.pth, .pyth, .pt, .pkl or .safetensors)")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty; copy or download it again")
    try:
        checkpoint, ignored = _read(path)
    except UserError:
        raise
    except Exception as error:  # damaged or hostile files can raise any exception
        reason = _shown(f"{type(error).__name__}: {error}")
        raise UserError(f"{path}: damaged, copy or download it again ({reason})") from None
    if ignored:
        names = [_shown(name) for name in sorted(ignored)]
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        print(f"{path}: ignored objects that are not weights: {', '.join(names[:20])}{more}", file=sys.stderr)
    if isinstance(checkpoint, Ignored):
        raise UserError(
            f"{path}: a pickled object of class {_shown(checkpoint.path)}; "
            "expected a state dict. Save model.state_dict() where the code of the class is installed"
        )
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: holds a {type(checkpoint).__name__}; expected a dict of tensors")
    if isinstance(checkpoint.get("blobs"), dict):
        name = path.stem.replace("SLOWONLY", "SLOW")
        files = [f"{name}.pyth"] if name in PYTORCHVIDEO else [f"{name}.pyth" for name in PYTORCHVIDEO]
        raise UserError(
            f"{path}: a Caffe2 file of PySlowFast, which is not supported. "
            f"Use PyTorchVideo's file of the same network: {', '.join(files)}"
        )
    return checkpoint


def stored_classes(path: str | Path, checkpoint: dict) -> tuple[str, ...] | None:
    """Return the class names that a weights file of this package stores, in the order of its logits.

    Args:
        path: the file.
        checkpoint: its content, as `read_checkpoint` returns it.

    Returns:
        The names; None for a file of another project.
    """
    card: Any = checkpoint.get("card")
    if card is None and Path(path).suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            card = (file.metadata() or {}).get("card")
    try:
        names = json.loads(card or "")["classes"]
    except (ValueError, TypeError, KeyError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else None


def find_state_dict(checkpoint: dict, known: Collection[str] = ()) -> dict[str, Tensor]:
    """Return the weights in a checkpoint, without the prefix of a wrapper (`module.` …) before all names.

    Args:
        checkpoint: as `read_checkpoint` returns it.
        known: names in the state dict of the network; a prefix that belongs to them stays.

    Raises:
        UserError: the checkpoint holds no weights.
    """
    for holder in HOLDERS * 2:
        if isinstance(checkpoint.get(holder), dict):
            checkpoint = checkpoint[holder]
    weights = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for key, value in checkpoint.items()
        if isinstance(key, str) and key.isprintable() and isinstance(value, Tensor | np.ndarray)
    }
    if not weights:
        raise UserError(
            f"the checkpoint holds no weights under {', '.join(HOLDERS)}; "
            f"it holds {', '.join(_shown(str(key)) for key in list(checkpoint)[:10]) or 'nothing'}"
        )
    for wrapper in WRAPPERS * 2:
        if all(key.startswith(wrapper) and key not in known for key in weights):
            weights = {key.removeprefix(wrapper): value for key, value in weights.items()}
    return weights


def _shown(text: str) -> str:
    """Return text from a file in a form that is safe to print on one line."""
    return (text if text.isprintable() else ascii(text))[:80]


def _read(path: Path) -> tuple[Any, set[str]]:
    """Detect the format of a file; return its content and the names of ignored classes."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return load_file(path), set()
    if head[257:262] == b"ustar":
        raise UserError(f"{path}: a tar file of torch.save before 2017, not supported. Save it again")
    if not head.startswith((b"PK\x03\x04", b"\x80", b"(", b"}")):
        raise UserError(f"{path}: not a checkpoint, it begins with {head[:24]!r}. Download it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True), set()
    except Exception:  # refused or damaged; the reader of `pickles` determines which
        return _read_zip(path) if head.startswith(b"PK") else _read_stream(path)


def _read_zip(path: Path) -> tuple[Any, set[str]]:
    """Read a zip archive of torch.save: `data.pkl`, and the bytes of each storage as a member."""
    tensors: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if sum(archive.getinfo(name).file_size for name in names) > path.stat().st_size:
            raise ValueError("archive whose members are larger than the file")
        (pickle,) = (name for name in names if name.endswith("/data.pkl"))
        root = pickle.removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("numbers in big-endian order")

        def storage(reference: Any) -> Tensor:
            _, kind, key, _, count = reference
            if str(key) not in tensors:
                tensors[str(key)] = _bytes(archive.read(f"{root}data/{key}"))
            return tensors[str(key)].view(DTYPES[kind.path])[:count]

        reader = Unpickler(io.BytesIO(archive.read(pickle)), storage)
        return reader.load(), reader.ignored


def _read_stream(path: Path) -> tuple[Any, set[str]]:
    """Read a plain pickle, or a file of torch.save before 1.6: five pickles, then bytes of storages."""
    tensors: dict[str, Tensor] = {}
    unclaimed = path.stat().st_size  # bytes of the file that no storage has used yet

    def storage(reference: Any) -> Tensor:
        nonlocal unclaimed
        _, kind, key, _, count, view = reference
        if str(key) not in tensors:
            dtype = DTYPES[kind.path]
            unclaimed -= count * dtype.itemsize
            if count < 0 or unclaimed < 0:
                raise ValueError(f"a storage of {count} numbers, more than the file can hold")
            tensors[str(key)] = torch.empty(count, dtype=dtype)
        if view:
            _, offset, length = view
            return tensors[str(key)][offset : offset + length]
        return tensors[str(key)]

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        reader = Unpickler(data, storage)
        content = reader.load()
        if isinstance(content, int) and content == LEGACY:
            reader.load()  # version of the format
            reader.load()  # byte order and integer sizes of the machine
            content = reader.load()
            for key in reader.load():
                tensor = tensors[key]
                count = int.from_bytes(data.read(8), "little")
                if count != len(tensor):
                    raise ValueError(f"storage {key!r:.80} of {count} numbers, expected {len(tensor)}")
                tensor.view(torch.uint8).copy_(_bytes(data.read(tensor.nbytes)))
        return content, reader.ignored


def _bytes(data: bytes) -> Tensor:
    """Return bytes as a writable uint8 tensor."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)

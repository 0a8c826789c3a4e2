"""Read the test views of a weights file without PyTorch, whose import takes more than a second.

`predict` starts to decode with these views while PyTorch is imported and the weights are loaded. Afterwards
the views of the loaded card decide: a wrong guess costs time only.
"""

import json
import pickletools
import struct
import zipfile
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from mmaction_lite.data.views import crops, samplers
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError, printable

VIEW_TYPES = {
    kind.__name__: kind
    for kind in (
        samplers.DenseClips,
        samplers.PySlowFastClips,
        samplers.SegmentClips,
        samplers.SegmentFrames,
        samplers.SegmentWindows,
        samplers.TimedClips,
        crops.CenterCrop,
        crops.ThreeCrop,
        crops.TenCrop,
        TestViews,
    )
}
MOST_HEADER_BYTES = 64 << 20
MOST_VIDEO_BYTES = 256 << 20  # clips of one video; views that read more are not guessed


def peek_views(weights: str | Path) -> TestViews | None:
    """Return the views of the test protocol in a weights file or run folder.

    Args:
        weights: as for `load`.

    Returns:
        the views; None if `weights` is something else, is damaged, or reads an unusual amount of pixels.
    """
    try:
        path = Path(weights)
        path = path / "best.pt" if path.is_dir() else path
        if not path.is_file():  # a pipe waits for a writer
            return None
        text = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
        views = unpack(json.loads(text)["test"]["views"], VIEW_TYPES)
        is_usual = isinstance(views, TestViews) and views.video_bytes <= MOST_VIDEO_BYTES
    except Exception:  # a damaged file can raise any exception; `load` reports it
        return None
    return views if is_usual else None


def _read_safetensors(path: Path) -> str:
    with path.open("rb") as file:
        (num_bytes,) = struct.unpack("<Q", file.read(8))
        if num_bytes > MOST_HEADER_BYTES:
            raise ValueError("the header is too large")
        return json.loads(file.read(num_bytes))["__metadata__"]["card"]


def _read_checkpoint(path: Path) -> str:
    """Return the text behind the key "card" in the pickle of a checkpoint, which is not executed."""
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith("/data.pkl"))
        if info.file_size > MOST_HEADER_BYTES:
            raise ValueError("the pickle is too large")
        data = archive.read(info)
    texts = (argument for _, argument, _ in pickletools.genops(data) if isinstance(argument, str))
    return next(text for key, text in pairwise(texts) if key == "card")


def check_known(values: dict[str, Any], kind: type) -> None:
    """Check that a card of JSON has no fields that this version does not know.

    Raises:
        UserError: it has one.
    """
    unknown = sorted(values.keys() - {field.name for field in fields(kind)})
    if unknown:
        raise UserError(
            f"{kind.__name__} has the unknown field {printable(unknown[0], 100)!r}: a newer version of "
            "mmaction-lite wrote the file. Update mmaction-lite"
        )


def unpack(value: Any, types: dict[str, type]) -> Any:
    """Create the value that a card stores as JSON; a list becomes a tuple.

    Args:
        value: a parsed JSON value; objects name their dataclass as "type". Its objects are emptied.
        types: the dataclasses that may be created, by name.

    Raises:
        UserError: a field has an invalid value, or is unknown.
        ValueError, TypeError, KeyError: the value is not part of a card.
    """
    if isinstance(value, dict):
        name = value.pop("type")
        if name not in types:
            raise ValueError(f"unknown type {name!r:.100}, perhaps of a newer version of mmaction-lite")
        check_known(value, types[name])
        return types[name](**{name: unpack(item, types) for name, item in value.items()})
    return tuple(unpack(item, types) for item in value) if isinstance(value, list) else value

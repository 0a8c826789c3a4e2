"""Reading of checkpoint files of any origin, without executing code that they contain."""

import contextlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.errors import UserError, describe, printable
from mmaction_lite.weights.converters.folders import check_not_a_part, is_hub_folder, read_hub_folder
from mmaction_lite.weights.converters.selection import (
    HOLDERS,
    choose_holder,
    describe_other,
    in_float,
    plain_names,
)
from mmaction_lite.weights.converters.vjepa import join_files
from mmaction_lite.weights.pickles import Ignored
from mmaction_lite.weights.tensor_files import UnknownFormatError, read_tensor_file

CARD = (
    "card"  # key of the model card in checkpoints of this package, and in the metadata of its weights files
)
CLASS_LISTS = ("classes", "CLASSES", "class_names")
TENSOR_KINDS = ("torch._utils._rebuild", "torch._tensor._rebuild", "torch.Q", "torch.storage.")
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

    A folder of the Hugging Face Hub, and the index file of a checkpoint in several parts, are read as well.

    No code of the file is executed, and a file never takes much more memory than its size; see
    `tensor_files`. Projects store loggers, configurations and dates beside the weights: a line on standard
    error names the classes of ignored objects. The metadata of a safetensors file is left out, except for
    the model card of this package.

    Raises:
        UserError: the file does not exist, is damaged, or is not a checkpoint.
    """
    path = Path(path)
    if is_hub_folder(path) or (path.is_file() and path.name.endswith(".index.json")):
        return read_hub_folder(path)
    check_not_a_part(path)
    if not path.is_file():
        kind = "a directory" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {kind}; expected a checkpoint (.pth, .pyth, .pt, .pkl or .safetensors)")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty; copy or download it again")
    try:
        file = read_tensor_file(path)
    except UnknownFormatError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # damaged and hostile files can raise any exception
        raise UserError(f"{path}: damaged, copy or download it again ({describe(error)})") from None
    checkpoint, ignored = file.content, file.ignored
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
    if CARD in file.metadata:
        return {"model": checkpoint, CARD: file.metadata[CARD]}
    return checkpoint


def stored_classes(checkpoint: dict) -> tuple[str, ...] | None:
    """Return the class names that a checkpoint stores, in the order of its logits.

    Args:
        checkpoint: content of a file, as `read_checkpoint` returns it.

    These are the names of the model card of this package, of `meta` in files of MMAction2 (`CLASSES`, or
    `classes` in `dataset_meta`), or a list `classes` or `class_names` beside the weights.

    Returns:
        The names; None if the checkpoint stores none, or a name occurs twice.
    """
    card, meta = checkpoint.get(CARD), checkpoint.get("meta")
    places: list[Any] = [checkpoint]
    if isinstance(card, str):
        with contextlib.suppress(ValueError, RecursionError):
            places.insert(0, json.loads(card))
    if isinstance(meta, dict):
        places += [meta, meta.get("dataset_meta")]
    for place in places:
        for key in CLASS_LISTS if isinstance(place, dict) else ():
            names = place.get(key)
            if not isinstance(names, list | tuple) or not names:
                continue
            if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
                return tuple(names)
    return None


def find_state_dict(checkpoint: dict, known: Collection[str] = ()) -> dict[str, Tensor]:
    """Return the weights in a checkpoint; see `find_weights`."""
    return find_weights(checkpoint, known)[0]


def find_weights(checkpoint: dict, known: Collection[str] = ()) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights in a checkpoint, without the prefix of a wrapper (`module.` …) before all names.

    Args:
        checkpoint: as `read_checkpoint` returns it.
        known: names in the state dict of the network; a prefix that belongs to them stays.

    Returns:
        The weights by name, and notes on choices, such as averaged weights instead of others.

    Raises:
        UserError: the checkpoint holds no weights, or weights of a kind that is not supported, such as sparse
            tensors.
    """
    joined = join_files(checkpoint)
    checkpoint, notes = joined if joined is not None else choose_holder(checkpoint)
    others = {
        str(key): value.path.rpartition(".")[2].removeprefix("_rebuild_")
        for key, value in checkpoint.items()
        if isinstance(value, Ignored) and value.path.startswith(TENSOR_KINDS)
    }
    if others:
        key, kind = next(iter(others.items()))
        raise UserError(
            f"{len(others)} of {len(checkpoint)} entries are tensors of a kind that is not supported, such "
            f"as {_shown(key)} ({_shown(kind)}); expected dense tensors of floating-point numbers. Save the "
            "state dict of the model after model.float()"
        )
    weights = {
        key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        for key, value in checkpoint.items()
        if isinstance(key, str) and key.isprintable() and isinstance(value, Tensor | np.ndarray)
    }
    if not weights:
        what = describe_other(checkpoint)
        raise UserError(
            f"the checkpoint holds no weights under {', '.join(HOLDERS)}; "
            f"it holds {what or ', '.join(_shown(str(key)) for key in list(checkpoint)[:10]) or 'nothing'}"
        )
    weights, of_dtype = in_float(weights)
    weights, of_names = plain_names(weights, known)
    return weights, [*notes, *of_dtype, *of_names]


def _shown(text: str) -> str:
    """Return text from a file in a form that is safe to print on one line."""
    return printable(text, 80)

"""Folders of the Hugging Face Hub: weights in one file or in several, settings in `config.json`."""

import json
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.weights.tensor_files import read_tensor_file

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
PREPROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")  # the first one wins
PREPROCESSOR = "preprocessor"  # key of their content in a checkpoint that `read_hub_folder` returns
CONFIG = "config"  # key of the content of config.json in such a checkpoint
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.safetensors|\.bin)")
JSON_BYTES = 64 << 20  # largest file of settings


def is_hub_folder(path: Path) -> bool:
    """Whether a folder has the files of a repository on the Hugging Face Hub, and is no run folder."""
    if not path.is_dir() or (path / "best.pt").exists():
        return False
    return any((path / name).is_file() for name in (*INDEXES, *FILES, "config.json"))


def check_not_a_part(path: Path) -> None:
    """Check that a file is not one of several parts of a checkpoint.

    Raises:
        UserError: it is.
    """
    match = PART.fullmatch(path.name)
    if match and int(match[3]) > 1:
        raise UserError(
            f"{path}: part {int(match[2])} of {int(match[3])} of a checkpoint; pass the folder "
            f"{printable(str(path.parent))} with all parts and the file {match[1]}{match[4]}.index.json"
        )


def read_hub_folder(path: Path) -> dict[str, Any]:
    """Read a folder of the Hub, or the index file of a checkpoint in several parts.

    Returns:
        `model`, the tensors by name; `config`, the content of `config.json`; `classes`, the class names if it
        has any; and `preprocessor`, the settings of the pixels if the folder has any. The values in the
        folder have precedence over the defaults of a class in the library of its author.

    Raises:
        UserError: the folder has no weights, a part is missing or damaged, or a file of settings is not JSON.
    """
    folder = path if path.is_dir() else path.parent
    names = [path.name] if path.is_file() else [*INDEXES, *FILES]
    name = next((name for name in names if (folder / name).is_file()), None)
    if name is None:
        raise UserError(
            f"{folder}: has a config.json, and no weights; expected {FILES[0]}, {INDEXES[0]} or {FILES[1]}. "
            "Download all files of the repository"
        )
    weights = _read_parts(folder / name) if name.endswith(".index.json") else _read_tensors(folder / name)
    config = _read_json(folder / "config.json")
    content: dict[str, Any] = {"model": weights, CONFIG: config}
    if classes := _class_names(config):
        content["classes"] = classes
    if settings := _preprocessor(folder, config):
        content[PREPROCESSOR] = settings
    return content


def weights_file(folder: Path) -> Path:
    """Return the path of the weights in a folder of the Hub, which may hold weights of this package."""
    return folder / FILES[0]


def _preprocessor(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the pixels of a folder; empty if it has none."""
    name = next((name for name in PREPROCESSORS if (folder / name).is_file()), None)
    if name:
        return _read_json(folder / name)
    timm = config.get("pretrained_cfg")
    if isinstance(timm, dict) and "mean" in timm:
        return {"image_mean": timm["mean"], "image_std": timm.get("std")}
    return {}


def _read_parts(index: Path) -> dict[str, Tensor]:
    """Read all parts of a checkpoint."""
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(p, str) for p in places.values()):
        raise UserError(f"{index}: has no weight_map; expected the name of a file for each tensor")
    files = sorted(set(places.values()))
    outside = [name for name in files if Path(name).name != name or name in (".", "..")]
    if outside:
        raise UserError(
            f"{index}: names the file {printable(outside[0], 100)}; expected files in the same folder"
        )
    missing = [name for name in files if not (index.parent / name).is_file()]
    if missing:
        raise UserError(
            f"{index.parent}: {len(missing)} of {len(files)} parts are missing, such as "
            f"{printable(missing[0], 100)}; download them, too"
        )
    weights: dict[str, Tensor] = {}
    for name in files:
        weights |= _read_tensors(index.parent / name)
    absent = sorted(places.keys() - weights.keys())
    if absent:
        raise UserError(
            f"{index}: {len(absent)} of {len(places)} tensors are in no part, such as "
            f"{printable(absent[0], 100)}; the parts belong to another version. Download all files again"
        )
    return weights


def _read_tensors(path: Path) -> dict[str, Tensor]:
    with reading(path, advice="damaged, copy or download it again"):
        content = read_tensor_file(path).content
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected a dict of tensors")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _read_json(path: Path) -> dict[str, Any]:
    """Return an object of a JSON file; empty if there is no file."""
    if not path.is_file():
        return {}
    with reading(path, advice="expected a file of settings in JSON. Download it again"):
        if path.stat().st_size > JSON_BYTES:
            raise ValueError(f"more than {JSON_BYTES} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected an object of settings")
    return content


def _class_names(config: dict[str, Any]) -> list[str] | None:
    """Return the class names of `id2label`, or of timm's `label_names`; None if there are none.

    Names such as LABEL_0 are those of a training without class names.
    """
    labels = config.get("id2label")
    found: Any = config.get("label_names")
    if isinstance(labels, dict):
        try:
            numbered = {int(number): name for number, name in labels.items()}
        except ValueError:
            return None
        found = [numbered.get(number) for number in range(len(numbered))]
    if not isinstance(found, list) or not found:
        return None
    names = [name for name in found if isinstance(name, str)]
    is_numbered = all(name == f"LABEL_{number}" for number, name in enumerate(names))
    return None if is_numbered or len(set(names)) < len(found) else names

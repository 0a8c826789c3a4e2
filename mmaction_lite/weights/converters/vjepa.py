"""Names of V-JEPA 2 and 2.1 in the files of facebookresearch/vjepa2.

An encoder and its probe are two files. The encoder's file holds several networks, of which the average over
the training (`target_encoder` or `ema_encoder`) is the published one. The probe's file holds `classifiers`,
one for each learning rate of its training; the published files have one. `join_files` makes one dict of both,
with names that begin with `encoder.` and `classifier.`.

The encoders of 2.0 and 2.1 compute something else even where names and shapes are equal. Weights of one are
refused by the network of the other.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.vjepa import VJepa

NAME = "V-JEPA"

ENCODERS = ("target_encoder", "ema_encoder", "encoder")  # the first one wins
PROBES = "classifiers"
DIVING48 = 48  # classes
# Blocks whose tokens the published probes of Diving48 take, by depth of the encoder.
LEVELS = {24: (17, 19, 21, 23), 40: (24, 29, 34, 39)}
_WRAPPERS = re.compile(r"(?:module\.|_orig_mod\.|backbone\.)*")
_ENCODER = re.compile(
    r"(?:encoder\.|module\.|backbone\.)*((?:patch_embed(?:_img)?\.proj|blocks\.\d+|norm|norms_block\.\d)\..+)"
)
_VECTOR = re.compile(r"(?:encoder\.|module\.|backbone\.)*((?:img|video)_mod_embed)")
_OF_HIERA = re.compile(r"blocks\.\d+\.proj\.weight")
_PROBE = re.compile(r"(?:classifier\.|module\.)*(pooler\..+)")
_LINEAR = re.compile(r"(?:classifier\.|module\.)*(?:linear|head)\.(weight|bias)")
# The table of fixed positions, which the rotary positions replace, and the predictor of the pre-training.
_UNUSED = re.compile(r"(?:encoder\.|module\.|backbone\.)*(pos_embed|predictor\..+)")


def join_files(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]] | None:
    """Return the weights of an encoder's file, of a probe's file or of both, and notes; None for other files.

    Args:
        checkpoint: content of a file, or the union of the contents of both.
    """
    name = next((name for name in ENCODERS if isinstance(checkpoint.get(name), Mapping)), None)
    if name == "encoder" and "predictor" not in checkpoint:
        name = None
    probes = checkpoint.get(PROBES)
    probes = probes if isinstance(probes, list | tuple) and probes else []
    if name is None and not (probes and isinstance(probes[0], Mapping)):
        return None
    weights: dict[str, Tensor] = {}
    notes = []
    if name:
        weights |= _with_prefix("encoder.", checkpoint[name])
        others = [other for other in (*ENCODERS, "predictor") if other in checkpoint and other != name]
        notes.append(", not ".join([f"{name} is loaded", *([", ".join(others)] if others else [])]))
    if probes:
        weights |= _with_prefix("classifier.", probes[0])
        if len(probes) > 1:
            notes.append(
                f"the first of {len(probes)} probes is loaded; the file does not say which is the best"
            )
    return weights, notes


def is_encoder(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is an encoder's file of V-JEPA, without a probe."""
    return PROBES not in checkpoint and any(
        isinstance(checkpoint.get(name), Mapping) and (name != "encoder" or "predictor" in checkpoint)
        for name in ENCODERS
    )


def matches(keys: Collection[str]) -> bool:
    """Whether a checkpoint with these keys comes from V-JEPA."""
    if any(key.endswith("pooler.cross_attention_block.xattn.kv.weight") for key in keys):
        return True
    names = {match[1] for match in map(_ENCODER.fullmatch, keys) if match}
    is_encoder = "blocks.0.attn.qkv.bias" in names and any(name.startswith("patch_embed") for name in names)
    changes_width = any(_OF_HIERA.fullmatch(name) for name in names)
    is_image = any(key.endswith(("cls_token", "reg_token")) or "attn_pool." in key for key in keys)
    return is_encoder and not changes_width and not is_image


def rename(keys: Collection[str]) -> dict[str, str | None]:
    """Return our name for each key, None for entries left out on purpose; unknown keys are missing."""
    renamed: dict[str, str | None] = {}
    for key in keys:
        if match := _PROBE.fullmatch(key):
            renamed[key] = match[1]
        elif match := _LINEAR.fullmatch(key):
            renamed[key] = f"head.{match[1]}"
        elif match := _ENCODER.fullmatch(key) or _VECTOR.fullmatch(key):
            renamed[key] = f"encoder.{match[1]}"
        elif _UNUSED.fullmatch(key):
            renamed[key] = None
    return renamed


def untrained(keys: Collection[str], names: Collection[str]) -> list[str]:
    """Return our names of parameters that weights with these keys lack on purpose: the pooler's.

    Args:
        keys: names in the checkpoint.
        names: names in the state dict of the network.
    """
    has_pooler = any(_PROBE.fullmatch(key) for key in keys)
    return [] if has_pooler else [name for name in names if name.startswith("pooler.")]


def adapt(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Any]:
    """Check that the network has the form, 2 or 2.1, that the weights are for.

    Returns:
        No builder arguments.

    Raises:
        UserError: the network has the other form, or the file is of a probe alone.
    """
    check_version(state_dict, model)
    return {}


def notes(state_dict: Mapping[str, Tensor], model: nn.Module) -> list[str]:
    """Return remarks about the classes of a probe, and about probes on the tokens of four layers."""
    linear = next((value for key, value in state_dict.items() if _LINEAR.fullmatch(key)), None)
    if linear is None:
        return []
    order = (
        "the file does not name the classes; their order is that of the list of the probe's training, which "
        "may differ from that of other lists of the same data set"
    )
    return [order, *levels_notes(len(linear), model)]


def levels_notes(num_classes: int, model: nn.Module) -> list[str]:
    """Return a remark about probes that may be trained on the tokens of four layers.

    Args:
        num_classes: of the probe.
        model: the network.
    """
    if not isinstance(model, VJepa) or len(model.encoder.levels) > 1 or num_classes != DIVING48:
        return []
    levels = LEVELS.get(len(model.encoder.blocks))
    if levels is None or model.encoder.version != "2":
        return []
    return [
        "the published probes of Diving48, with 48 classes, are trained on the tokens of four layers, and "
        f"the network takes the last one only. For these, use a recipe with Build(..., levels={levels})"
    ]


def check_version(keys: Collection[str], model: nn.Module) -> None:
    """Check that a network is the one, V-JEPA 2 or 2.1, that the weights are for.

    Raises:
        UserError: it is the other one, or no V-JEPA, or the weights have no encoder.
    """
    if not any(match[1].startswith("blocks.") for match in map(_ENCODER.fullmatch, keys) if match):
        raise UserError(
            "weights of a V-JEPA probe without the encoder; expected both. Pass the file of the encoder, and "
            "this one as the probe (mmaction-lite convert ENCODER.pt --probe PROBE.pt)"
        )
    is_second = any("norms_block." in key for key in keys)
    version, builder = ("2.1", "vjepa21_") if is_second else ("2", "vjepa2_")
    if not isinstance(model, VJepa) or model.encoder.version != version:
        found = f"V-JEPA {model.encoder.version}" if isinstance(model, VJepa) else type(model).__name__
        raise UserError(
            f"these are weights of V-JEPA {version}, and the network is {found}, which has other positions "
            f"and normalizations; use a recipe of {builder}…"
        )


def _with_prefix(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + _WRAPPERS.sub("", key, count=1): value for key, value in weights.items()}

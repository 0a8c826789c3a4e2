"""The weights in a checkpoint: one of several state dicts, under plain names, in a dtype that can be loaded.

Frameworks nest the weights under various keys, store an exponential moving average (EMA) beside them, and
prefix names with those of wrappers. The functions here return one flat state dict, and notes on every choice.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.errors import UserError, printable

HOLDERS = ("state_dict", "model_state", "model_state_dict", "model", "module", "network", "net")
# State dicts of averaged weights: in timm, in VideoMAE, and in training scripts of users.
AVERAGED = ("state_dict_ema", "model_ema", "model_ema_state_dict", "ema_state_dict", "ema_model", "ema")
WRAPPERS = ("module.", "_orig_mod.", "model.")  # of DistributedDataParallel, torch.compile, Lightning
AVERAGED_PREFIXES = ("ema_model.", "model_ema.", "ema.", "averaged_model.")
# Wrappers that occur inside of names: of torch.compile, FSDP and activation checkpointing.
INSERTED = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Parts of a Lightning module that are no part of the network.
BESIDE = re.compile(
    r"(criterion|loss\w*|metrics?|\w+_metrics?|(train|val|valid|test)_\w+|\w*acc(uracy)?)\..+"
)
FLOAT8 = {
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
    if hasattr(torch, name)
}
SCALES = re.compile(r".*(weight_scale(_inv)?|scale_weight|scale_inv|input_scale)")


def choose_holder(checkpoint: dict) -> tuple[dict, list[str]]:
    """Return the dict of the weights in a checkpoint, and notes on averaged weights.

    Averaged weights are chosen where a checkpoint has them, because published accuracies are theirs. Files of
    MMEngine hold the averaged weights in `state_dict` and the others in `ema_state_dict`.
    """
    notes: list[str] = []
    for _ in range(len(HOLDERS) * 2):
        plain = next((key for key in HOLDERS if isinstance(checkpoint.get(key), dict)), None)
        averaged = next((key for key in AVERAGED if _has_weights(checkpoint.get(key))), None)
        if averaged is not None and plain == "state_dict" and "message_hub" in checkpoint:
            notes.append(f"state_dict, the averaged weights (EMA), is loaded, not {averaged}")
        elif averaged is not None:
            instead = f", not {plain}" if plain else ""
            notes.append(f"{averaged}, the averaged weights (EMA), is loaded{instead}")
            plain = averaged
        elif plain == "model" and _has_weights(checkpoint.get("average")):  # last.pt of this package
            notes.append("model, the weights of the last step, is loaded, not average; best.pt has these")
        if plain is None:
            break
        checkpoint = checkpoint[plain]
    return checkpoint, notes


def plain_names(
    weights: Mapping[str, Tensor], known: Collection[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights without prefixes of wrappers and without entries beside the network, and notes.

    Args:
        weights: by the names in the checkpoint.
        known: names in the state dict of the network, which stay.
    """
    notes: list[str] = []
    weights = _without_averages(dict(weights), known, notes)
    weights = _renamed(weights, lambda key: key if key in known else INSERTED.sub("", key))
    for wrapper in WRAPPERS * 2:
        beside = [key for key in weights if BESIDE.fullmatch(key) and key not in known]
        inside = [key for key in weights if key.startswith(wrapper) and key not in known]
        if not inside or len(inside) + len(beside) < len(weights):
            continue
        if beside:
            notes.append(
                f"{len(beside)} entries beside the network are left out, such as {printable(beside[0], 100)}"
            )
        weights = {key.removeprefix(wrapper): weights[key] for key in inside}
    return weights, notes


def in_float(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights with tensors of 8-bit floating-point numbers converted to float32, and notes.

    Raises:
        UserError: the 8-bit numbers have scale factors, by which every project multiplies differently.
    """
    small = [key for key, weight in weights.items() if weight.dtype in FLOAT8]
    if not small:
        return dict(weights), []
    scales = [key for key in weights if SCALES.fullmatch(key)]
    if scales:
        raise UserError(
            f"{len(small)} tensors are in 8-bit floating-point numbers with scale factors, such as "
            f"{printable(scales[0], 100)}; expected float32, float16 or bfloat16. Take the file that is not "
            "quantized"
        )
    converted = {key: weight.float() if key in small else weight for key, weight in weights.items()}
    return converted, [f"{len(small)} tensors have 8-bit floating-point numbers, with two or three digits"]


def describe_other(checkpoint: Mapping[Any, Any]) -> str:
    """Return what a checkpoint without weights is, if it is known; else an empty string."""
    if {"state", "param_groups"} <= checkpoint.keys():
        return "the state of an optimizer"
    if "shadow_params" in checkpoint:
        return "averaged weights without names (torch_ema)"
    return ""


def _has_weights(value: Any, depth: int = 3) -> bool:
    """Whether a value is a dict with tensors, or with such a dict under one of `HOLDERS`."""
    if not isinstance(value, dict) or not depth:
        return False
    is_holder = any(isinstance(weight, Tensor | np.ndarray) for weight in value.values())
    return is_holder or any(_has_weights(value.get(key), depth - 1) for key in HOLDERS)


def _without_averages(
    weights: dict[str, Tensor], known: Collection[str], notes: list[str]
) -> dict[str, Tensor]:
    """Choose between plain and averaged weights that stand in one state dict."""
    if "n_averaged" in weights and "n_averaged" not in known:  # torch.optim.swa_utils.AveragedModel
        weights = {key: weight for key, weight in weights.items() if key != "n_averaged"}
        notes.append("the weights are an average (AveragedModel)")
    flat = {f"ema_{key.replace('.', '_')}" for key in weights}
    backups = [key for key in weights if key in flat and key not in known]
    if backups:  # MMCV stores the average under the usual names
        weights = {key: weight for key, weight in weights.items() if key not in backups}
        notes.append(
            f"the usual names, which hold averaged weights (EMA) in MMCV, are loaded, not the {len(backups)} "
            "entries ema_…"
        )
    prefix = next((p for p in AVERAGED_PREFIXES if any(key.startswith(p) for key in weights)), None)
    if prefix and not any(name.startswith(prefix) for name in known):
        chosen = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        chosen.pop("n_averaged", None)
        others = sum(not key.startswith(prefix) for key in weights)
        beside = f", not the {others} other ones" if others else ""
        notes.append(f"the entries {prefix}…, the averaged weights (EMA), are loaded{beside}")
        return chosen
    return weights


def _renamed(weights: dict[str, Tensor], rename: Any) -> dict[str, Tensor]:
    """Return weights under new names; unchanged if two would have the same name."""
    renamed = {rename(key): weight for key, weight in weights.items()}
    return renamed if len(renamed) == len(weights) else weights

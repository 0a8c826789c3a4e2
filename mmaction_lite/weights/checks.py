"""Checks of weights before they enter a network: names, shapes, dtypes and values."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmaction_lite.errors import UserError, printable

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NUM_NAMED = 3  # tensors that a message names


def check_fit(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], model: str) -> None:
    """Check that weights have the names, shapes and kinds of numbers of a network.

    Args:
        weights: state dict of a file.
        wanted: state dict of the network; its tensors may be on the meta device.
        model: name of the network, for the message.

    Raises:
        UserError: a tensor is missing, unknown, empty, or has another shape or kind of numbers.
    """
    names = sorted(wanted.keys() | weights.keys())
    wrong = [name for name in names if not _fits(weights.get(name), wanted.get(name))]
    if wrong:
        first, given = wrong[0], weights.get(wrong[0])
        raise UserError(
            f"{len(wrong)} of {len(wanted)} tensors do not fit {model}; the first is "
            f"{printable(first, 200)}: {_describe(given)} in the file, {_describe(wanted.get(first))} in the "
            "model"
        )
    empty = [name for name, tensor in wanted.items() if tensor.is_floating_point() and not tensor.numel()]
    if empty:
        raise UserError(f"{model} has {len(empty)} tensors without elements, such as {empty[0]}")


def check_merged(names: Iterable[Any]) -> None:
    """Check that a state dict has no separate adapters, as the `last.pt` of a training with LoRA has.

    Raises:
        UserError: it has.
    """
    if any(str(name).endswith(".lora_a") for name in names):
        raise UserError(
            "holds the adapters of a training with LoRA, which are not merged into the weights; expected "
            "merged weights. Pass the run folder or its best.pt, or continue the training with --resume"
        )


def fits_dtype(dtype: torch.dtype, wanted: torch.dtype) -> bool:
    """Whether numbers of a dtype can be loaded into another: floats into floats, integers into integers."""
    if dtype == wanted:
        return True
    if wanted in FLOATS:
        return dtype in FLOATS
    return not (dtype.is_floating_point or dtype.is_complex or wanted.is_floating_point or wanted.is_complex)


def check_values(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Check that weights are finite, and that variances are not negative.

    Args:
        weights: tensors to load.
        wanted: tensors that receive them; those of a narrower dtype overflow at smaller values.

    Raises:
        UserError: the message names the tensors and counts the values.
    """
    infinite, negative = {}, {}
    for name, weight in weights.items():
        if weight.dtype not in FLOATS or not weight.numel():
            continue
        target = wanted[name].dtype if name in wanted else weight.dtype
        cast = weight.to(target) if target in FLOATS and target.itemsize < weight.itemsize else weight
        low, high = cast.aminmax()
        if not (low.isfinite() and high.isfinite()):
            infinite[name] = int((~cast.isfinite()).sum()), weight.numel()
        elif name.endswith("running_var") and low < 0:
            negative[name] = int((cast < 0).sum()), weight.numel()
    for found, problem in ((infinite, "not finite"), (negative, "negative variances")):
        if found:
            raise UserError(
                f"the weights are damaged: {_listed(found)} of {len(weights)} tensors hold values that are "
                f"{problem}. Use another copy of the file, or an earlier checkpoint of the training"
            )


def _listed(found: Mapping[str, tuple[int, int]]) -> str:
    shown = [
        f"{printable(name, 200)} ({count} of {total} values)"
        for name, (count, total) in list(found.items())[:NUM_NAMED]
    ]
    more = f" and {len(found) - NUM_NAMED} more" if len(found) > NUM_NAMED else ""
    return f"{', '.join(shown)}{more}: {len(found)}"


def _fits(weight: Tensor | None, wanted: Tensor | None) -> bool:
    if weight is None or wanted is None:
        return False
    return weight.shape == wanted.shape and fits_dtype(weight.dtype, wanted.dtype)


def _describe(tensor: Tensor | None) -> str:
    if tensor is None:
        return "absent"
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{'' if dtype == 'float32' else dtype + ' '}{tuple(tensor.shape)}"

"""Fit a temperature to the scores of a validation split, apply it, and store it in a weights file."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mmaction_lite.data.views.temperature import HIGHEST, LOWEST, Temperature
from mmaction_lite.errors import UserError
from mmaction_lite.files import check_replaceable
from mmaction_lite.tasks.metrics import readable_videos
from mmaction_lite.tasks.score_files import Scores
from mmaction_lite.weights.card import ModelCard, read_weights, save_weights
from mmaction_lite.weights.fingerprint import fingerprint_of_weights
from mmaction_lite.weights.tensor_files import read_tensor_file

GOLDEN = (math.sqrt(5) - 1) / 2
STEPS = 40  # of the search; the logarithm of the temperature is then exact to 1e-7
KIND = "a weights file with a temperature"


def fit_temperature(table: Scores) -> Temperature:
    """Return the temperature with the lowest log loss (Guo et al., arXiv:1706.04599, section 4.2).

    The log loss of a softmax is convex in the inverse of the temperature, so that the golden-section search
    over its logarithm finds the global optimum.

    Args:
        table: scores of the validation split. Unreadable videos are left out.

    Raises:
        UserError: no video is readable, or the log loss has no minimum between 0.01 and 100, as if all videos
            are correct.
    """
    readable = readable_videos(table.scores)
    if not readable.any():
        raise UserError(f"{table.file}: no video is readable, so no temperature can be fitted")
    scores = torch.from_numpy(table.scores[readable].astype(np.float64))
    labels = table.labels[readable]

    def log_loss(log_temperature: float) -> float:
        chosen = Temperature(value=math.exp(log_temperature), scale=table.task.temperature_scale)
        given = table.task.likelihoods(chosen.apply(scores, table.task.probabilities).numpy(), labels)
        return float(-np.log(np.maximum(given, 1e-300)).mean())

    edge = 1e-6  # keeps exp() of the bounds within them
    low, high = math.log(LOWEST) + edge, math.log(HIGHEST) - edge
    found = _minimum(log_loss, low, high)
    if min(found - low, high - found) < 1e-3:
        raise UserError(
            f"{table.file}: the log loss of the {len(labels)} readable videos has no minimum at temperatures "
            f"from {LOWEST:g} to {HIGHEST:g}; expected correct and incorrect videos. Fit on more videos, "
            "which the training did not use"
        )
    return Temperature(value=float(f"{math.exp(found):.6g}"), scale=table.task.temperature_scale)


def _minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one minimum is lowest between two numbers: golden-section search."""
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]
    values = [function(place) for place in inner]
    for _ in range(STEPS):
        if values[0] <= values[1]:
            high = inner[1]
            inner = [high - GOLDEN * (high - low), inner[0]]
            values = [function(inner[0]), values[0]]
        else:
            low = inner[0]
            inner = [inner[1], low + GOLDEN * (high - low)]
            values = [values[1], function(inner[1])]
    return (low + high) / 2


def apply_temperature(table: Scores, temperature: Temperature, fitted_on: str) -> Scores:
    """Return calibrated scores, equal to those of a test with weights that hold the temperature.

    Args:
        table: scores of a split.
        temperature: see `fit_temperature`.
        fitted_on: name of the file of the fit, for the protocol line.
    """
    scores = torch.from_numpy(table.scores.astype(np.float32))
    return replace(
        table,
        scores=temperature.apply(scores, table.task.probabilities).numpy(),
        protocol=f"{table.protocol}; {temperature} fitted on {fitted_on}",
    )


def calibrated_file(weights: str) -> Path:
    """Return the default name of calibrated weights: in the run folder, or beside the weights file."""
    path = Path(weights)
    if path.is_dir():
        return path / "calibrated.safetensors"
    return path.with_name(f"{path.name.removesuffix(path.suffix)}_calibrated.safetensors")


def check_store(weights: str, out: Path) -> None:
    """Check that calibrated weights can be written to `out`.

    Raises:
        UserError: the name does not end in .safetensors, or see `check_replaceable`.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"{out}: weights are written as .safetensors; expected a file name with this ending")
    sources = [weights] if Path(weights).exists() else []
    check_replaceable(out, KIND, _has_temperature, sources)


def _has_temperature(path: Path) -> bool:
    card = ModelCard.from_json(read_tensor_file(path).metadata["card"])
    return card.test.temperature is not None


def store_temperature(weights: str, out: Path, temperature: Temperature, table: Scores) -> None:
    """Write a copy of weights whose card holds a temperature, which every command then applies.

    Args:
        weights: weights file, run folder, or name of public weights. They stay as they are.
        out: the `.safetensors` file to write.
        temperature: see `fit_temperature`.
        table: the scores that the temperature was fitted on.

    Raises:
        UserError: the weights cannot be read, have a temperature already, are not those of the scores, or are
            of other classes; or `out` cannot be written.
    """
    check_store(weights, out)
    file, tensors, card = read_weights(weights)
    if table.weights is not None and fingerprint_of_weights(tensors) != table.weights:
        raise UserError(
            f"{table.file}: holds scores of other weights than {file}; expected the scores that "
            f"`mmaction-lite test {weights} --data DATA --protocol val --dump FILE` writes"
        )
    if list(card.classes) != table.class_names or card.task != table.task:
        raise UserError(f"{table.file}: holds scores of other classes or of another task than {file}")
    try:
        card = card.calibrated(temperature.value)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    save_weights(out, tensors, card)

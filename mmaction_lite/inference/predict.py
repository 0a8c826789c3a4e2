"""Labels with scores for videos: files, frame folders or arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import nn

from mmaction_lite.data.sources.source import ArrayVideo, Source, open_source
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.device import pick_device
from mmaction_lite.errors import UserError
from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.weights.card import card_of, load

Input = str | Path | np.ndarray


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network says of one video.

    Args:
        labels: class names, the most probable first.
        scores: their probabilities, float32 (K,).
        protocol: views, normalization, averaging and window; `str(protocol)` is the protocol line.
    """

    labels: tuple[str, ...]
    scores: np.ndarray
    protocol: Protocol


@overload
def predict(weights: str | Path | nn.Module, videos: Input, device: str = "auto") -> Prediction: ...
@overload
def predict(
    weights: str | Path | nn.Module, videos: Sequence[Input], device: str = "auto"
) -> list[Prediction]: ...


def predict(
    weights: str | Path | nn.Module, videos: Input | Sequence[Input], device: str = "auto"
) -> Prediction | list[Prediction]:
    """What is seen in a video, or in each of several.

    Args:
        weights: a file or run folder as `load` takes it, or a network that `load` returned, which
            `optimize_for_inference` makes faster.
        videos: paths of video files or of folders of JPEG frames, or RGB pixels, uint8 (length, height,
            width, 3).
        device: see `pick_device`.

    Returns:
        one prediction for one video, a list for a sequence.

    Raises:
        UserError: the weights do not load, or a video cannot be read.
    """
    model = weights if isinstance(weights, nn.Module) else load_for_inference(weights)
    model = model.to(pick_device(device)).eval()
    if isinstance(videos, Input):
        return next(predictions(model, [videos]))
    return list(predictions(model, videos))


def load_for_inference(weights: str | Path, recipe: Recipe | None = None) -> nn.Module:
    """What `load` returns, made faster where it is a network of this package."""
    model = load(weights, recipe)
    return optimize_for_inference(model) if isinstance(model, Recognizer) else model


@torch.no_grad()
def predictions(model: nn.Module, videos: Sequence[Input]) -> Iterator[Prediction]:
    """One prediction after the other; see `predict`."""
    card = card_of(model)
    for video in videos:
        with _source(video) as source:
            clips = torch.from_numpy(card.test.read(source))
        scores = compute_scores(model, [clips], card.test, probabilities=card.task.probabilities)[0]
        labels, scores = card.task.ranked(scores, card.classes)
        yield Prediction(labels=labels, scores=scores, protocol=card.test)


def _source(video: Input) -> Source:
    if not isinstance(video, np.ndarray):
        return open_source(Path(video))
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or len(video) == 0:
        raise UserError(
            f"pixels are {video.dtype} {video.shape}; expected uint8 (length, height, width, 3), RGB"
        )
    return ArrayVideo(video)

"""Predict the classes of videos: files, folders of frames or arrays."""

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
    """Predicted classes of one video.

    Args:
        labels: all class names, the most probable first.
        scores: probabilities in the order of `labels`, float32 (K,).
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
    """Predict the classes of one video or of several, under the test protocol of the weights.

    Args:
        weights: a weights file or run folder, as for `load`, or a model that `load` returned. A model is
            moved to the device and put into evaluation mode; `optimize_for_inference` makes it faster.
        videos: path of a video file or of a folder of JPEG frames, or RGB pixels, uint8 (length, height,
            width, 3); or a sequence of them.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; see `pick_device`.

    Returns:
        one prediction for one video, a list for a sequence.

    Raises:
        UserError: the weights cannot be loaded, or a video cannot be read.
    """
    model = weights if isinstance(weights, nn.Module) else load_for_inference(weights)
    model = model.to(pick_device(device)).eval()
    if isinstance(videos, Input):
        return next(predictions(model, [videos]))
    return list(predictions(model, videos))


def load_for_inference(weights: str | Path, recipe: Recipe | None = None) -> nn.Module:
    """Load a model and, if it is a model of this package, optimize it for inference."""
    model = load(weights, recipe)
    return optimize_for_inference(model) if isinstance(model, Recognizer) else model


@torch.no_grad()
def predictions(model: nn.Module, videos: Sequence[Input]) -> Iterator[Prediction]:
    """Yield the prediction of each video; see `predict`."""
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
            f"pixels are {video.dtype} {video.shape}; expected uint8 (length, height, width, 3) in RGB"
        )
    return ArrayVideo(video)

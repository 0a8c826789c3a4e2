"""Predict the classes of videos: files, addresses, folders of frames, arrays, bytes or file objects."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.loading.decoders import Decoders
from mmaction_lite.data.loading.loader import Fault
from mmaction_lite.data.loading.worker_settings import IN_PROCESS, WorkerSettings
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.device import CompileMode, Precision, pick_device
from mmaction_lite.errors import VideoError
from mmaction_lite.inference.batches import read_batches
from mmaction_lite.inference.inputs import Contents, OneVideo, PathInput, as_path, expand, is_one, is_path
from mmaction_lite.inference.scores import chunk_views, compute_scores
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.probe import can_fold
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.settings import PositiveInt, check_fields
from mmaction_lite.weights.card import card_of, load

MOST_VIDEOS = 8  # per forward pass; every video in flight holds a shared-memory file


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted classes of one video.

    Args:
        labels: all class names, the most probable first.
        scores: probabilities in the order of `labels`, float32 (K,).
        protocol: views, normalization, averaging and window; `str(protocol)` is the protocol line.
        video: path or name of the video.
    """

    labels: tuple[str, ...]
    scores: np.ndarray
    protocol: Protocol
    video: str = ""


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """How to predict: everything besides model and videos.

    Args:
        protocol: None: the test protocol of the model's card.
        batch_size: videos per forward pass; None: as many as fit into `scores.CHUNK_BYTES`, at most 8. The
            views of a video are divided over several forward passes if they do not fit.
        workers: decoding worker processes for paths and addresses. All inputs are decoded in the calling
            process if one of them is neither.
        precision: autocast to this dtype.
        compile: mode of `torch.compile`; None does not compile.
    """

    protocol: Protocol | None = None
    batch_size: PositiveInt | None = None
    workers: WorkerSettings = IN_PROCESS
    precision: Precision = "float32"
    compile: CompileMode | None = None

    def __post_init__(self):
        check_fields(self)

    @property
    def arithmetic(self) -> str:
        """Suffix of the protocol line: precision and compilation, if they are not the default."""
        precision = "" if self.precision == "float32" else f"; {self.precision}"
        return precision + (f"; compiled ({self.compile})" if self.compile else "")


@overload
def predict(
    weights: str | Path | nn.Module,
    videos: np.ndarray | Tensor | Contents | IO[bytes] | Source,
    device: str = "auto",
    *,
    batch_size: int | None = None,
    workers: int = 0,
) -> Prediction: ...
@overload
def predict(  # pyright: ignore[reportOverlappingOverload]  a string is an iterable of strings
    weights: str | Path | nn.Module,
    videos: PathInput,
    device: str = "auto",
    *,
    batch_size: int | None = None,
    workers: int = 0,
) -> Prediction | Any: ...
@overload
def predict(
    weights: str | Path | nn.Module,
    videos: Iterable[OneVideo],
    device: str = "auto",
    *,
    batch_size: int | None = None,
    workers: int = 0,
) -> list[Prediction]: ...


def predict(
    weights: str | Path | nn.Module,
    videos: OneVideo | Iterable[OneVideo],
    device: str = "auto",
    *,
    batch_size: int | None = None,
    workers: int = 0,
) -> Prediction | list[Prediction]:
    """Predict the classes of one video or of several, under the test protocol of the weights.

    Args:
        weights: a weights file or run folder, as for `load`, or a model that `load` returned. A model is
            moved to the device and put into evaluation mode; `optimize_for_inference` makes it faster.
        videos: one video, or an iterable of videos. A video is the path or address of a file; a folder of
            frames; RGB pixels as a NumPy array or a tensor, uint8 (length, height, width, 3), or
            (length, 3, height, width); the contents of a video file as `bytes`; or a file object in binary
            mode. A folder of videos or a pattern such as `"clips/*.mp4"` stands for all its videos.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; see `pick_device`.
        batch_size: videos per forward pass; None chooses it by the size of the views.
        workers: worker processes that decode paths and addresses; 0 decodes in the calling process.
            Worker processes import the main module only if it defines the sampler of the protocol.

    Returns:
        one prediction for one video; a list for an iterable, a folder of videos or a pattern.

    Raises:
        UserError: the weights cannot be loaded, or an input is not a video.
        VideoError: a video cannot be read.
    """
    model = weights if isinstance(weights, nn.Module) else load_for_inference(weights)
    model = model.to(pick_device(device)).eval()
    settings = PredictionSettings(batch_size=batch_size, workers=WorkerSettings(num_workers=workers))
    if not is_one(videos):
        several = expand(videos)  # pyright: ignore[reportArgumentType]
        # Workers need a sequence; other iterables are read one batch at a time.
        return list(predictions(model, list(several) if isinstance(videos, Sequence) else several, settings))
    found = list(expand([videos]))  # pyright: ignore[reportArgumentType]
    results = list(predictions(model, found, settings))
    is_several = is_path(videos) and found != [as_path(videos)]
    return results if is_several else results[0]


def load_for_inference(weights: str | Path, recipe: Recipe | None = None) -> nn.Module:
    """Load a model and, if it is a model of this package, optimize it for inference."""
    model = load(weights, recipe)
    return optimize_for_inference(model) if can_fold(model) else model


def predictions(
    model: nn.Module, videos: Iterable[OneVideo], settings: PredictionSettings = PredictionSettings()
) -> Iterator[Prediction]:
    """Yield the prediction of each video; see `predict`.

    Raises:
        VideoError: a video cannot be read.
    """
    for result in predict_each(model, videos, settings):
        if isinstance(result, Fault):
            raise VideoError(result.reason)
        yield result


@torch.no_grad()
def predict_each(
    model: nn.Module,
    videos: Iterable[OneVideo],
    settings: PredictionSettings,
    started: Decoders | None = None,
) -> Iterator[Prediction | Fault]:
    """Yield the prediction of each video, or the reason why it cannot be read, in the order of the videos.

    Several videos share a forward pass. The scores of a video depend on the others by rounding only.

    Args:
        model: a model with a card, in evaluation mode.
        videos: the videos, of which one batch at a time is read.
        settings: how to predict.
        started: see `read_batches`.

    Raises:
        UserError: the model has no card, or cannot classify the windows of the protocol.
    """
    card = card_of(model)
    protocol = settings.protocol or card.test
    batch_size = settings.batch_size or max(1, min(MOST_VIDEOS, chunk_views(protocol) // protocol.num_views))
    if settings.compile is not None:
        model.compile(mode=settings.compile, dynamic=False)
    for batch in read_batches(videos, protocol.views, batch_size, settings.workers, started=started):
        pixels = [item.pixels for item in batch if item.pixels is not None]
        if (
            settings.compile is not None and pixels
        ):  # the shape of the batch stays, so nothing is compiled again
            pixels += [pixels[-1]] * (batch_size - len(pixels))
        options: dict[str, Any] = {"probabilities": card.task.probabilities, "precision": settings.precision}
        options["is_compiled"] = settings.compile is not None
        scores = iter(compute_scores(model, pixels, protocol, **options) if pixels else ())
        for item in batch:
            if item.pixels is None:
                yield Fault(item.name, item.reason)
                continue
            labels, ranked = card.task.ranked(next(scores), card.classes)
            yield Prediction(labels=labels, scores=ranked, protocol=protocol, video=item.name)

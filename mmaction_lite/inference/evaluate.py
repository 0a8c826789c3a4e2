"""Evaluate a model on every video of a split."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.annotations.samples import Samples, absolute
from mmaction_lite.data.loading.cache import VideoCache
from mmaction_lite.data.loading.loader import Clip, Fault, VideoDataset, evaluation_loader, rank_slice
from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.device import CompileMode, Precision, release_memory
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError
from mmaction_lite.inference.scores import (
    Evaluation,
    chunk_views,
    compute_logits,
    device_of,
)
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.probe import can_fold
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task
from mmaction_lite.weights.card import ModelCard
from mmaction_lite.weights.exported import ExportedModel

CALIBRATION_VIDEOS = 32

Track = Callable[[Iterable[list[Clip]], int, str], Iterable[list[Clip]]]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    samples: Samples,
    protocol: Protocol,
    *,
    task: Task | None = None,
    precision: Precision = "float32",
    compile: CompileMode | None = None,
    workers: WorkerSettings = IN_PROCESS,
    cache: VideoCache | None = None,
    keep_views: bool = False,
    track: Track | None = None,
    context: DistributedContext | None = None,
) -> Evaluation:
    """Compute the scores of every video of `samples` under `protocol`, on the device of `model`.

    The model is put into evaluation mode and left there. For a model of the package, the forward passes use
    a copy with folded normalization layers (`optimize_for_inference`); for any other model, `compile`
    compiles the model itself.

    Args:
        model: maps (B, C, T, H, W) to logits (B, K).
        samples: the videos.
        protocol: views, normalization, averaging and window.
        task: kind of labels; None: that of the model's card, or `SingleLabel()` for a model without a card.
        precision: autocast to this dtype.
        compile: mode of `torch.compile`; None does not compile.
        workers: decoding worker processes.
        cache: decoded videos, read instead of the files.
        keep_views: whether to keep the logits of all views; takes memory for N * V * K numbers.
        track: wraps the batches to show progress: (iterable, total, title).
        context: of several processes, each evaluates its slice of the videos and all return all scores.

    Raises:
        UserError: no video can be read; an exported model is combined with `compile` or another precision
            than float32; the model cannot classify the windows of the protocol; the labels are of another
            task.
    """
    task = task or _task_of(model)
    task.check_labels(samples.label_columns, samples.source)
    model = _prepare_model(model.eval(), precision, compile)
    dataset = VideoDataset(samples, protocol.views, cache)
    # Every video in flight holds a shared-memory file: keep batches small, or a process runs out of files.
    num_videos = max(1, min(8, chunk_views(protocol) // protocol.num_views))
    pin = device_of(model).type == "cuda"
    rank, world_size = (0, 1) if context is None else (context.rank, context.world_size)
    loader = evaluation_loader(dataset, num_videos, workers, pin=pin, rank=rank, world_size=world_size)
    batches = track(loader, len(loader), f"testing {samples.source}") if track else loader
    settings = {"precision": precision, "is_compiled": bool(compile)}
    found = _score(model, batches, samples, protocol, task, keep_views=keep_views, **settings)
    scores, faults, view_logits = found
    if context is not None:
        own = rank_slice(len(samples), rank, world_size)
        own_views = None if view_logits is None else view_logits[own]
        scores, faults, view_logits = _gather(scores[own], faults, own_views, context)
    release_memory()
    if len(faults) == len(samples):
        raise UserError(
            f"{samples.source}: none of {len(samples)} videos can be read; the first: {faults[0].reason}"
        )
    return Evaluation(
        scores=scores,
        labels=task.targets(samples.labels, samples.label_counts(), len(samples.classes)),
        paths=[absolute(samples.name(i)) for i in range(len(samples))],
        classes=samples.classes,
        protocol=protocol,
        source=samples.source,
        faults=faults,
        task=task,
        precision=getattr(model, "precision", precision),
        compile=compile,
        view_logits=view_logits,
    )


def _score(
    model: nn.Module,
    batches: Iterable[list[Clip]],
    samples: Samples,
    protocol: Protocol,
    task: Task,
    *,
    keep_views: bool,
    **settings: Any,
) -> tuple[np.ndarray, list[Fault], np.ndarray | None]:
    """Compute the scores of the videos of `batches`; `settings` are those of `compute_logits`.

    Returns:
        scores, float32 (N, K), NaN for other and unreadable videos; faults; logits of the views, float32
        (N, V, K), or None.
    """
    scores = np.full((len(samples), len(samples.classes)), np.nan, np.float32)
    faults: list[Fault] = []
    view_logits: np.ndarray | None = None
    for clips in batches:
        faults += [fault for clip in clips for fault in clip.faults]
        read = {clip.sample: clip.pixels for clip in clips if clip.pixels is not None}
        if read:
            logits = compute_logits(model, list(read.values()), protocol, **settings)
            scores[list(read)] = protocol.average_logits(logits, task.probabilities).cpu().numpy()
            if keep_views and view_logits is None:
                view_logits = np.full((len(samples), *logits.shape[1:]), np.nan, np.float32)
            if view_logits is not None:
                view_logits[list(read)] = logits.float().cpu().numpy()
    return scores, faults, view_logits


def _gather(
    scores: np.ndarray, faults: list[Fault], view_logits: np.ndarray | None, context: DistributedContext
) -> tuple[np.ndarray, list[Fault], np.ndarray | None]:
    """Return scores, faults and logits of the views of all processes, in the order of the samples."""
    parts = context.all_gather((scores, faults, view_logits))
    shape = next((views.shape[1:] for _, _, views in parts if views is not None), None)
    if shape is not None:  # a process without a readable video knows no shape
        view_logits = np.concatenate(
            [
                np.full((len(own), *shape), np.nan, np.float32) if views is None else views
                for own, _, views in parts
            ]
        )
    return (
        np.concatenate([own for own, _, _ in parts]),
        [fault for _, own, _ in parts for fault in own],
        view_logits,
    )


def _task_of(model: nn.Module) -> Task:
    """Return the task of the model's card, or `SingleLabel()` for a model without a card."""
    card = getattr(model, "card", None)
    return card.task if isinstance(card, ModelCard) else SingleLabel()


def _prepare_model(model: nn.Module, precision: Precision, compile: CompileMode | None) -> nn.Module:
    """Optimize a model of the package in a copy, and compile it.

    Raises:
        UserError: an exported model is combined with `compile` or another precision.
    """
    if isinstance(model, ExportedModel):
        if compile is not None or precision != "float32":
            raise UserError(
                f"{model.name}: an exported graph runs as it is; test the weights file with amp or "
                "compile instead"
            )
        return model
    if can_fold(model):
        model = optimize_for_inference(model)
    if compile is not None:
        model.compile(mode=compile, dynamic=False)
    return model


def calibration_clips(samples: Samples, protocol: Protocol, workers: WorkerSettings) -> Iterator[Tensor]:
    """Yield the middle view of up to 32 readable videos, uint8 (1, T, h, w, 3) each, to quantize a model.

    Raises:
        UserError: none of the chosen videos can be read.
    """
    chosen = np.unique(np.linspace(0, len(samples) - 1, CALIBRATION_VIDEOS).astype(int)).tolist()
    dataset = VideoDataset(samples, protocol.views)
    loader = evaluation_loader(dataset, 1, workers, chosen=chosen)
    faults: list[Fault] = []
    for clip in (clip for batch in loader for clip in batch):
        faults += clip.faults
        if clip.pixels is not None:
            yield protocol.views.crops(clip.pixels)[protocol.num_views // 2, None]
    if len(faults) == len(chosen):
        raise UserError(
            f"{samples.source}: none of {len(chosen)} videos can be read for int8; "
            f"the first: {faults[0].reason}"
        )

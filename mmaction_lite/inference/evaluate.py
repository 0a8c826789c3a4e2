"""Test protocols: every video once, its views averaged in one function, and what the scores are worth."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.annotations.samples import Samples, absolute
from mmaction_lite.data.loading.cache import VideoCache
from mmaction_lite.data.loading.loader import Clip, Fault, VideoDataset, evaluation_loader, rank_slice
from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.views import Views
from mmaction_lite.device import CompileMode, Precision, give_memory_back, reusing_memory
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError
from mmaction_lite.files import write_atomically
from mmaction_lite.models import optimize_for_inference, quantize_for_inference
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.tasks.metrics import metrics

# Inputs that enter the model together, as floats; bounds the memory of a test with many views.
CHUNK_BYTES = 96 << 20
CALIBRATION_VIDEOS = 32

Activation = Literal["softmax", "sigmoid"]
Track = Callable[[Iterable[list[Clip]], int, str], Iterable[list[Clip]]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of every video of a split.

    Args:
        scores: float32 (N, K), averaged over views as `views` says; a row of NaN is an unreadable video,
            which every metric counts as wrong.
        labels: int64 (N,), or multi-label bool (N, K).
        paths: one per video.
        classes: names in the order of the scores.
        views: the protocol.
        source: where the videos were listed.
        faults: the unreadable videos.
        precision: of the network's arithmetic.
        compile: the mode in which it was compiled, or None.
    """

    scores: np.ndarray
    labels: np.ndarray
    paths: list[str]
    classes: tuple[str, ...]
    views: Views
    source: str
    faults: list[Fault]
    precision: Precision | Literal["int8"] = "float32"
    compile: CompileMode | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """See `metrics.metrics`."""
        return metrics(self.scores, self.labels)

    @property
    def loss(self) -> float:
        """Cross entropy of the averaged probabilities: of the true class, or the mean over all classes."""
        readable = ~np.isnan(self.scores).any(1)
        scores, labels = self.scores[readable], self.labels[readable]
        if labels.ndim == 1:
            correct = scores[np.arange(len(labels)), labels]
        else:
            correct = np.where(labels, scores, 1 - scores)
        return float(-np.log(np.maximum(correct, 1e-12)).mean()) + 0.0  # no -0.000

    @property
    def protocol(self) -> str:
        """The line that stands beside every number."""
        arithmetic = "" if self.precision == "float32" else f"{self.precision}; "
        arithmetic += f"compiled ({self.compile}); " if self.compile else ""
        videos = f"{len(self.labels)} videos of {self.source}, {len(self.faults)} unreadable"
        return f"{self.views}; {arithmetic}{videos}"

    def save(self, path: Path) -> None:
        """Write the scores as `.npz`: paths, labels, scores, class_names, protocol; no pickles inside."""
        arrays = {
            "paths": np.array(self.paths),
            "labels": self.labels,
            "scores": self.scores,
            "class_names": np.array(self.classes),
            "protocol": np.array(self.protocol),
        }
        write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


@torch.no_grad()
def evaluate(
    model: nn.Module,
    samples: Samples,
    views: Views,
    normalize: Normalize,
    *,
    activation: Activation = "softmax",
    precision: Precision = "float32",
    compile: CompileMode | None = None,
    calibration: Samples | None = None,
    workers: WorkerSettings = IN_PROCESS,
    cache: VideoCache | None = None,
    track: Track | None = None,
    context: DistributedContext | None = None,
) -> Evaluation:
    """Score every video of `samples` under the protocol `views`, on the device that `model` is on.

    Of several processes each scores its piece of the videos, every video once, and all get all scores.

    The model is put into evaluation mode and left there. Of a network of the package runs a copy with its
    normalisations folded, see `optimize_for_inference`; of another one it is itself that `compile` compiles.
    With `calibration` it computes in 8 bits, see `quantize_for_inference`; some of these videos show which
    values occur.

    Raises:
        UserError: no video at all can be read; 8 bits are asked for and cannot be had, compiled or with
            another precision than float32.
    """
    model.eval()
    if calibration is not None:
        if compile is not None or precision != "float32":
            other = "compile" if compile is not None else f"amp {precision}"
            raise UserError(f"int8 does not go with {other}; leave one of them out")
        model = quantize_for_inference(model, _clips(calibration, views, normalize, workers))
    elif isinstance(model, Recognizer):
        model = optimize_for_inference(model)
    if compile is not None:
        model.compile(mode=compile, dynamic=False)
    dataset = VideoDataset(samples, views, cache)
    # Every video waits in a shared-memory file of its own: few at a time, or a process runs out of them.
    num_videos = max(1, min(8, _chunk(views) // views.num_views))
    pin = _device(model).type == "cuda"
    rank, world_size = (0, 1) if context is None else (context.rank, context.world_size)
    loader = evaluation_loader(dataset, num_videos, workers, pin=pin, rank=rank, world_size=world_size)
    scores = np.full((len(samples), len(samples.classes)), np.nan, np.float32)
    faults: list[Fault] = []
    title = f"testing {samples.source}"
    for clips in track(loader, len(loader), title) if track else loader:
        faults += [fault for clip in clips for fault in clip.faults]
        read = {clip.sample: clip.pixels for clip in clips if clip.pixels is not None}
        if read:
            scores[list(read)] = score(
                model, list(read.values()), views, normalize, activation, precision, compile is not None
            )
    if context is not None:
        pieces = context.gather((scores[rank_slice(len(samples), rank, world_size)], faults))
        scores = np.concatenate([part for part, _ in pieces])
        faults = [fault for _, part in pieces for fault in part]
    give_memory_back()
    if len(faults) == len(samples):
        raise UserError(f"{samples.source}: none of {len(samples)} videos can be read; {faults[0].reason}")
    return Evaluation(
        scores=scores,
        labels=samples.targets(),
        paths=[absolute(samples.name(i)) for i in range(len(samples))],
        classes=samples.classes,
        views=views,
        source=samples.source,
        faults=faults,
        precision="int8" if calibration is not None else precision,
        compile=compile,
    )


def _clips(samples: Samples, views: Views, normalize: Normalize, workers: WorkerSettings) -> Iterator[Tensor]:
    """The middle view of some of the videos that can be read, (1, 3, T, H, W) each.

    Raises:
        UserError: none of them can be.
    """
    chosen = np.unique(np.linspace(0, len(samples) - 1, CALIBRATION_VIDEOS).astype(int)).tolist()
    loader = evaluation_loader(VideoDataset(samples, views), 1, workers, chosen=chosen)
    faults: list[Fault] = []
    for clip in (clip for batch in loader for clip in batch):
        faults += clip.faults
        if clip.pixels is not None:
            yield normalize(views.crops(clip.pixels)[views.num_views // 2, None])
    if len(faults) == len(chosen):
        raise UserError(
            f"{samples.source}: none of {len(chosen)} videos can be read for int8; {faults[0].reason}"
        )


def score(
    model: nn.Module,
    videos: list[Tensor],
    views: Views,
    normalize: Normalize,
    activation: Activation = "softmax",
    precision: Precision = "float32",
    is_compiled: bool = False,
) -> np.ndarray:
    """Scores of a few videos under a protocol: float32 (N, K), from what `Views.read` gave for each."""
    device = _device(model)
    pixels = torch.cat([views.crops(clips.to(device, non_blocking=True)) for clips in videos])
    dtype = getattr(torch, precision)
    parts = []
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), reusing_memory(device):
        for part in pixels.split(_chunk(views)):
            if is_compiled:
                torch.compiler.cudagraph_mark_step_begin()
            # What is played back from a recording puts its next result into the same memory.
            parts.append(model(normalize(part)).clone())
    logits = torch.cat(parts)
    logits = logits.unflatten(0, (len(videos), views.num_views))
    return average_views(logits, views.average, activation).cpu().numpy()


def average_views(logits: Tensor, average: str, activation: Activation = "softmax") -> Tensor:
    """(B, V, K) logits to (B, K): the mean over views of probabilities, or the probabilities of mean scores.

    Either way the result is a probability, so that files of different protocols can be compared. The
    only function of the project that averages views. `activation` makes a probability of a score: softmax
    where one class excludes the others, sigmoid where each stands for itself.
    """
    logits = logits.float()

    def probabilities(scores: Tensor) -> Tensor:
        return scores.softmax(-1) if activation == "softmax" else scores.sigmoid()

    return probabilities(logits).mean(1) if average == "probability" else probabilities(logits.mean(1))


def _chunk(views: Views) -> int:
    """How many views enter the model together."""
    return max(1, CHUNK_BYTES // (4 * int(np.prod(views.view_shape))))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device

"""Datasets and loaders: order of the samples, random draws, unreadable videos, batches.

The main process determines the order, a pure function of (seed, epoch). A draw is one position in it, with
the number `epoch * epoch_length + position` (`batch_plan` numbers draws where epochs differ in length).
Workers receive (draw, sample). All random numbers of a draw depend on (seed, draw) only, so a resumed run,
any number of workers and a cached dataset produce the same pixels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.data.annotations.label_flips import mirrored_classes, reversed_classes
from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan, reshape_views
from mmaction_lite.data.loading.cache import VideoCache
from mmaction_lite.data.loading.workers import (
    IN_PROCESS,
    FaultTolerantLoader,
    WorkerSettings,
    WorkerStatus,
    check_shared_memory,
)
from mmaction_lite.data.sources.source import Source, open_sample
from mmaction_lite.data.views.views import TestViews, TrainViews, Views
from mmaction_lite.errors import UserError, VideoError

# Purposes of random numbers; the second word of every seed.
ORDER, CLIP, AUGMENT, MIX, REDRAW = range(5)
MAX_REDRAWS = 10


def generator(seed: int, purpose: int, number: int, view: int = 0, attempt: int = 0) -> np.random.Generator:
    """Return the random number generator for one purpose of an epoch, draw or step.

    The seed always has five words, because NumPy treats (3, 7) and (3, 7, 0) as equal.
    """
    return np.random.default_rng((seed, purpose, number, view, attempt))


class Fault(NamedTuple):
    """An unreadable video, and the reason."""

    path: str
    reason: str


class Clip(NamedTuple):
    """One item of a dataset.

    Args:
        pixels: uint8 (V, T, h, w, C) in training, (num_clips, T, H, W, C) before cropping in testing; None if
            the video is unreadable.
        labels: (V, ...): the target of each view, because a mirrored view may show another class. Shape and
            dtype are those of `VideoDataset.target`.
        sample: sample number.
        faults: unreadable videos, which this clip replaces.
    """

    pixels: Tensor | None
    labels: Tensor
    sample: int
    faults: list[Fault]


class Batch(NamedTuple):
    """Clips of one training step.

    Args:
        pixels: uint8 (B, V, T, h, w, C).
        labels: targets, (B, V, ...).
        samples: sample numbers, B of them.
        faults: unreadable videos that were replaced.
    """

    pixels: Tensor
    labels: Tensor
    samples: list[int]
    faults: list[Fault]


class TrainBatchSampler:
    """Batch sampler of a training: yields the (draw, sample) pairs of each step.

    Every epoch has a new order and drops the samples that do not fill a batch. One pass covers all epochs, so
    that workers never wait at the end of an epoch.

    Args:
        samples: table of clips.
        batch_plan: which draws each step has.
        seed: seed of the training.
        first_step: first step.
        last_step: step after the last one.
        class_balance: see `Samples.draw_weights`.
        rank: rank of this process, which takes its slice of every step.
        world_size: number of training processes.
    """

    def __init__(
        self,
        samples: Samples,
        batch_plan: BatchPlan,
        seed: int,
        first_step: int,
        last_step: int,
        *,
        class_balance: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
    ):
        self.samples = samples
        self.weights = samples.draw_weights(class_balance)
        self.batch_plan = batch_plan
        self.seed = seed
        self.steps = range(first_step, last_step)
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, np.empty(0, np.int64)
        for step in map(self.batch_plan.step_info, self.steps):
            if step.epoch != epoch:
                epoch = step.epoch
                order = epoch_order(self.samples, self.weights, generator(self.seed, ORDER, epoch))
            own = range(step.batch_size)[rank_slice(step.batch_size, self.rank, self.world_size)]
            yield [(step.draw + i, int(order[step.first + i])) for i in own]


def rank_slice(length: int, rank: int, world_size: int) -> slice:
    """Return the slice of `length` items that process `rank` of `world_size` processes handles."""
    return slice(length * rank // world_size, length * (rank + 1) // world_size)


def epoch_order(samples: Samples, weights: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """Return the order of the samples in one epoch, int64 (N,).

    Args:
        samples: table of clips.
        weights: relative frequency of each sample, float64 (N,). A sample occurs N times its share of the
            sum, rounded down or up at random, and so does every class. None: every sample occurs once.
        rng: generator of the epoch.
    """
    order = rng.permutation(len(samples))
    if weights is None:
        return order
    # Systematic sampling: N equally spaced points on the cumulative sum of the weights, sorted by class.
    if (strata := samples.strata()) is not None:
        order = order[np.argsort(strata[order], kind="stable")]
    ends = np.cumsum(weights[order])
    points = (np.arange(len(samples)) + rng.random()) * (ends[-1] / len(samples))
    return rng.permutation(order[np.searchsorted(ends, points, side="right").clip(max=len(samples) - 1)])


def label_indices(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the class indices of a clip as the target: int64 () of one class, otherwise (k,)."""
    return labels.squeeze()


class VideoDataset:
    """Map-style dataset of clips, which runs in the workers.

    Args:
        samples: table of clips.
        views: which frames and crops to read: training views with a seed, test views without one.
        cache: decoded clips, read instead of the files.
        seed: seed of the training; None for test views.
        batch_plan: clip shape of each draw; None: the shape of `views`.
        target: function of the class indices of a clip, int64 (k,), and the number of classes; returns the
            training target.

    Raises:
        UserError: the type of the views does not match the seed; or views are mirrored or reversed, and a
            class name contains a side or a direction but the opposite class does not exist
            (`mirrored_classes`, `reversed_classes`).
    """

    def __init__(
        self,
        samples: Samples,
        views: Views,
        cache: VideoCache | None = None,
        *,
        seed: int | None = None,
        batch_plan: BatchPlan | None = None,
        target: Callable[[np.ndarray, int], np.ndarray] = label_indices,
    ):
        self.samples = samples
        self.target = target
        self.views = views
        self.cache = cache
        self.seed = seed
        self.batch_plan = batch_plan
        if isinstance(views, TrainViews) != (seed is not None):
            expected = "TestViews without a seed" if seed is None else "TrainViews with a seed"
            raise UserError(f"VideoDataset: views are {type(views).__name__}; expected {expected}")
        is_random = isinstance(views, TrainViews)
        self._mirrored = mirrored_classes(samples.classes) if is_random and views.flip > 0 else None
        self._reversed = reversed_classes(samples.classes) if is_random and views.reverse > 0 else None
        self.worker_status = WorkerStatus()
        self._broken: set[int] = set()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, item: tuple[int, int] | int) -> Clip:
        """Return the training clip of (draw, sample), or the test clip of a sample number."""
        if isinstance(item, tuple):
            return self._draw(*item)
        labels = self.targets(item, np.zeros((1, 0), bool))
        try:
            with self.worker_status.reading(item), self._open(item) as source:
                return Clip(torch.from_numpy(cast(TestViews, self.views).read(source)), labels, item, [])
        except VideoError as error:
            return Clip(None, labels, item, [Fault(self.samples.name(item), str(error))])

    def _draw(self, draw: int, sample: int) -> Clip:
        """Return a training clip. REDRAW selects a replacement for an unreadable sample.

        Samples known to be unreadable are not opened again, but may be selected like any other, so that the
        replacement does not depend on when a fault was found.
        """
        assert self.seed is not None
        shape = self.batch_plan and self.batch_plan.shape(draw)
        faults = []
        for attempt in range(MAX_REDRAWS):
            if sample not in self._broken:
                try:
                    with self.worker_status.reading(sample), self._open(sample) as source:
                        clip_rng = generator(self.seed, CLIP, draw, attempt=attempt)
                        rng = generator(self.seed, AUGMENT, draw, attempt=attempt)
                        views = reshape_views(cast(TrainViews, self.views), shape, clip_rng)
                        pixels, flips, reversals = views.draw_views(source, clip_rng, rng)
                    labels = self.targets(sample, np.stack([flips, reversals], 1))
                    return Clip(torch.from_numpy(pixels), labels, sample, faults)
                except VideoError as error:
                    self._broken.add(sample)
                    faults.append(Fault(self.samples.name(sample), str(error)))
            sample = int(generator(self.seed, REDRAW, draw, attempt=attempt).integers(len(self.samples)))
        return Clip(None, torch.empty(0, dtype=torch.int64), sample, faults)

    def targets(self, sample: int, altered: np.ndarray) -> Tensor:
        """Return the target of each view, (V, ...).

        Args:
            sample: sample number.
            altered: whether each view is mirrored, and whether it is reversed, bool (V, 2).
        """
        targets = []
        for view in altered:
            labels = self.samples.labels_of(sample)
            for is_altered, label_flips in zip(view, (self._mirrored, self._reversed), strict=False):
                if is_altered and label_flips is not None:
                    labels = label_flips[labels]
            targets.append(self.target(labels, len(self.samples.classes)))
        return torch.from_numpy(np.stack(targets))

    def _open(self, sample: int) -> Source:
        if sample in self.worker_status.given_up:
            raise VideoError(f"{self.samples.name(sample)}: {self.worker_status.given_up[sample]}")
        return self.cache.open(sample) if self.cache else open_sample(self.samples, sample)


def training_loader(
    dataset: VideoDataset,
    first_step: int,
    last_step: int,
    workers: WorkerSettings = IN_PROCESS,
    *,
    pin: bool = False,
    report: Callable[[str], None] | None = None,
    class_balance: float = 0.0,
    rank: int = 0,
    world_size: int = 1,
) -> FaultTolerantLoader[Batch]:
    """Return a loader of the batches of steps `first_step` to `last_step - 1`, over all epochs.

    Args:
        dataset: training clips, with a seed and a batch plan.
        first_step: first step.
        last_step: step after the last one.
        workers: decoding worker processes.
        pin: whether batches are in pinned memory.
        report: called with a line when workers were restarted; None prints it to standard error.
        class_balance: see `Samples.draw_weights`.
        rank: rank of this process, which takes its slice of every step.
        world_size: number of training processes.

    Raises:
        UserError: shared memory is too small for the batches of these workers.
    """
    seed, views, batch_plan = dataset.seed, dataset.views, dataset.batch_plan
    assert seed is not None
    assert batch_plan is not None
    assert isinstance(views, TrainViews)
    num_views = views.clips.num_clips * views.repeats
    largest = max(
        clips * math.prod(reshape_views(views, shape).view_shape) for clips, shape in batch_plan.batches
    )
    check_shared_memory(largest * num_views // world_size, workers.count())

    def remaining(done: int) -> dict[str, Any]:
        sampler = TrainBatchSampler(
            dataset.samples,
            batch_plan,
            seed,
            first_step + done,
            last_step,
            class_balance=class_balance,
            rank=rank,
            world_size=world_size,
        )
        return {"batch_sampler": sampler, "collate_fn": stack}

    length, name = last_step - first_step, dataset.samples.name
    return FaultTolerantLoader(dataset, remaining, length, workers, name=name, report=report, pin=pin)


def evaluation_loader(
    dataset: VideoDataset,
    num_videos: int,
    workers: WorkerSettings = IN_PROCESS,
    *,
    pin: bool = False,
    report: Callable[[str], None] | None = None,
    rank: int = 0,
    world_size: int = 1,
    chosen: Sequence[int] | None = None,
) -> FaultTolerantLoader[list[Clip]]:
    """Return a loader of the videos of this process, each exactly once and in order.

    Args:
        dataset: test clips, without a seed.
        num_videos: largest length of each list of clips.
        workers: decoding worker processes.
        pin: whether clips are in pinned memory.
        report: called with a line when workers were restarted; None prints it to standard error.
        rank: rank of this process, which takes its slice of the videos.
        world_size: number of processes.
        chosen: sample numbers to load instead, in every process.

    Raises:
        UserError: shared memory is too small for the lists of these workers.
    """
    assert isinstance(dataset.views, TestViews)
    check_shared_memory(num_videos * dataset.views.video_bytes, workers.count())
    own = range(len(dataset))[rank_slice(len(dataset), rank, world_size)] if chosen is None else chosen

    def remaining(done: int) -> dict[str, Any]:
        sampler = own[done * num_videos :]
        return {"sampler": sampler, "batch_size": num_videos, "collate_fn": list}

    length, name = math.ceil(len(own) / num_videos), dataset.samples.name
    return FaultTolerantLoader(dataset, remaining, length, workers, name=name, report=report, pin=pin)


def stack(clips: list[Clip]) -> Batch:
    """Collate training clips into a batch."""
    # A clip is dropped if all its replacements are unreadable. The limit of unreadable videos then ends the
    # run.
    pixels = [clip.pixels for clip in clips if clip.pixels is not None]
    read = [clip for clip in clips if clip.pixels is not None]
    return Batch(
        torch.stack(pixels) if pixels else torch.empty(0),
        torch.stack([clip.labels for clip in read]) if read else torch.empty(0),
        [clip.sample for clip in read],
        [fault for clip in clips for fault in clip.faults],
    )

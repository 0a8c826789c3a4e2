"""Measure the throughput of the training loader and the cost of its stages."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch

from mmaction_lite.benchmark.environment import environment
from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import (
    AUGMENT,
    CLIP,
    Clip,
    TrainBatchSampler,
    VideoDataset,
    generator,
    stack,
    training_loader,
)
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.sources import index_cache
from mmaction_lite.data.sources.container import open_stream
from mmaction_lite.data.sources.index_cache import IndexCache
from mmaction_lite.data.sources.source import ArrayVideo, open_sample
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.recipes.recipe import Recipe

Read = Callable[[str, list[int]], object]
Draw = tuple[int, int]
Track = Callable[[Iterable[Draw], int, str], Iterable[Draw]]
STAGES = ("open", "decode", "resize and crop", "augment", "collate", "copy to device")


@dataclass(frozen=True, kw_only=True)
class LoaderReport:
    """Result of `measure_loader`. All times are medians of CPU milliseconds per clip with one thread.

    Args:
        data: file or folder that lists the clips.
        recipe: name of the recipe with the training views.
        clips: number of measured clips.
        unreadable: number of clips that were left out because they cannot be read.
        stages: time of each stage. "decode" converts packets to whole RGB frames.
        whole: time of the path used in training, from the file to the pixels of the views. It crops before it
            resizes and holds one whole frame at a time, so it takes less than the sum of its stages.
        whole_to_decode: median ratio of the whole path to opening and decoding alone, per clip.
        peers: time to open and decode to RGB, by reader, for the same files and frames; "ours" is this
            package.
        clips_per_second: throughput of the loader with its workers, in wall-clock time.
        workers: number of decoding processes.
        limited_by: the stage with the largest CPU time.
        environment: environment of the measurement.
    """

    data: str
    recipe: str
    clips: int
    unreadable: int
    stages: dict[str, float]
    whole: float
    whole_to_decode: float
    peers: dict[str, float]
    clips_per_second: float
    workers: int
    limited_by: str
    environment: dict[str, Any]


def measure_loader(
    samples: Samples,
    recipe: Recipe,
    device: torch.device,
    num_clips: int,
    num_workers: int,
    track: Track,
    seed: int = 0,
) -> LoaderReport:
    """Measure each stage of the training loader, the whole path, and other video readers.

    The cache of packet indexes is disabled, because in a large data set every file is opened once per epoch.

    Args:
        samples: the clips.
        recipe: recipe with the training views and the batch size.
        device: device to which batches are copied.
        num_clips: number of clips to measure.
        num_workers: decoding processes for the throughput.
        track: wraps an iterable to show progress: (iterable, total, title).
        seed: seed of the random views.

    Raises:
        UserError: no clip can be read.
    """
    dataset = VideoDataset(samples, recipe.train, seed=seed)
    num_clips = max(1, num_clips)
    batch_size = min(recipe.batch_size, len(samples), num_clips)
    steps = TrainBatchSampler(
        samples, BatchPlan(len(samples), batch_size), seed, 0, -(-num_clips // batch_size)
    )
    draws = [draw for step in steps for draw in step][:num_clips]
    readers = _readers()
    times: dict[str, list[float]] = {name: [] for name in (*STAGES, "whole", *readers)}
    clips: list[Clip] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    known, index_cache.index_cache = index_cache.index_cache, IndexCache(0)
    try:
        for draw, sample in track(draws, len(draws), "timing the loader"):
            try:
                # In alternation, so that other load on the machine affects all measurements equally.
                clip = _timed(whole := [], lambda: dataset[draw, sample])  # noqa: B023
                if clip.faults:
                    continue
                indices = _time_stages(times, samples, recipe, draw, sample, seed)
                for name, read in readers.items():
                    if samples.segments is None and samples.path(sample).is_file():
                        _timed(times[name], lambda: read(str(samples.path(sample)), indices))  # noqa: B023
                times["whole"] += whole
                clips.append(clip)
            except VideoError:
                continue
        if not clips:
            raise UserError(f"{samples.source}: none of {len(draws)} clips can be read")
        for first in range(0, len(clips), batch_size):
            part = clips[first : first + batch_size]
            batch = _timed(times["collate"], lambda: stack(part), len(part))  # noqa: B023
            _timed(times["copy to device"], lambda: batch.pixels.to(device, copy=True), len(part))  # noqa: B023
    finally:
        torch.set_num_threads(threads)
        index_cache.index_cache = known
    stages = {name: statistics.median(times[name]) for name in STAGES}
    return LoaderReport(
        data=samples.source,
        recipe=recipe.name,
        clips=len(clips),
        unreadable=len(draws) - len(clips),
        stages=stages,
        whole=statistics.median(times["whole"]),
        whole_to_decode=statistics.median(
            whole / (opened + decoded)
            for whole, opened, decoded in zip(times["whole"], times["open"], times["decode"], strict=True)
        ),
        peers={name: statistics.median(times[name]) for name in readers if times[name]},
        clips_per_second=_throughput(samples, recipe, batch_size, num_workers, len(draws), seed),
        workers=num_workers,
        limited_by=max(stages, key=lambda name: stages[name]),
        environment=environment(device),
    )


def _time_stages(
    times: dict[str, list[float]], samples: Samples, recipe: Recipe, draw: int, sample: int, seed: int
) -> list[int]:
    """Measure each stage of reading one training clip; return its frame indices."""
    views = recipe.train
    rng = generator(seed, AUGMENT, draw)
    source = _timed(times["open"], lambda: open_sample(samples, sample))
    with source:
        indices = views.indices(source, generator(seed, CLIP, draw))
        wanted = indices.reshape(-1).tolist()
        frames = _timed(times["decode"], lambda: source.frames(wanted))
    decoded = ArrayVideo(frames)
    places = [views.placements(decoded, rng) for _ in indices]
    numbers = np.arange(len(wanted)).reshape(indices.shape)
    crops = _timed(
        times["resize and crop"],
        lambda: [
            crop
            for clip, placements in zip(numbers, places, strict=True)
            for crop in views.cut(decoded, clip, placements)
        ],
    )
    _timed(times["augment"], lambda: [views.alter(crop, rng) for crop in crops])
    return wanted


def _timed(milliseconds: list[float], run: Callable[[], Any], count: int = 1) -> Any:
    """Return the result of `run`, and append its CPU time per clip to `milliseconds`."""
    start = time.process_time()
    result = run()
    milliseconds.append(1000 * (time.process_time() - start) / count)
    return result


def _throughput(
    samples: Samples, recipe: Recipe, batch_size: int, num_workers: int, num_clips: int, seed: int
) -> float:
    """Return the clips per second of the loader, without its first batches, during which workers start."""
    warm = max(1, 2 * num_workers)
    steps = warm + max(2, -(-num_clips // batch_size))
    dataset = VideoDataset(samples, recipe.train, seed=seed, batch_plan=BatchPlan(len(samples), batch_size))
    loader = training_loader(dataset, 0, steps, WorkerSettings(num_workers=num_workers))
    start, clips = 0.0, 0
    for number, batch in enumerate(loader, 1):
        if number > warm:
            clips += len(batch.samples)
        elif number == warm:
            start = time.perf_counter()
    return clips / (time.perf_counter() - start)


def _readers() -> dict[str, Read]:
    """Return all readers by name; each decodes with one thread."""
    return {"ours": read_planned, "PyAV, linear": read_linear} | installed_readers()


def installed_readers() -> dict[str, Read]:
    """Return the readers of other installed packages, by package."""
    readers: dict[str, Read] = {}
    for module, read in (("decord", _read_decord), ("torchcodec.decoders", _read_torchcodec)):
        try:
            import_module(module)
        except (ImportError, OSError, RuntimeError):
            continue
        readers[module.partition(".")[0]] = read
    return readers


def read_planned(path: str, indices: list[int]) -> object:
    """Read RGB frames with this package."""
    with Video(path) as video:
        return video.frames(indices)


def read_linear(path: str, indices: list[int]) -> object:
    """Read RGB frames by decoding the file from its beginning."""
    wanted, last, found = set(indices), max(indices), {}
    with open_stream(path) as opened:
        for index, frame in enumerate(opened.container.decode(opened.stream)):
            if index in wanted:
                found[index] = frame.to_ndarray(format="rgb24", threads=1)
            if index == last:
                break
    return np.stack([found[index] for index in indices])


def _read_decord(path: str, indices: list[int]) -> object:
    return import_module("decord").VideoReader(path, num_threads=1).get_batch(indices).asnumpy()


def _read_torchcodec(path: str, indices: list[int]) -> object:
    decoder = import_module("torchcodec.decoders").VideoDecoder(
        path, num_ffmpeg_threads=1, dimension_order="NHWC"
    )
    return decoder.get_frames_at(indices).data.numpy()

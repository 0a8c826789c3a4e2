"""Compute the features of the clips of a split that are not in the cache, and write them to it."""

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.loader import AUGMENT, CLIP, Fault, generator, rank_slice
from mmaction_lite.data.loading.parallel import run_tasks
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.sources.source import open_sample
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.device import Precision, reusing_memory
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import Interrupted, UserError, VideoError, printable
from mmaction_lite.files import FolderLock, check_features_fit, describe_bytes, writing
from mmaction_lite.inference.scores import clips_at_once, device_of
from mmaction_lite.models.probe import Probe
from mmaction_lite.training.feature_cache import ClipFeatures, FeatureCache, FeatureKey, clip_checksum
from mmaction_lite.weights.fingerprint import fingerprint_of_weights

SHARD_BYTES = 64 << 20
SHARD_SECONDS = 30.0  # at most so much work is lost when the process is killed

Track = Callable[[Iterable[Any], int, str], Iterable[Any]]


class ClipViews(NamedTuple):
    """Views of a clip whose features are stored.

    Args:
        views: fixed views, or random ones, drawn `passes` times.
        passes: number of draws; 1 for fixed views.
        seed: seed of random views.
    """

    views: TestViews | TrainViews
    passes: int = 1
    seed: int = 0

    @property
    def rows(self) -> int:
        """Number of views of a clip."""
        if isinstance(self.views, TestViews):
            return self.views.num_views
        return self.passes * self.views.clips.num_clips * self.views.repeats

    def read(self, samples: Samples, sample: int) -> tuple[np.ndarray, np.ndarray]:
        """Read the views of a clip.

        The random numbers depend on the seed and on the file, not on the position in the list, so that the
        features of a clip stay when others are added.

        Returns:
            Pixels, uint8 (rows, T, h, w, C), and whether each view is mirrored and reversed, bool (rows, 2).

        Raises:
            VideoError: the clip cannot be read.
        """
        with open_sample(samples, sample) as source:
            if isinstance(self.views, TestViews):
                pixels = self.views.crops(torch.from_numpy(self.views.read(source))).numpy()
                return pixels, np.zeros((len(pixels), 2), bool)
            number = int(clip_checksum(samples, sample)[:15], 16)
            drawn = [
                self.views.draw_views(
                    source,
                    generator(self.seed, CLIP, number, view=i),
                    generator(self.seed, AUGMENT, number, view=i),
                )
                for i in range(self.passes)
            ]
        altered = [np.stack([flips, reversals], 1) for _, flips, reversals in drawn]
        return np.concatenate([pixels for pixels, _, _ in drawn]), np.concatenate(altered)


class StoredFeatures(NamedTuple):
    """Features of the clips of a split.

    Args:
        cache: the features.
        clips: checksum of every clip of the split, which finds it in the cache.
        faults: the clips that cannot be read, by number.
    """

    cache: FeatureCache
    clips: list[str]
    faults: dict[int, Fault]

    def of(self, sample: int) -> ClipFeatures:
        """Return the features of a clip that is not among the faults."""
        return self.cache[self.clips[sample]]


class _Read(NamedTuple):
    """Views of a clip, or why it cannot be read."""

    sample: int
    pixels: np.ndarray | None
    altered: np.ndarray | None
    reason: str = ""


@dataclass
class _Reader:
    """Reads the views of clips; runs in the workers."""

    samples: Samples
    views: ClipViews

    def __call__(self, number: int) -> _Read:
        try:
            return _Read(number, *self.views.read(self.samples, number))
        except VideoError as error:
            return self.failed(number, str(error))

    def failed(self, number: int, reason: str) -> _Read:
        name = self.samples.name(number)
        is_named = reason.startswith((name, printable(name)))
        return _Read(number, None, None, reason if is_named else f"{printable(name)}: {reason}")


@dataclass(kw_only=True)
class FeatureExtraction:
    """Encoder, views and processes that compute features.

    Args:
        probe: the encoder with its head, on the device that computes; put into evaluation mode.
        encoder: the encoder and its arguments, for the key.
        normalize: normalization of the pixels.
        storage: type of the stored values.
        precision: data type of the forward pass.
        workers: decoding worker processes.
        context: of several processes, each computes its slice of the clips.
        report: called with lines about size, faults and damaged shards.
        track: wraps the clips to show progress: (iterable, total, title).
    """

    probe: Probe
    encoder: str
    normalize: Normalize
    storage: str
    precision: Precision
    workers: WorkerSettings
    context: DistributedContext
    report: Callable[[str], None]
    track: Track | None = None

    def __post_init__(self):
        self.probe.eval()
        self.weights = fingerprint_of_weights(self.probe.encoder)

    def key(self, views: ClipViews) -> FeatureKey:
        """Return what the features depend on; runs the encoder on a black clip."""
        pixels = torch.zeros((1, *views.views.view_shape), dtype=torch.uint8)
        _, tokens, width = self.encode(pixels).shape
        probe, is_fixed = self.probe, isinstance(views.views, TestViews)
        return FeatureKey(
            weights=self.weights,
            encoder=f"{self.encoder} in {self.precision}",
            layer=f"pool {probe.pool}, frame code {probe.frame_code}",
            views=f"{views.views!r}, {self.normalize!r}",
            rows=views.rows,
            shape=(tokens, width),
            dtype=self.storage,
            seed=None if is_fixed else views.seed,
        )

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> np.ndarray:
        """Map views, uint8 (n, T, h, w, C), to features (n, tokens, D) of the stored type."""
        device = device_of(self.probe)
        dtype = getattr(torch, self.precision)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), reusing_memory(device):
            inputs = self.normalize(pixels.to(device, non_blocking=True))
            values = self.probe.features(inputs).float()
        with np.errstate(over="ignore"):  # reported as not finite
            return values.cpu().numpy().astype(self.storage)

    def fill(self, cache: FeatureCache, samples: Samples, views: ClipViews) -> StoredFeatures:
        """Compute and write the features of the clips of a split that `cache` lacks.

        Raises:
            UserError: no clip can be read, another process writes to the folder, or the disk is too small or
                full.
            Interrupted: Ctrl-C; the computed features are written.
        """
        context, folder = self.context, cache.folder
        clips = [clip_checksum(samples, i) for i in range(len(samples))]
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with FolderLock(folder) if context.is_main_process else nullcontext():
            cache.open()
            if context.is_main_process:
                cache.remove_partial()
            context.barrier()  # no process writes before all know what is missing, and partial files are gone
            missing = list(
                {clip: i for i, clip in reversed(list(enumerate(clips))) if clip not in cache}.values()
            )
            missing.reverse()
            self._check_size(cache, samples, clips, missing)
            own = missing[rank_slice(len(missing), context.rank, context.world_size)]
            try:
                faults = self._compute(cache, samples, views, own, clips)
            except KeyboardInterrupt:
                raise Interrupted(
                    f"{printable(str(folder))}: stopped; the features that were computed are kept, and the "
                    "same command continues"
                ) from None
            found = context.all_gather(faults)
            cache.open()
        faults = {number: fault for part in found for number, fault in part.items()}
        for number, clip in enumerate(clips):  # a clip that is listed twice is read once
            if clip not in cache and number not in faults:
                faults[number] = next(fault for i, fault in faults.items() if clips[i] == clip)
        if len(faults) == len(samples):
            reason = next(iter(faults.values())).reason
            raise UserError(
                f"{samples.source}: none of {len(samples)} clips can be read; the first: {reason}"
            )
        return StoredFeatures(cache, clips, faults)

    def _check_size(
        self, cache: FeatureCache, samples: Samples, clips: list[str], missing: list[int]
    ) -> None:
        """Report the size of the features to write, and check that the disk has room for them."""
        key, folder = cache.key, printable(str(cache.folder))
        size = len(missing) * key.clip_bytes
        known = set(cache.names.values())
        changed = [i for i in missing if samples.name(i) in known]
        shape = " × ".join(map(str, (key.rows, *key.shape)))
        counts = [f"{len(set(clips)) - len(missing)} stored in {folder}"]
        counts += [f"{len(changed)} of changed files"] * bool(changed)
        counts += [f"{len(missing) - len(changed)} new"]
        text = f"{len(missing)} clips of {shape} {key.dtype}"
        advice = "use another --feature-cache, --set model.pool=all or fewer probe.passes"
        check_features_fit(cache.folder, size, text, advice)
        write = f"; to write: {text}, {describe_bytes(size)}" if missing else ""
        self.report(f"features of {samples.source}: {', '.join(counts)}{write}")

    def _compute(
        self, cache: FeatureCache, samples: Samples, views: ClipViews, numbers: list[int], clips: list[str]
    ) -> dict[int, Fault]:
        """Write the features of the clips `numbers`; return the faults by number."""
        faults: dict[int, Fault] = {}
        waiting: list[_Read] = []
        shard = _Shard(cache)
        most = clips_at_once(views.views.view_shape)
        reads: Iterable[_Read] = run_tasks(_Reader(samples, views), numbers, self.workers)
        if self.track is not None and numbers:
            reads = self.track(reads, len(numbers), f"features of {samples.source}")

        def compute() -> None:
            for read, features in zip(waiting, self._encoded(waiting, most), strict=True):
                if np.isfinite(features.values).all():
                    shard.add(clips[read.sample], samples.name(read.sample), features)
                else:
                    cure = "check the weights" if self.storage == "float32" else "--set probe.storage=float32"
                    self._add_fault(faults, samples, read.sample, f"the features are not finite; {cure}")
            waiting.clear()

        try:
            for read in reads:
                if read.pixels is None:
                    self._add_fault(faults, samples, read.sample, read.reason)
                    continue
                waiting.append(read)
                if len(waiting) * views.rows >= most:
                    compute()
            compute()
        finally:
            shard.flush()
        return faults

    def _add_fault(self, faults: dict[int, Fault], samples: Samples, sample: int, reason: str) -> None:
        name = samples.name(sample)
        line = reason if reason.startswith((name, printable(name))) else f"{printable(name)}: {reason}"
        faults[sample] = Fault(name, line)
        self.report(line)

    def _encoded(self, reads: list[_Read], most: int) -> Iterable[ClipFeatures]:
        """Yield the features of clips; views share forward passes of at most `most` views."""
        if not reads:
            return
        pixels = torch.from_numpy(np.concatenate([read.pixels for read in reads if read.pixels is not None]))
        values = np.concatenate([self.encode(part) for part in pixels.split(most)])
        done = 0
        for read in reads:
            assert read.altered is not None
            yield ClipFeatures(values[done : done + len(read.altered)], read.altered)
            done += len(read.altered)


class _Shard:
    """Features that wait to be written together."""

    def __init__(self, cache: FeatureCache):
        self.cache = cache
        self._clips: list[tuple[str, str]] = []
        self._features: list[ClipFeatures] = []
        self._since = time.monotonic()

    def add(self, clip: str, name: str, features: ClipFeatures) -> None:
        """Add a clip; write a shard if it is large or old enough."""
        self._clips.append((clip, name))
        self._features.append(features)
        size = len(self._clips) * self.cache.key.clip_bytes
        if size >= SHARD_BYTES or time.monotonic() - self._since >= SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the clips that wait, if any."""
        if self._clips:
            self.cache.write(self._clips, self._features)
        self._clips, self._features, self._since = [], [], time.monotonic()

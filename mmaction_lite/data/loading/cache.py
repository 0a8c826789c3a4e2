"""Cache of small datasets in memory: all frames of all clips, decoded once, at reduced size."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.sources.resample import Interpolation, short_side_size
from mmaction_lite.data.sources.source import ArrayVideo, open_sample, read_frames
from mmaction_lite.data.views.views import Views
from mmaction_lite.device import available_cores
from mmaction_lite.errors import VideoError

BUDGET_BYTES = 2 << 30
Track = Callable[[Iterable[Any], int, str], Iterable[Any]]


class VideoCache:
    """Decoded clips in one shared uint8 tensor.

    A cached clip has the interface of a video, with frames of the reduced size. Views that resize whole
    frames to the same short side before cropping get the same pixels from the cache as from the files.

    Args:
        samples: table of clips.
        short_side: short side of the stored frames, in pixels.
        antialias, interpolation: see `crop_and_resize`.
        budget_bytes: largest size of the cache in bytes.
        track: wraps an iterable of sample numbers to show progress: (iterable, total, title).

    Raises:
        MemoryError: the clips do not fit into the budget.
    """

    def __init__(
        self,
        samples: Samples,
        short_side: int,
        antialias: bool,
        budget_bytes: int,
        *,
        interpolation: Interpolation = "bilinear",
        track: Track | None = None,
    ):
        self.samples = samples
        self.short_side = short_side
        self.antialias = antialias
        self.interpolation: Interpolation = interpolation
        with ThreadPoolExecutor(available_cores()) as threads:
            self._shapes = list(threads.map(self._probe, range(len(samples))))
            ends = np.cumsum([np.prod(shape[:3]) * 3 for shape in self._shapes], dtype=np.int64)
            self._starts = np.concatenate([[0], ends])
            self.nbytes = int(self._starts[-1])
            if self.nbytes > budget_bytes:
                raise MemoryError(f"{self.nbytes} bytes of clips, {budget_bytes} allowed")
            # PyTorch moves this tensor to shared memory when it sends the dataset to a worker.
            self._pixels = torch.empty(self.nbytes, dtype=torch.uint8)
            clips = threads.map(self._fill, range(len(samples)))
            for _ in track(clips, len(samples), "reading clips into memory") if track else clips:
                pass

    def open(self, sample: int) -> ArrayVideo:
        """Return a cached clip.

        Raises:
            VideoError: its file was unreadable when the cache was filled.
        """
        length, height, width, fps, fault = self._shapes[sample]
        if fault:
            raise VideoError(fault)
        flat = self._pixels[self._starts[sample] : self._starts[sample + 1]].numpy()
        return ArrayVideo(flat.reshape(length, height, width, 3), fps)

    def _probe(self, sample: int) -> tuple[int, int, int, float, str]:
        """Return length, height, width and frame rate of the cached clip, and why it is unreadable, if so."""
        try:
            with open_sample(self.samples, sample) as source:
                return len(source), *short_side_size(source.size, self.short_side), source.fps, ""
        except VideoError as error:
            return 0, 0, 0, 0.0, str(error)

    def _fill(self, sample: int) -> int:
        length, height, width, fps, fault = self._shapes[sample]
        if not fault:
            try:
                with open_sample(self.samples, sample) as source:
                    self.open(sample).pixels[:] = read_frames(
                        source,
                        range(length),
                        None,
                        (height, width),
                        antialias=self.antialias,
                        interpolation=self.interpolation,
                    )
            except VideoError as error:
                self._shapes[sample] = (length, height, width, fps, str(error))
        return sample


class Caches:
    """Caches of one or several runs, which share a memory budget.

    Args:
        budget_bytes: largest size of all caches together, in bytes.
        track: see `VideoCache`.
    """

    def __init__(self, budget_bytes: int = BUDGET_BYTES, track: Track | None = None):
        self.left_bytes = budget_bytes
        self.track = track
        self._caches: dict[tuple[str, int, int, bool, Interpolation], VideoCache] = {}

    def of(self, samples: Samples, views: Views) -> VideoCache | None:
        """Return the cache for `views`; None if they crop from full-size frames or the clips do not fit."""
        if views.short_side is None:
            return None
        key = (samples.source, len(samples), views.short_side, views.antialias, views.interpolation)
        if key not in self._caches:
            if not 0 < expected_bytes(samples, views.short_side) <= self.left_bytes:
                return None
            try:
                cache = VideoCache(
                    samples,
                    views.short_side,
                    views.antialias,
                    self.left_bytes,
                    interpolation=views.interpolation,
                    track=self.track,
                )
            except MemoryError:
                return None
            self.left_bytes -= cache.nbytes
            self._caches[key] = cache
        return self._caches[key]


def expected_bytes(samples: Samples, short_side: int) -> int:
    """Estimate the size of a cache in bytes from 16 evenly spaced clips; 0 if none of them is readable."""
    sizes = []
    for sample in np.linspace(0, len(samples) - 1, 16).astype(int):
        try:
            with open_sample(samples, sample) as source:
                height, width = short_side_size(source.size, short_side)
                sizes.append(len(source) * height * width * 3)
        except VideoError:
            continue
    return int(np.mean(sizes) * len(samples)) if sizes else 0

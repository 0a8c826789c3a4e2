"""Read the clips of videos in batches, in worker processes or in the calling process."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmaction_lite.data.loading.workers import (
    FaultTolerantLoader,
    WorkerSettings,
    WorkerStatus,
    check_shared_memory,
)
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError, printable
from mmaction_lite.inference.inputs import OneVideo, is_path, name_of, open_input

# Up to this number of videos or bytes, decoding takes less time than the start of worker processes (3 s).
MANY_VIDEOS, MANY_BYTES = 64, 32 << 20


class ReadVideo(NamedTuple):
    """The clips of a video, or the reason why it cannot be read.

    Args:
        name: see `name_of`.
        pixels: uint8 (num_clips, T, H, W, C) before cropping; None if the video cannot be read.
        reason: one line that names the video; empty if it was read.
    """

    name: str
    pixels: Tensor | None
    reason: str


def read_batches(
    videos: Iterable[OneVideo],
    views: TestViews,
    batch_size: int,
    workers: WorkerSettings,
    *,
    pin: bool = False,
    report: Callable[[str], None] | None = None,
) -> Iterator[list[ReadVideo]]:
    """Yield the clips of all videos in order, in lists of at most `batch_size`.

    Args:
        videos: the videos. Without worker processes, only one batch at a time is taken from the iterable.
        views: clips of a video.
        batch_size: number of videos in a list; the last one may be shorter.
        workers: worker processes. They are used if all videos are paths or addresses, in a sequence.
        pin: whether worker processes return clips in pinned memory.
        report: called with a line when workers were restarted; None prints it to standard error.

    Raises:
        UserError: shared memory is too small for the batches of these workers.
    """
    if (
        isinstance(videos, Sequence)
        and all(map(is_path, videos))
        and (count := worker_count(videos, workers))
    ):
        check_shared_memory(batch_size * views.video_bytes, count)
        dataset = _Videos(videos, views)

        def remaining(done: int) -> dict[str, Any]:
            sampler = range(done * batch_size, len(videos))
            return {"sampler": sampler, "batch_size": batch_size, "collate_fn": list}

        length = math.ceil(len(videos) / batch_size)
        settings = WorkerSettings(num_workers=count, hang_seconds=workers.hang_seconds)
        yield from FaultTolerantLoader(
            dataset, remaining, length, settings, name=dataset.name, report=report, pin=pin
        )
        return
    left = enumerate(videos)
    while batch := [read_video(video, name_of(video, n), views) for n, video in islice(left, batch_size)]:
        yield batch


def read_video(video: OneVideo, name: str, views: TestViews) -> ReadVideo:
    """Read the clips of one video; see `open_input`."""
    try:
        with open_input(video, name) as source:
            return ReadVideo(name, torch.from_numpy(views.read(source)), "")
    except UserError as error:
        reason, shown = str(error), printable(name)
        return ReadVideo(name, None, reason if shown in reason or name in reason else f"{shown}: {reason}")


def worker_count(videos: Sequence[OneVideo], workers: WorkerSettings) -> int:
    """Return the number of worker processes to start for these paths.

    A number that the user gave is kept. Otherwise no workers start for up to `MANY_VIDEOS` files of up to
    `MANY_BYTES` bytes. Addresses count as large, because a worker can wait for a server while others decode.
    """
    if workers.num_workers is not None or len(videos) < 2:
        return workers.count() if workers.num_workers is not None else 0
    num_bytes = 0
    for video in videos:
        try:
            num_bytes += os.stat(video).st_size  # pyright: ignore[reportArgumentType]  # noqa: PTH116
        except (OSError, ValueError):
            num_bytes += MANY_BYTES // 4  # an address, a pattern, or a missing file
    return workers.count() if len(videos) > MANY_VIDEOS or num_bytes > MANY_BYTES else 0


class _Videos:
    """Dataset of the clips of paths, which runs in the workers."""

    def __init__(self, videos: Sequence[OneVideo], views: TestViews):
        self.videos = videos
        self.views = views
        self.worker_status = WorkerStatus()

    def __len__(self) -> int:
        return len(self.videos)

    def name(self, number: int) -> str:
        return name_of(self.videos[number], number)

    def __getitem__(self, number: int) -> ReadVideo:
        name = self.name(number)
        if number in self.worker_status.given_up:
            return ReadVideo(name, None, f"{printable(name)}: {self.worker_status.given_up[number]}")
        with self.worker_status.reading(number):
            return read_video(self.videos[number], name, self.views)

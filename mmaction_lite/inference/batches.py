"""Read the clips of videos in batches, in worker processes or in the calling process."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, cast

import torch
from torch import Tensor

from mmaction_lite.data.loading.decoder_launch import worker_count
from mmaction_lite.data.loading.decoder_process import name_reason
from mmaction_lite.data.loading.decoders import Decoded, Decoders
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.data.sources.source import PathInput, as_path, path_name
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.inference.inputs import OneVideo, is_path, name_of, open_input


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
    started: Decoders | None = None,
    report: Callable[[str], None] | None = None,
) -> Iterator[list[ReadVideo]]:
    """Yield the clips of all videos in order, in lists of at most `batch_size`.

    Args:
        videos: the videos. Without worker processes, only one batch at a time is taken from the iterable.
        views: clips of a video.
        batch_size: number of videos in a list; the last one may be shorter.
        workers: worker processes. They are used if all videos are paths or addresses, in a sequence.
        started: processes that read these videos already. They are used if their paths and views are those
            of this call, and closed in any case.
        report: called with a line when a process was replaced; None prints it to standard error.

    Raises:
        UserError: a decoding process cannot be started.
    """
    if isinstance(videos, Sequence) and all(map(is_path, videos)):
        paths = [as_path(video) for video in cast(Sequence[PathInput], videos)]
        decoders = started
        if started is not None and (started.paths != list(map(str, paths)) or started.views != views):
            started.close()
            decoders = None
        if decoders is None and (count := worker_count(paths, workers)):
            decoders = Decoders(paths, views, replace(workers, num_workers=count), report=report)
        if decoders is not None:
            with decoders:
                decoded = zip(map(path_name, paths), decoders, strict=True)
                while batch := [_completed(*each, views) for each in islice(decoded, batch_size)]:
                    yield batch
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
        return ReadVideo(name, None, name_reason(name, str(error)))


def _completed(name: str, clips: Decoded, views: TestViews) -> ReadVideo:
    if clips.pixels is None:
        return ReadVideo(name, None, clips.reason)
    pixels = clips.pixels if clips.size is None else views.resize(clips.pixels, clips.size)
    return ReadVideo(name, torch.from_numpy(pixels), "")

"""The parts of the server that all routes share."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fastapi import Request
from torch import Tensor, nn

from mmaction_lite.data.views.views import TestViews
from mmaction_lite.serve.addresses import parse_allowed
from mmaction_lite.serve.admission import Admission
from mmaction_lite.serve.batching import Network
from mmaction_lite.serve.clip_videos import ClipVideos
from mmaction_lite.serve.dataset import Dataset
from mmaction_lite.serve.decoding import DecodingPool, Reading
from mmaction_lite.serve.examples import Examples
from mmaction_lite.serve.jobs import RUNNING_JOBS, Job, JobLimits, Jobs
from mmaction_lite.serve.metrics import Metrics
from mmaction_lite.serve.models import KnownModel, Models
from mmaction_lite.serve.readers import Reader, VideoLimits
from mmaction_lite.serve.run_curves import RunCurves
from mmaction_lite.serve.settings import ServeSettings
from mmaction_lite.serve.timeline import Worker, annotated_file
from mmaction_lite.serve.uploads import UploadFolder

HOLD_SECONDS = 0.2  # between two checks whether a job has ended
EXPIRY_SECONDS = 30.0  # between two checks whether results have expired
MOST_DOWNLOADS = 4  # at the same time; each takes a thread


class Services:
    """The parts of one server, from its start to its end.

    Args:
        settings: settings of the server.
        models: its models.
        dataset: data set of the dataset mode.
        run: training of the run mode.
        admission: counts the accepted requests; None: a new one.
        metrics: counts the answers; None: new ones.

    Attributes:
        is_ready: whether the default model is loaded.
        uploads: private folder of uploaded files.
        pool: decoding processes.
        network: thread of the forward passes.
        limits: limits of a video.
        jobs: the jobs.
        job_pool: decoding processes of the jobs, apart from those of other requests.
        examples: the examples.
        clip_videos: playable videos of the data set.
        allowed_addresses: addresses that clients may name.
        downloads: limits the number of simultaneous downloads.
        is_closing: whether the server shuts down, so that streams of events end.
    """

    def __init__(
        self,
        settings: ServeSettings,
        models: Models,
        dataset: Dataset | None = None,
        run: RunCurves | None = None,
        *,
        admission: Admission | None = None,
        metrics: Metrics | None = None,
    ):
        self.settings, self.models, self.dataset, self.run = settings, models, dataset, run
        self.limits = VideoLimits(
            max_seconds=settings.max_seconds, max_frames=settings.max_frames, max_side=settings.max_side
        )
        self.uploads = UploadFolder()
        self.is_ready = False
        self.admission = admission or Admission(settings.queue_size)
        self.metrics = metrics or Metrics()
        self.metrics.in_flight.set_function(lambda: self.admission.num_requests)
        self.metrics.model_bytes.set_function(lambda: models.loaded_bytes)
        self.pool = DecodingPool(settings.workers, self._count_restart)
        self.network = Network(
            settings.batch_size, settings.batch_window_ms / 1000, self.metrics.observe_batch
        )
        limits = JobLimits(
            settings.max_jobs, settings.max_results, settings.job_seconds, settings.result_seconds
        )
        self.jobs = Jobs(limits)
        self.job_pool = DecodingPool(replace(settings.workers, num_workers=RUNNING_JOBS), self._count_restart)
        self.examples = Examples(self.uploads.path)
        self.clip_videos = ClipVideos(self.uploads.path, self.job_pool, settings.job_seconds)
        self.allowed_addresses = [parse_allowed(text) for text in settings.allowed_urls]
        self.downloads = asyncio.Semaphore(MOST_DOWNLOADS)
        self.is_closing = False
        self._held: set[asyncio.Task[None]] = set()
        self._expiry: asyncio.Task[None] | None = None

    def _count_restart(self, event: str) -> None:
        self.metrics.restarts.labels(event).inc()

    async def start(self) -> None:
        """Start the decoding processes and load the default model, if there is one."""
        self.pool.start()
        self._expiry = asyncio.get_running_loop().create_task(self._expire_results())
        if self.models.default is not None:
            async with self.models.use(self.models.default):
                pass
        self.is_ready = True

    async def _expire_results(self) -> None:
        """Delete the videos and results of expired jobs, also while no request arrives."""
        while True:
            await asyncio.sleep(min(EXPIRY_SECONDS, self.settings.result_seconds))
            await asyncio.to_thread(self.jobs.expire)

    async def resize(self, views: TestViews, reading: Reading) -> Tensor:
        """Complete the clips of a video: uint8 (num_clips, T, H, W, C), as `Protocol.read` returns them."""
        size = reading.size
        if size is None:
            return torch.from_numpy(reading.pixels)
        return torch.from_numpy(await asyncio.to_thread(views.resize, reading.pixels, size))

    def job_worker(self, video: Path, known: KnownModel) -> Worker:
        """Return what a job about a video computes with."""

        async def read(reader: Reader) -> Reading:
            return await self.job_pool.read(video, reader)

        async def compute(function: Callable[[nn.Module], Any]) -> Any:
            async with self.models.use(known.name) as model:
                return await self.network.run(function, model)

        return Worker(asyncio.get_running_loop(), video, read, compute, self.limits)

    def follow(self, job: Job) -> None:
        """Let a shutdown wait for a job."""

        async def hold() -> None:
            with self.admission.hold():
                while not job.has_ended:
                    await asyncio.sleep(HOLD_SECONDS)

        task = asyncio.get_running_loop().create_task(hold())
        self._held.add(task)
        task.add_done_callback(self._held.discard)

    async def annotated_file(self, job: Job) -> Path:
        """Return the annotated video of a job that is done; see `timeline.annotated_file`."""
        return await annotated_file(job, self.job_pool, job.video, self.settings.job_seconds)

    async def close(self) -> None:
        """End the jobs and the processes, and delete the private folder."""
        self.is_closing = True
        if self._expiry is not None:
            self._expiry.cancel()
        await asyncio.to_thread(self.jobs.close)
        await self.job_pool.close()
        await self.pool.close()
        self.network.close()
        await asyncio.to_thread(self.uploads.close)


def services_of(request: Request) -> Services:
    """Return the parts of the server that received a request; for `Depends`."""
    return request.app.state.services

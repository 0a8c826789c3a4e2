"""The parts of the server that all routes share."""

import asyncio

import torch
from fastapi import Request
from torch import Tensor

from mmaction_lite.data.views.views import TestViews
from mmaction_lite.serve.batching import Network
from mmaction_lite.serve.decoding import DecodingPool, Reading
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.readers import VideoLimits
from mmaction_lite.serve.settings import ServeSettings
from mmaction_lite.serve.uploads import UploadFolder


class Services:
    """The parts of one server, from its start to its end.

    Args:
        settings: settings of the server.
        models: its models.

    Attributes:
        uploads: private folder of uploaded files.
        pool: decoding processes.
        network: thread of the forward passes.
        limits: limits of a video.
    """

    def __init__(self, settings: ServeSettings, models: Models):
        self.settings, self.models = settings, models
        self.limits = VideoLimits(
            max_seconds=settings.max_seconds, max_frames=settings.max_frames, max_side=settings.max_side
        )
        self.uploads = UploadFolder()
        self.pool = DecodingPool(settings.workers)
        self.network = Network(settings.batch_size, settings.batch_window_ms / 1000)

    async def start(self) -> None:
        """Start the decoding processes and load the default model."""
        self.pool.start()
        async with self.models.use(self.models.default):
            pass

    async def resize(self, views: TestViews, reading: Reading) -> Tensor:
        """Complete the clips of a video: uint8 (num_clips, T, H, W, C), as `Protocol.read` returns them."""
        size = reading.size
        if size is None:
            return torch.from_numpy(reading.pixels)
        return torch.from_numpy(await asyncio.to_thread(views.resize, reading.pixels, size))

    async def close(self) -> None:
        """End the processes and delete the private folder."""
        await self.pool.close()
        self.network.close()
        await asyncio.to_thread(self.uploads.close)


def services_of(request: Request) -> Services:
    """Return the parts of the server that received a request; for `Depends`."""
    return request.app.state.services

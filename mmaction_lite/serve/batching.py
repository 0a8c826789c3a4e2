"""Run the networks in one thread, and classify the videos of several requests in one forward pass."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.inference.scores import chunk_views, compute_scores
from mmaction_lite.weights.card import card_of

T = TypeVar("T")


class Scored(NamedTuple):
    """Result of a video.

    Args:
        scores: probabilities, float32 (K,).
        queue_seconds: how long the video waited for the forward pass.
        network_seconds: how long the forward pass of its batch took.
        batch_size: number of videos in the forward pass.
    """

    scores: np.ndarray
    queue_seconds: float
    network_seconds: float
    batch_size: int


class _Item(NamedTuple):
    """A video that waits for a forward pass."""

    pixels: Tensor
    since: float
    result: "asyncio.Future[Scored]"


class Network:
    """The thread that computes: all forward passes, one after the other.

    The videos of a model that arrive while the thread is busy, or within a short window, share a forward
    pass. Their scores depend on each other by rounding only.

    Args:
        batch_size: largest number of videos in a forward pass.
        window_seconds: how long the first video of a batch waits for others.
        observe: called with the number of videos of each forward pass and its duration in seconds.
    """

    def __init__(
        self,
        batch_size: int,
        window_seconds: float,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ):
        self._batch_size, self._window = batch_size, window_seconds
        self._observe = observe
        self._thread = ThreadPoolExecutor(1, "network")
        self._waiting: dict[nn.Module, list[_Item]] = {}
        self._runners: dict[nn.Module, asyncio.Task[None]] = {}

    def close(self) -> None:
        """End the thread after what it computes."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the thread, between two forward passes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def scores(self, model: nn.Module, pixels: Tensor) -> Scored:
        """Classify the clips of a video under the test protocol of the model.

        Args:
            model: a model with a card.
            pixels: uint8 (num_clips, T, H, W, C), as `Protocol.read` returns them.
        """
        item = _Item(pixels, time.perf_counter(), asyncio.get_running_loop().create_future())
        self._waiting.setdefault(model, []).append(item)
        if model not in self._runners:
            self._runners[model] = asyncio.get_running_loop().create_task(self._run_batches(model))
        return await item.result

    async def _run_batches(self, model: nn.Module) -> None:
        """Run forward passes of a model as long as videos wait for it."""
        protocol = card_of(model).test
        most = max(1, min(self._batch_size, chunk_views(protocol) // protocol.num_views))
        while waiting := self._waiting.get(model):
            left = waiting[0].since + self._window - time.perf_counter()
            if left > 0 and len(waiting) < most:
                await asyncio.sleep(left)
            batch, self._waiting[model] = waiting[:most], waiting[most:]
            batch = [item for item in batch if not item.result.done()]  # the others are canceled
            if batch:
                await self._run_batch(model, batch)
        # At once: a video that arrives before the task is done needs another task.
        del self._waiting[model], self._runners[model]

    async def _run_batch(self, model: nn.Module, batch: list[_Item]) -> None:
        try:
            scores, started, seconds = await self.run(_timed_scores, model, [item.pixels for item in batch])
        except Exception as error:
            for item in batch:
                if not item.result.done():
                    item.result.set_exception(error)
            return
        self._observe(len(batch), seconds)
        for item, row in zip(batch, scores, strict=True):
            if not item.result.done():
                item.result.set_result(Scored(row, started - item.since, seconds, len(batch)))


@torch.no_grad()
def _timed_scores(model: nn.Module, pixels: list[Tensor]) -> tuple[np.ndarray, float, float]:
    """Return the scores (len(pixels), K), the start and the duration of the forward pass."""
    card = card_of(model)
    started = time.perf_counter()
    scores = compute_scores(model, pixels, card.test, probabilities=card.task.probabilities)
    return scores, started, time.perf_counter() - started

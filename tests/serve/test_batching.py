"""Requests that arrive together share a forward pass."""

import asyncio

import numpy as np
import torch

from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.serve.batching import Network
from tests.exports import carded, small_protocol


def test_videos_of_one_window_share_a_forward_pass():
    model = carded("tsm_r10", small_protocol(), width=8)
    generator = torch.Generator().manual_seed(0)
    videos = [torch.randint(0, 255, (1, 4, 24, 32, 3), generator=generator).byte() for _ in range(5)]
    sizes = []

    async def classify():
        network = Network(4, 0.05, lambda size, seconds: sizes.append(size))
        try:
            return await asyncio.gather(*(network.scores(model, video) for video in videos))
        finally:
            network.close()

    found = asyncio.run(classify())
    assert sizes == [4, 1]
    with torch.no_grad():
        for video, scored in zip(videos, found, strict=True):
            alone = compute_scores(model, [video], model.card.test)[0]
            np.testing.assert_allclose(scored.scores, alone, atol=1e-6)


def test_a_video_that_arrives_at_the_end_of_a_batch_is_classified():
    model = carded("tsm_r10", small_protocol(), width=8)
    video = torch.zeros(1, 4, 24, 32, 3, dtype=torch.uint8)

    async def classify_twice():
        network = Network(4, 0.0)
        try:
            async with asyncio.timeout(20):
                return [await network.scores(model, video) for _ in range(2)]
        finally:
            network.close()

    first, second = asyncio.run(classify_twice())
    np.testing.assert_array_equal(first.scores, second.scores)

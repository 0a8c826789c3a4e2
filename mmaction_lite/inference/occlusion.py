"""Occlusion: the drop of a class's logit when a part of a clip is hidden (Zeiler, Fergus, arXiv:1311.2901).

A part is hidden either by the mean color of the training data, which is 0 after normalization, or by the
neighboring frame. The mean color removes what the part shows, but networks may respond to the flash. The
neighboring frame removes motion only.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Fill = Literal["mean", "neighbor"]
Logit = Callable[[Tensor], Tensor]
"""Maps normalized clips (B, C, T, H, W) to the logit of the explained class, (B,)."""

TIME_PARTS = 8  # windows of time are an eighth of the clip
PATCH_PARTS = 4  # patches are a quarter of the frame on each side, and move by half of that
Part = tuple[slice, slice, slice]
"""Frames, rows and columns of a clip."""


@torch.no_grad()
def time_drops(logit: Logit, inputs: Tensor, fill: Fill, chunk_views: int) -> np.ndarray:
    """Return the drop of the logit for every frame of a clip when frames around it are hidden.

    A window of an eighth of the clip, at least one frame, moves by half of its length. The drop of a frame is
    the mean over the windows that contain it.

    Args:
        logit: the network.
        inputs: one normalized clip, float (1, C, T, H, W).
        fill: what replaces the window.
        chunk_views: largest batch of the network.

    Returns:
        float32 (T,): logit of the clip minus logit of the occluded clip. Below 0, the window speaks against
        the class.
    """
    num_frames = inputs.shape[2]
    length = max(1, num_frames // TIME_PARTS)
    parts = [(part, slice(None), slice(None)) for part in _windows(num_frames, length, max(1, length // 2))]
    return _mean_drops(logit, inputs, parts, fill, chunk_views).mean((1, 2))


@torch.no_grad()
def space_time_drops(logit: Logit, inputs: Tensor, fill: Fill, chunk_views: int) -> np.ndarray:
    """Return the drop of the logit for every pixel of a clip when a block of frames and pixels is hidden.

    Blocks are an eighth of the clip in time and a quarter of the frame in height and in width. They move by
    their length in time and by half of their side in space. A clip of 8 frames takes 392 forward passes.

    Args:
        logit: the network.
        inputs: one normalized clip, float (1, C, T, H, W).
        fill: what replaces the block.
        chunk_views: largest batch of the network.

    Returns:
        float32 (T, H, W), the mean over the blocks that contain a pixel.
    """
    num_frames, height, width = inputs.shape[2:]
    frames = max(1, num_frames // TIME_PARTS)
    rows, columns = (
        list(_windows(side, max(1, side // PATCH_PARTS), max(1, side // PATCH_PARTS // 2)))
        for side in (height, width)
    )
    parts = list(product(_windows(num_frames, frames, frames), rows, columns))
    return _mean_drops(logit, inputs, parts, fill, chunk_views)


def occlude(inputs: Tensor, part: Part, fill: Fill) -> Tensor:
    """Return a copy of a clip (1, C, T, H, W) with one part hidden; see `Fill`."""
    frames, rows, columns = part
    hidden = inputs.clone()
    first, end, _ = frames.indices(inputs.shape[2])
    neighbor = first - 1 if first else end
    if fill == "mean" or neighbor >= inputs.shape[2]:
        hidden[:, :, frames, rows, columns] = 0
    else:
        hidden[:, :, frames, rows, columns] = inputs[:, :, neighbor : neighbor + 1, rows, columns]
    return hidden


def _windows(length: int, size: int, stride: int) -> Iterator[slice]:
    """Yield windows that cover a length, the last one shifted to end with it."""
    for start in range(0, length - size + stride, stride):
        start = min(start, length - size)
        yield slice(start, start + size)


def _mean_drops(logit: Logit, inputs: Tensor, parts: list[Part], fill: Fill, chunk_views: int) -> np.ndarray:
    """Return the mean drop over the parts that contain a position, float32 (T, H, W)."""
    total = np.zeros(inputs.shape[2:])
    count = np.zeros(inputs.shape[2:])
    whole = logit(inputs).double()
    for first in range(0, len(parts), chunk_views):
        some = parts[first : first + chunk_views]
        drops = whole - logit(torch.cat([occlude(inputs, part, fill) for part in some])).double()
        for part, drop in zip(some, drops.tolist(), strict=True):
            total[part] += drop
            count[part] += 1
    return (total / count).astype(np.float32)

"""Crop and resize decoded frames."""

import numpy as np
import torch
from torch.nn import functional

Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""
Size = tuple[int, int]
"""(height, width) in pixels."""


def short_side_size(size: Size, short_side: int) -> Size:
    """Return (height, width) of a frame after resizing its short side to `short_side`, rounded half up."""
    scale = short_side / min(size)
    height, width = (int(side * scale + 0.5) for side in size)
    return height, width


def crop_and_resize(
    frames: np.ndarray, box: Box | None = None, size: Size | None = None, *, antialias: bool = True
) -> np.ndarray:
    """Crop every frame to `box` and resize it to `size` bilinearly, in one pass.

    Args:
        frames: uint8 (T, H, W, C).
        box: (top, left, height, width) in pixels of the frame; None for the whole frame.
        size: (height, width) of the result; None keeps the size of the box.
        antialias: widen the filter when shrinking. False equals OpenCV's linear resize, which the published
            MMAction2 and PySlowFast protocols use.

    Returns:
        uint8 (T, h, w, C).
    """
    if box is not None:
        top, left, height, width = box
        frames = frames[:, top : top + height, left : left + width]
    if size is None or size == frames.shape[1:3]:
        return frames
    # A permuted view of (T, H, W, C) is channels-last: PyTorch resizes it in uint8 without a copy.
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    resized = functional.interpolate(pixels, size=size, mode="bilinear", antialias=antialias)
    return resized.permute(0, 2, 3, 1).contiguous().numpy()

"""Crop and resize decoded frames."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

Box = tuple[int, int, int, int]
"""(top, left, height, width) in pixels."""
Size = tuple[int, int]
"""(height, width) in pixels."""
Interpolation = Literal["bilinear", "bicubic"]
"""Filter that resizes frames."""

# Frames are resized in groups, in a third of the time; the groups are small enough for the processor's cache.
GROUP_BYTES = 2**20


def short_side_size(size: Size, short_side: int) -> Size:
    """Return (height, width) of a frame after resizing its short side to `short_side`, rounded half up."""
    scale = short_side / min(size)
    height, width = (int(side * scale + 0.5) for side in size)
    return height, width


def crop_and_resize(
    frames: np.ndarray,
    box: Box | None = None,
    size: Size | None = None,
    *,
    antialias: bool = True,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """Crop every frame to `box` and resize it to `size`, in one pass.

    Args:
        frames: uint8 (T, H, W, C).
        box: (top, left, height, width) in pixels of the frame; None for the whole frame.
        size: (height, width) of the result; None keeps the size of the box.
        antialias: widen the filter when shrinking. False equals OpenCV's linear resize, which the published
            MMAction2 and PySlowFast protocols use.
        interpolation: "bilinear", or "bicubic": cubic convolution (Keys 1981) with the parameter -0.5, as in
            Pillow, if `antialias`, else -0.75, as in OpenCV.

    Returns:
        uint8 (T, h, w, C).
    """
    if box is not None:
        top, left, height, width = box
        frames = frames[:, top : top + height, left : left + width]
    if size is None or size == frames.shape[1:3]:
        return frames
    import torch  # after the return: processes that only decode do without it
    from torch.nn import functional

    # A permuted view of (T, H, W, C) is channels-last: PyTorch resizes it in uint8 without a copy.
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    resized = functional.interpolate(pixels, size=size, mode=interpolation, antialias=antialias)
    return resized.permute(0, 2, 3, 1).contiguous().numpy()


def check_box(box: Box, size: Size) -> None:
    """Raise ValueError unless `box` lies inside a frame of `size`."""
    top, left, height, width = box
    if not (0 <= top < top + height <= size[0] and 0 <= left < left + width <= size[1]):
        raise ValueError(f"box (top, left, height, width) {box} is outside the {size[0]}x{size[1]} frame")


def collect(
    decoded: Iterable[tuple[int, np.ndarray]],
    indices: np.ndarray,
    box: Box | None,
    size: Size | None,
    *,
    antialias: bool,
    interpolation: Interpolation,
) -> np.ndarray:
    """Crop and resize decoded frames one after the other, and copy each to its places in `indices`.

    Args:
        decoded: pairs of every distinct index and its uint8 (H, W, 3) frame, in any order.
        indices: int (n,).
        box, size, antialias, interpolation: see `crop_and_resize`.

    Returns:
        uint8 (n, h, w, 3).
    """
    if not len(indices):
        raise ValueError("indices: no frame requested; expected at least one index")
    result = group = None
    waiting: list[int] = []

    def resize_group() -> None:
        nonlocal result
        if group is None or not waiting:
            return
        part = group[: len(waiting)]
        resized = crop_and_resize(part, None, size, antialias=antialias, interpolation=interpolation)
        if result is None:
            result = np.empty((len(indices), *resized.shape[1:]), np.uint8)
        for index, pixels in zip(waiting, resized, strict=True):
            result[indices == index] = pixels
        waiting.clear()

    for index, frame in decoded:
        height, width = frame.shape[:2]
        top, left, h, w = box or (0, 0, height, width)
        check_box((top, left, h, w), (height, width))
        cut = frame[top : top + h, left : left + w]
        if size is None or size == (h, w):
            if result is None:
                result = np.empty((len(indices), h, w, cut.shape[2]), np.uint8)
            result[indices == index] = cut
            continue
        if group is None:
            group = np.empty((max(1, GROUP_BYTES // cut.nbytes), *cut.shape), np.uint8)
        group[len(waiting)] = cut
        waiting.append(index)
        if len(waiting) == len(group):
            resize_group()
    resize_group()
    assert result is not None
    return result

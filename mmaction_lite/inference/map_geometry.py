"""Resample maps: from the cells of a feature map to the frames of a clip, and to the frames of the video."""

from typing import Literal

import numpy as np

from mmaction_lite.data.sources.resample import Box, Size

Alignment = Literal["first", "center"]
"""Position of the cells of a feature map in its input, along each axis.

"first": cell i is at position i · stride. This is the center of the receptive field of networks whose
convolutions have odd kernels and "same" padding, such as those of this package. "center": cell i is at the
middle of the i-th of equal parts of the input.
"""

FrameBox = tuple[float, float, float, float]
"""(top, left, height, width) in pixels of a frame of the video, which may be fractions."""


def cell_positions(num_cells: int, length: int, alignment: Alignment) -> np.ndarray:
    """Return the positions of the cells of a feature map along one axis of the input, float64 (num_cells,).

    Args:
        num_cells: cells along this axis.
        length: positions of the input along this axis: pixels or frames.
        alignment: see `Alignment`. "first" needs a stride that is a power of two; otherwise "center" is used.
    """
    if alignment == "first":
        for exponent in range(length.bit_length() + 1):
            stride = 1 << exponent
            if num_cells in (-(-length // stride), length // stride):
                return np.arange(num_cells) * float(stride)
    return (np.arange(num_cells) + 0.5) * (length / num_cells) - 0.5


def interpolation_matrix(positions: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the weights of linear interpolation, float32 (len(at), len(positions)).

    Outside of the positions, the value of the first or the last one counts.

    Args:
        positions: ascending positions of the known values, (n,).
        at: positions of the wanted values, (m,).
    """
    columns = [np.interp(at, positions, values) for values in np.eye(len(positions))]
    return np.stack(columns, 1).astype(np.float32)


def resize_cells(
    cells: np.ndarray, frames: np.ndarray, shape: tuple[int, int, int], alignment: Alignment
) -> np.ndarray:
    """Resample the cells of a feature map to the frames and pixels of a clip, linearly.

    Args:
        cells: (T', h', w').
        frames: positions of the T' cells in the clip, in frames.
        shape: (T, h, w) of the clip.
        alignment: of the cells in space.

    Returns:
        float32 (T, h, w).
    """
    num_frames, height, width = shape
    time = interpolation_matrix(frames, np.arange(num_frames))
    rows, columns = (
        interpolation_matrix(cell_positions(count, length, alignment), np.arange(length))
        for count, length in zip(cells.shape[1:], (height, width), strict=True)
    )
    return np.einsum("ta,yb,xc,abc->tyx", time, rows, columns, cells, optimize=True).astype(np.float32)


def view_box(frame_size: Size, resized_size: Size, box: Box) -> FrameBox:
    """Return the box of a view in pixels of the frames of the video.

    Args:
        frame_size: (height, width) of a frame.
        resized_size: (height, width) to which whole frames are resized before the crop.
        box: (top, left, height, width) of the crop, in pixels of the resized frame.
    """
    down, across = (whole / resized for whole, resized in zip(frame_size, resized_size, strict=True))
    return box[0] * down, box[1] * across, box[2] * down, box[3] * across


def place_in_frame(map_: np.ndarray, box: FrameBox, frame_size: Size) -> np.ndarray:
    """Resample the map of a view to a frame of the video; pixels that the view does not show are 0.

    Args:
        map_: float (h, w).
        box: position of the view in the frame.
        frame_size: (height, width) of the frame.

    Returns:
        float32 (height, width).
    """
    matrices = []
    for start, length, whole, count in zip(box[:2], box[2:], frame_size, map_.shape, strict=True):
        inside = (np.arange(whole) + 0.5 - start) / length  # 0 at the first edge of the view, 1 at the last
        matrix = interpolation_matrix(np.arange(count), inside * count - 0.5)
        matrix[(inside < 0) | (inside >= 1)] = 0
        matrices.append(matrix)
    rows, columns = matrices
    return rows @ map_.astype(np.float32) @ columns.T

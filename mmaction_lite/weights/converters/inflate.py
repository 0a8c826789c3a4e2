"""Inflation of 2-D convolution weights to 3-D."""

from collections.abc import Sequence

from torch import Tensor


def inflate(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat a 2-D weight along time and divide it by the number of frames.

    For a clip of identical frames the output is that of the 2-D convolution, except at the ends of the clip
    (Carreira and Zisserman, arXiv:1705.07750, section 2.4).

    Args:
        weight: (O, I, h, w).
        shape: (O, I, t, h, w), of the result.

    Returns:
        The 3-D weight.
    """
    frames = shape[2]
    return weight.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames

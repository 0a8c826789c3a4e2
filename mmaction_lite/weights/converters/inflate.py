"""Image weights in networks over space and time."""

from collections.abc import Sequence

from torch import Tensor


def inflate(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat a (O, I, h, w) weight along time and divide it by the number of frames.

    A clip that shows one picture all the time then gives the image network's features, except at its ends
    (Carreira and Zisserman, arXiv:1705.07750, section 2.4).

    Args:
        weight: (O, I, h, w).
        shape: (O, I, t, h, w), that of the weight wanted.
    """
    frames = shape[2]
    return weight.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames

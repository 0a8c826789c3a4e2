"""Convert uint8 pixels to normalized model inputs."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mmaction_lite.settings import PositiveFloat, check_fields


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Subtract `mean` from pixels and divide by `std`.

    Args:
        mean: one value per RGB channel, in units of 0 to 255.
        std: one value per RGB channel, in units of 0 to 255.
    """

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (58.395, 57.12, 57.375)

    def __post_init__(self):
        check_fields(self)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Map uint8 (N, T, H, W, C) to float32 (N, C, T, H, W), on the device of `pixels`.

        The result keeps the memory layout of the pixels, which is channels-last, so that cast, scaling and
        layout are one pass.
        """
        mean, scale = _mean_and_scale(self.mean, self.std, pixels.device)
        return ((pixels.float() - mean) * scale).permute(0, 4, 1, 2, 3)


@cache
@torch.inference_mode(False)
def _mean_and_scale(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return `mean` and 1 / `std` on the device. Cached: a copy in each step would synchronize the device."""
    return torch.tensor(mean, device=device), 1 / torch.tensor(std, device=device)


PYSLOWFAST = Normalize(mean=(114.75, 114.75, 114.75), std=(57.375, 57.375, 57.375))
"""Statistics of PySlowFast, PyTorchVideo and UniFormerV2: 0.45 and 0.225 for pixels in [0, 1]."""

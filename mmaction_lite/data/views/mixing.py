"""Mixup and cutmix: training inputs blended in pairs, on the device, after normalisation."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Blends every clip of a batch with another one, and their targets alike.

    Mixup (Zhang et al. 2018, arXiv:1710.09412) adds the two with weights λ and 1 - λ; cutmix (Yun et al.
    2019, arXiv:1905.04899) puts a box of the one, in all frames, into the other, and λ is the share of
    the area that is left. λ comes from a beta distribution with both parameters alpha, once for a batch.
    Where both are on, each is chosen half of the time.

    Partners are neighbours: clips 0 and 1, 2 and 3 … The order of a training is shuffled, so this is as
    random as drawing partners, and it does not depend on how the batch is divided over processes or
    accumulation, as long as every part holds an even number of clips; the last of an odd number is
    blended with the first.

    Args:
        mixup_alpha: 0 switches mixup off.
        cutmix_alpha: 0 switches cutmix off.
        probability: of a batch being mixed at all.
    """

    mixup_alpha: float = 0.8
    cutmix_alpha: float = 1.0
    probability: float = 1.0

    def __post_init__(self):
        if min(self.mixup_alpha, self.cutmix_alpha) < 0 or max(self.mixup_alpha, self.cutmix_alpha) == 0:
            raise UserError(
                f"Mixing: mixup_alpha is {self.mixup_alpha} and cutmix_alpha is {self.cutmix_alpha}; "
                "expected 0 or more, and one of them above 0"
            )
        if not 0 <= self.probability <= 1:
            raise UserError(f"Mixing: probability is {self.probability}; expected a probability")

    def __call__(
        self, inputs: Tensor, targets: Tensor, rng: np.random.Generator, *, num_views: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Mixed inputs and targets; the arguments are not changed.

        Args:
            inputs: float (B, C, T, H, W), normalised, on any device.
            targets: float (B, K), shares of the classes.
            rng: for one step of the training: its parts, handed equal generators, are mixed alike.
            num_views: views of each video, which lie together in B: partners come from different videos.

        Returns:
            inputs and targets of the same shapes, types and devices.
        """
        use_cutmix = rng.random() < 0.5 if self.mixup_alpha and self.cutmix_alpha else self.cutmix_alpha > 0
        alpha = self.cutmix_alpha if use_cutmix else self.mixup_alpha
        share = float(rng.beta(alpha, alpha))
        height, width = inputs.shape[3:]
        middle = rng.integers(height), rng.integers(width)
        if rng.random() >= self.probability:
            return inputs, targets
        partners = _neighbours(len(inputs), num_views).to(inputs.device)
        if use_cutmix:
            # The box has 1 - λ of the area, except where it lies over the border.
            h, w = (int(side * math.sqrt(1 - share)) for side in (height, width))
            top, left = max(0, int(middle[0]) - h // 2), max(0, int(middle[1]) - w // 2)
            bottom, right = min(height, int(middle[0]) + h - h // 2), min(width, int(middle[1]) + w - w // 2)
            share = 1 - (bottom - top) * (right - left) / (height * width)
            mixed = inputs.clone()
            mixed[..., top:bottom, left:right] = inputs[..., top:bottom, left:right][partners]
        else:
            mixed = inputs.lerp(inputs[partners], 1 - share)
        return mixed, targets.lerp(targets[partners], 1 - share)


def _neighbours(num_inputs: int, num_views: int) -> Tensor:
    """For each input the number of the one it is blended with, int64 (B,)."""
    numbers = torch.arange(num_inputs).view(-1, num_views)
    videos = torch.arange(len(numbers)) ^ 1
    videos[videos == len(numbers)] = 0
    return numbers[videos].flatten()

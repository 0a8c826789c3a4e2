"""Mixup and CutMix of training inputs, on the device, after normalization."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.settings import NonNegativeFloat, Probability, check_fields


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mix every clip of a batch with another clip, and their targets in the same proportion.

    Mixup (Zhang et al. 2018, arXiv:1710.09412) adds the two clips with weights λ and 1 - λ. CutMix (Yun et
    al. 2019, arXiv:1905.04899) pastes a box of one clip into all frames of the other; λ is the fraction of
    the area that remains. λ is drawn from Beta(alpha, alpha) once per batch. If both are enabled, each batch
    uses one of them with equal probability.

    Clips are mixed with their neighbor: 0 with 1, 2 with 3, and so on. The order of a training is shuffled,
    so this is as random as drawing partners. The result does not depend on how the batch is divided over
    processes and accumulation steps, provided that every part has an even number of clips. The last of an
    odd number of clips is mixed with the first.

    Args:
        mixup_alpha: parameter of mixup; 0 disables mixup.
        cutmix_alpha: parameter of CutMix; 0 disables CutMix.
        probability: probability of mixing a batch.
    """

    mixup_alpha: NonNegativeFloat = 0.8
    cutmix_alpha: NonNegativeFloat = 1.0
    probability: Probability = 1.0

    def __post_init__(self):
        check_fields(self)
        if self.mixup_alpha == self.cutmix_alpha == 0:
            raise UserError("Mixing: mixup_alpha is 0 and cutmix_alpha is 0; expected at least one above 0")

    def __call__(
        self, inputs: Tensor, targets: Tensor, rng: np.random.Generator, *, num_views: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Return mixed inputs and targets; the arguments are not modified.

        Args:
            inputs: float (B, C, T, H, W), normalized, on any device.
            targets: float (B, K), class probabilities.
            rng: generator of the training step. Parts of a batch with equal generators are mixed in the same
                way.
            num_views: consecutive inputs that are views of one video. Views are mixed with views of another
                video.

        Returns:
            inputs and targets of the same shapes, dtypes and devices.
        """
        use_cutmix = rng.random() < 0.5 if self.mixup_alpha and self.cutmix_alpha else self.cutmix_alpha > 0
        alpha = self.cutmix_alpha if use_cutmix else self.mixup_alpha
        lam = float(rng.beta(alpha, alpha))
        height, width = inputs.shape[3:]
        middle = rng.integers(height), rng.integers(width)
        if rng.random() >= self.probability:
            return inputs, targets
        partners = _neighbors(len(inputs), num_views).to(inputs.device)
        if use_cutmix:
            # The area of the box is 1 - λ of the frame, less where the border cuts it.
            h, w = (int(side * math.sqrt(1 - lam)) for side in (height, width))
            top, left = max(0, int(middle[0]) - h // 2), max(0, int(middle[1]) - w // 2)
            bottom, right = min(height, int(middle[0]) + h - h // 2), min(width, int(middle[1]) + w - w // 2)
            lam = 1 - (bottom - top) * (right - left) / (height * width)
            mixed = inputs.clone()
            mixed[..., top:bottom, left:right] = inputs[..., top:bottom, left:right][partners]
        else:
            mixed = inputs.lerp(inputs[partners], 1 - lam)
        return mixed, targets.lerp(targets[partners], 1 - lam)


def _neighbors(num_inputs: int, num_views: int) -> Tensor:
    """Return the index of the partner of each input, int64 (B,)."""
    numbers = torch.arange(num_inputs).view(-1, num_views)
    videos = torch.arange(len(numbers)) ^ 1
    videos[videos == len(numbers)] = 0
    return numbers[videos].flatten()

"""Learning-rate schedules: the factor of the learning rate as a function of the epoch."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Annotated

from mmaction_lite.settings import (
    ASCENDING,
    NonNegativeFloat,
    NonNegativeInt,
    at_least,
    below,
    check_fields,
)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Multiply the learning rate by `gamma` at each milestone, after an optional linear warm-up.

    Args:
        milestones: epochs.
        gamma: factor applied at each milestone.
        warmup_epochs: length of the warm-up; 0 disables it.
        warmup_start: factor at the beginning of the warm-up.
        linear: increase the factor at every step, up to 1 at epoch `warmup_epochs`. By default it increases
            at every epoch, up to 1 in the last epoch of the warm-up.
    """

    milestones: Annotated[tuple[NonNegativeInt, ...], ASCENDING]
    gamma: NonNegativeFloat = 0.1
    warmup_epochs: NonNegativeInt = 0
    warmup_start: NonNegativeFloat = 0.1
    linear: bool = False

    def __post_init__(self):
        check_fields(self)

    def factor(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at `epoch` (fractional, from 0) of `epochs`."""
        decay = self.gamma ** bisect_right(self.milestones, epoch)
        if not self.warmup_epochs:
            return decay
        by_epoch = int(epoch) / max(1, self.warmup_epochs - 1)
        rise = min(1.0, epoch / self.warmup_epochs if self.linear else by_epoch)
        return decay * (self.warmup_start + (1 - self.warmup_start) * rise)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Decrease the factor from 1 to 0 along half a cosine, after an optional warm-up (arXiv:1608.03983).

    Args:
        warmup_epochs: length of the warm-up, which increases at every step; 0 disables it.
        warmup_start: factor at the first step.
        begin: epoch at which the cosine begins; the factor is 1 before.
        linear: increase linearly to the value of the cosine at epoch `warmup_epochs`. By default the
            warm-up is a factor of the cosine and increases to 1.
    """

    warmup_epochs: NonNegativeFloat = 0
    warmup_start: NonNegativeFloat = 0.1
    begin: NonNegativeInt = 0
    linear: bool = False

    def __post_init__(self):
        check_fields(self)

    def factor(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at `epoch` (fractional, from 0) of `epochs`."""
        rise = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
        if self.linear and rise < 1:
            return self.warmup_start + (self._cosine(self.warmup_epochs, epochs) - self.warmup_start) * rise
        return (self.warmup_start + (1 - self.warmup_start) * rise) * self._cosine(epoch, epochs)

    def _cosine(self, epoch: float, epochs: int) -> float:
        if epoch <= self.begin:  # also if the training ends before the cosine begins
            return 1.0
        return (1 + math.cos(math.pi * (epoch - self.begin) / (epochs - self.begin))) / 2


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    """Increase the factor linearly to 1, then decrease it along half a cosine over the remaining epochs.

    Args:
        warmup_epochs: length of the warm-up, which increases at every step; 0 disables it.
        start: factor at the first step of the warm-up.
        end: factor at the end of the training.
    """

    warmup_epochs: NonNegativeInt = 0
    start: NonNegativeFloat = 0.0
    end: NonNegativeFloat = 0.0

    def __post_init__(self):
        check_fields(self)

    def factor(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at `epoch` (fractional, from 0) of `epochs`."""
        if epoch < self.warmup_epochs:
            return self.start + (1 - self.start) * epoch / self.warmup_epochs
        part = (epoch - self.warmup_epochs) / max(1, epochs - self.warmup_epochs)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * part)) / 2


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Increase the factor to 1, then decrease it, both along half a cosine (arXiv:1708.07120).

    Args:
        rise: share of the training in which the factor increases.
        start: factor at the first step.
        end: factor at the last step.
    """

    rise: Annotated[float, at_least(0), below(1)] = 0.25
    start: NonNegativeFloat = 0.04
    end: NonNegativeFloat = 1e-5

    def __post_init__(self):
        check_fields(self)

    def factor(self, epoch: float, epochs: int) -> float:
        """Return the factor of the learning rate at `epoch` (fractional, from 0) of `epochs`."""
        done = epoch / epochs
        if done < self.rise:
            low, high, part = self.start, 1.0, done / self.rise
        else:
            low, high, part = 1.0, self.end, (done - self.rise) / (1 - self.rise)
        return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


Schedule = Steps | Cosine | WarmupCosine | OneCycle

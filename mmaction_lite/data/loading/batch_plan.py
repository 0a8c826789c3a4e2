"""Batch plan of a training: epoch, draws and clip shape of each step.

Usually all steps are alike. Multigrid training (Wu et al. 2020, arXiv:1912.00998) starts with large batches
of short, small clips and ends with small batches of long, large clips. All steps cost about the same, and
fewer of them process the same number of clips. `recipes.multigrid` converts a recipe with a stepwise
schedule.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Annotated, NamedTuple

import numpy as np

from mmaction_lite.data.views.crops import MultiScaleCrop, RandomResizedCrop, ScaleJitterCrop
from mmaction_lite.data.views.samplers import DenseClips, PySlowFastClips
from mmaction_lite.data.views.views import TrainViews
from mmaction_lite.errors import UserError
from mmaction_lite.settings import NOT_EMPTY, PositiveInt, check_fields


class Shape(NamedTuple):
    """Shape of a training view: number of frames, and short side in pixels."""

    clip_len: int
    side: int


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Consecutive epochs with the same batch size and clip shape.

    Args:
        epochs: number of epochs.
        batch: batch size divided by the recipe's `batch_size`; the learning rate is multiplied by it.
        clip_len: frames per clip.
        side: short side of a view, in pixels.
    """

    epochs: PositiveInt
    batch: PositiveInt
    clip_len: PositiveInt
    side: PositiveInt

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Multigrid:
    """Batch sizes and clip shapes of multigrid training.

    Args:
        phases: the long cycle, from the first epoch to the last.
        short_sides: the short cycle: one step with views of each of these short sides, then one with that of
            the phase, repeatedly. For smaller views the batch grows by the ratio of the numbers of pixels,
            rounded; the learning rate stays. Empty: no short cycle.
    """

    phases: Annotated[tuple[Phase, ...], NOT_EMPTY]
    short_sides: tuple[PositiveInt, ...] = ()

    def __post_init__(self):
        check_fields(self)
        smallest = min(phase.side for phase in self.phases)
        if any(side > smallest for side in self.short_sides):
            raise UserError(
                f"Multigrid: short_sides is {self.short_sides}; expected at most {smallest}, the smallest "
                "side of the phases"
            )

    @property
    def num_shapes(self) -> int:
        """Largest number of different batch shapes."""
        return len(self.phases) * (len(self.short_sides) + 1)

    @staticmethod
    def check_views(views: TrainViews) -> None:
        """Check that clips and crops of training views can be made smaller.

        Raises:
            UserError: they cannot.
        """
        if not isinstance(views.clips, DenseClips | PySlowFastClips):
            raise UserError(
                f"multigrid: train.clips are {type(views.clips).__name__}; expected DenseClips or "
                "PySlowFastClips, whose frame interval can be widened for shorter clips"
            )
        if not isinstance(views.crop, ScaleJitterCrop | RandomResizedCrop | MultiScaleCrop):
            raise UserError(
                f"multigrid: train.crop is {type(views.crop).__name__}; expected ScaleJitterCrop, "
                "RandomResizedCrop or MultiScaleCrop, whose smaller crops show the same part of a frame"
            )

    def check(self, views: TrainViews, epochs: int) -> None:
        """Check that the phases fit the training views and the number of epochs of a recipe.

        Raises:
            UserError: they do not fit.
        """
        self.check_views(views)
        most = Shape(views.clips.clip_len, min(views.crop.size))
        for phase in self.phases:
            if phase.clip_len > most.clip_len or phase.side > most.side:
                raise UserError(
                    f"multigrid: a phase has {phase.clip_len} frames of side {phase.side}; expected at most "
                    f"the {most.clip_len} of side {most.side} of the recipe's training views"
                )
        own = sum(phase.epochs for phase in self.phases)
        if own != epochs:
            raise UserError(
                f"multigrid: its phases have {own} epochs, the recipe has {epochs}; change both together, in "
                "a recipe of your own"
            )

    def cycle(self, phase: Phase) -> tuple[tuple[int, Shape], ...]:
        """Return the steps of a short cycle: batch size divided by that of the phase, and clip shape."""
        shorter = [(round((phase.side / side) ** 2), side) for side in self.short_sides]
        return tuple((times, Shape(phase.clip_len, side)) for times, side in [*shorter, (1, phase.side)])


class StepInfo(NamedTuple):
    """Position of a step in its training.

    Args:
        epoch: number of the epoch, from 0.
        first: position of the first clip of the step in the order of the epoch.
        draw: number of its first draw.
        batch_size: clips of the step, over all processes.
        long_factor: batch size divided by the recipe's, without the short cycle.
        short_factor: factor of the batch size from the short cycle.
    """

    epoch: int
    first: int
    draw: int
    batch_size: int
    long_factor: int
    short_factor: int


class _ScheduledPhase(NamedTuple):
    """A phase, its position in the training, and its short cycle."""

    first_epoch: int
    first_step: int
    first_draw: int
    steps_per_epoch: int
    long_factor: int
    cycle: tuple[tuple[int, Shape | None], ...]
    ends: tuple[int, ...]  # cumulative number of clips over the steps of a short cycle, starting with 0

    def clips(self, steps: int) -> int:
        """Return the number of clips in the first `steps` steps of an epoch."""
        cycles, rest = divmod(steps, len(self.cycle))
        return cycles * self.ends[-1] + self.ends[rest]


class BatchPlan:
    """Position of every step and clip shape of every draw; a pure function of the arguments.

    Every epoch starts with a new short cycle and drops the clips that do not fill a batch. Draws are numbered
    over the whole training, so that the number determines the shape. The last phase has no end.

    Args:
        num_samples: number of clips in the training split.
        batch_size: clips per step, over all processes.
        multigrid: batch sizes and shapes; None: all steps have `batch_size` clips of the recipe's shape.
    """

    def __init__(self, num_samples: int, batch_size: int, multigrid: Multigrid | None = None):
        self.batch_size = batch_size
        self._phases: list[_ScheduledPhase] = []
        epoch = step = draw = 0
        for phase in (None,) if multigrid is None else multigrid.phases:
            long_factor = 1 if phase is None else phase.batch
            cycle = ((1, None),) if phase is None or multigrid is None else multigrid.cycle(phase)
            ends = tuple(accumulate((batch_size * long_factor * times for times, _ in cycle), initial=0))
            cycles, rest = divmod(num_samples, ends[-1])
            steps_per_epoch = cycles * len(cycle) + bisect_right(ends, rest) - 1
            scheduled = _ScheduledPhase(epoch, step, draw, steps_per_epoch, long_factor, cycle, ends)
            self._phases.append(scheduled)
            if phase is not None:
                epoch += phase.epochs
                step += phase.epochs * steps_per_epoch
                draw += phase.epochs * scheduled.clips(steps_per_epoch)

    def step_info(self, step: int) -> StepInfo:
        """Return the position of a step, numbered from 0."""
        phase = self._at_step(step)
        epochs, inside = divmod(step - phase.first_step, phase.steps_per_epoch)
        first = phase.clips(inside)
        times, _ = phase.cycle[inside % len(phase.cycle)]
        return StepInfo(
            phase.first_epoch + epochs,
            first,
            phase.first_draw + epochs * phase.clips(phase.steps_per_epoch) + first,
            self.batch_size * phase.long_factor * times,
            phase.long_factor,
            times,
        )

    def epochs(self, step: int) -> float:
        """Return the number of epochs in the first `step` steps; an integer at the end of an epoch only."""
        phase = self._at_step(step)
        return phase.first_epoch + (step - phase.first_step) / phase.steps_per_epoch

    def first_step(self, epoch: int) -> int:
        """Return the number of steps in the first `epoch` epochs."""
        phase = self._phases[bisect_right(self._phases, epoch, key=lambda p: p.first_epoch) - 1]
        return phase.first_step + (epoch - phase.first_epoch) * phase.steps_per_epoch

    def shape(self, draw: int) -> Shape | None:
        """Return the shape of the views of a draw; None: that of the recipe."""
        phase = self._phases[bisect_right(self._phases, draw, key=lambda p: p.first_draw) - 1]
        inside = (draw - phase.first_draw) % phase.clips(phase.steps_per_epoch)
        return phase.cycle[bisect_right(phase.ends, inside % phase.ends[-1]) - 1][1]

    @property
    def batches(self) -> set[tuple[int, Shape | None]]:
        """All batch sizes and shapes that occur."""
        return {
            (self.batch_size * phase.long_factor * times, shape)
            for phase in self._phases
            for times, shape in phase.cycle
        }

    def _at_step(self, step: int) -> _ScheduledPhase:
        return self._phases[bisect_right(self._phases, step, key=lambda p: p.first_step) - 1]


def reshape_views(
    views: TrainViews, shape: Shape | None, rng: np.random.Generator | None = None
) -> TrainViews:
    """Return training views with clips and crops of `shape`, as in multigrid training (section 3.1).

    A shorter clip has a random integer frame interval, from that of `views` up to the one with which it spans
    the same time. If `views` jitter the short side, the smallest length shrinks with the crop and the largest
    one stays, so that a crop shows the same part of a frame or less. Both as in PySlowFast.

    Args:
        views: training views that `Multigrid.check` accepts.
        shape: not larger than that of `views`; None: that of `views`.
        rng: draws the frame interval; None keeps that of `views`.
    """
    clips, crop = views.clips, views.crop
    if shape is None or not isinstance(clips, DenseClips | PySlowFastClips):
        return views
    interval, widest = clips.frame_interval, clips.frame_interval * (clips.clip_len // shape.clip_len)
    if rng is not None and widest > interval:
        interval = int(rng.integers(interval, widest + 1))
    scale = shape.side / min(crop.size)
    height, width = (round(length * scale) for length in crop.size)
    crop = replace(crop, size=(height, width))
    if isinstance(crop, ScaleJitterCrop):
        shortest, longest = crop.short_side
        crop = replace(crop, short_side=(round(shortest * scale), longest))
    return replace(views, clips=replace(clips, clip_len=shape.clip_len, frame_interval=interval), crop=crop)

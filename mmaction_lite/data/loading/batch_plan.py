"""The course of a training: which epoch, which draws and which shape of clips each of its steps has.

In most trainings all steps are alike. A multigrid training (Wu et al. 2020, arXiv:1912.00998) begins with
many clips of few frames and pixels and ends with few clips of many: steps that cost as much, but fewer for
as many clips. `recipes.multigrid` makes one of a training whose lr falls in steps.
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
    """Of a training view: its frames, and its short side in pixels."""

    clip_len: int
    side: int


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Epochs with one shape of batches.

    Args:
        epochs: how many.
        batch: clips of a step, in the recipe's `batch_size`; the lr is as many times the schedule's.
        clip_len: frames of a clip.
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
    """The shapes of a multigrid training.

    Args:
        phases: the long cycle, from the first epoch to the last.
        short_sides: the short cycle: a step with views of each of these short sides, then one with the
            phase's own, over and over. Smaller views come in a batch that is larger by the ratio of their
            pixels, rounded; the lr stays. Empty for none.
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
        """Whether clips and crops of training views can be made smaller.

        Raises:
            UserError: they cannot.
        """
        if not isinstance(views.clips, DenseClips | PySlowFastClips):
            raise UserError(
                f"multigrid widens the frame interval of shorter clips, and train.clips are "
                f"{type(views.clips).__name__}; expected DenseClips or PySlowFastClips"
            )
        if not isinstance(views.crop, ScaleJitterCrop | RandomResizedCrop | MultiScaleCrop):
            raise UserError(
                f"multigrid: train.crop is {type(views.crop).__name__}, and smaller ones would see less of "
                "the picture; expected ScaleJitterCrop, RandomResizedCrop or MultiScaleCrop"
            )

    def check(self, views: TrainViews, epochs: int) -> None:
        """Whether it goes with the training views and epochs of a recipe.

        Raises:
            UserError: it does not.
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
        """The steps of a short cycle: how many times larger than the phase's the batch is, and the shape."""
        shorter = [(round((phase.side / side) ** 2), side) for side in self.short_sides]
        return tuple((times, Shape(phase.clip_len, side)) for times, side in [*shorter, (1, phase.side)])


class StepInfo(NamedTuple):
    """Where a step stands in its training.

    Args:
        epoch: counted from 0.
        first: position of its first clip in the order of the epoch.
        draw: number of its first draw.
        batch_size: its clips, over all processes.
        long_factor: that in units of the recipe's, but for the short cycle.
        short_factor: how many times more it is by the short cycle.
    """

    epoch: int
    first: int
    draw: int
    batch_size: int
    long_factor: int
    short_factor: int


class _ScheduledPhase(NamedTuple):
    """Epochs with one shape, and where they begin."""

    first_epoch: int
    first_step: int
    first_draw: int
    steps_per_epoch: int
    long_factor: int
    cycle: tuple[tuple[int, Shape | None], ...]
    ends: tuple[int, ...]  # clips of a short cycle up to each of its steps, from 0 to all

    def clips(self, steps: int) -> int:
        """How many clips so many steps from an epoch's start take."""
        cycles, rest = divmod(steps, len(self.cycle))
        return cycles * self.ends[-1] + self.ends[rest]


class BatchPlan:
    """Every step's place and every draw's shape: a pure function of the arguments.

    Every epoch begins with a new short cycle and drops the clips that do not fill a batch. Draws are counted
    over the whole training, so that the number of one tells its shape. The last shape goes on without end.

    Args:
        num_samples: clips of the training split.
        batch_size: clips of a step, over all processes.
        multigrid: their shapes; None for those of the recipe.
    """

    def __init__(self, num_samples: int, batch_size: int, multigrid: Multigrid | None = None):
        self.batch_size = batch_size
        self._stretches: list[_ScheduledPhase] = []
        epoch = step = draw = 0
        for phase in (None,) if multigrid is None else multigrid.phases:
            long_factor = 1 if phase is None else phase.batch
            cycle = ((1, None),) if phase is None or multigrid is None else multigrid.cycle(phase)
            ends = tuple(accumulate((batch_size * long_factor * times for times, _ in cycle), initial=0))
            cycles, rest = divmod(num_samples, ends[-1])
            steps_per_epoch = cycles * len(cycle) + bisect_right(ends, rest) - 1
            stretch = _ScheduledPhase(epoch, step, draw, steps_per_epoch, long_factor, cycle, ends)
            self._stretches.append(stretch)
            if phase is not None:
                epoch += phase.epochs
                step += phase.epochs * steps_per_epoch
                draw += phase.epochs * stretch.clips(steps_per_epoch)

    def place(self, step: int) -> StepInfo:
        """Where `step` stands, counted from 0."""
        stretch = self._at_step(step)
        epochs, inside = divmod(step - stretch.first_step, stretch.steps_per_epoch)
        first = stretch.clips(inside)
        times, _ = stretch.cycle[inside % len(stretch.cycle)]
        return StepInfo(
            stretch.first_epoch + epochs,
            first,
            stretch.first_draw + epochs * stretch.clips(stretch.steps_per_epoch) + first,
            self.batch_size * stretch.long_factor * times,
            stretch.long_factor,
            times,
        )

    def epochs(self, step: int) -> float:
        """How many epochs `step` steps are: a whole number exactly where an epoch ends."""
        stretch = self._at_step(step)
        return stretch.first_epoch + (step - stretch.first_step) / stretch.steps_per_epoch

    def first_step(self, epoch: int) -> int:
        """How many steps `epoch` epochs have."""
        stretch = self._stretches[bisect_right(self._stretches, epoch, key=lambda s: s.first_epoch) - 1]
        return stretch.first_step + (epoch - stretch.first_epoch) * stretch.steps_per_epoch

    def shape(self, draw: int) -> Shape | None:
        """The shape of the views of a draw; None for that of the recipe."""
        stretch = self._stretches[bisect_right(self._stretches, draw, key=lambda s: s.first_draw) - 1]
        inside = (draw - stretch.first_draw) % stretch.clips(stretch.steps_per_epoch)
        return stretch.cycle[bisect_right(stretch.ends, inside % stretch.ends[-1]) - 1][1]

    @property
    def batches(self) -> set[tuple[int, Shape | None]]:
        """Every size and shape of a batch that occurs."""
        return {
            (self.batch_size * stretch.long_factor * times, shape)
            for stretch in self._stretches
            for times, shape in stretch.cycle
        }

    def _at_step(self, step: int) -> _ScheduledPhase:
        return self._stretches[bisect_right(self._stretches, step, key=lambda s: s.first_step) - 1]


def reshaped(views: TrainViews, shape: Shape | None, rng: np.random.Generator | None = None) -> TrainViews:
    """`views` with clips and crops of `shape`, as multigrid training samples them (section 3.1).

    A clip of fewer frames has any whole interval from that of `views` up to the one with which it spans as
    much as theirs. Where `views` jitter the short side, its smallest length shrinks with the crop and its
    largest does not, so that the crop shows as much of the picture as theirs, or less. Both as in PySlowFast.

    Args:
        views: training views that `Multigrid.check` accepts.
        shape: no larger than theirs; None for theirs.
        rng: draws the interval; None keeps that of `views`.
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

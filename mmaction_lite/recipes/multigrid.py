"""From a training whose lr falls in steps to the same by multigrid (Wu et al. 2020, arXiv:1912.00998)."""

from dataclasses import replace
from itertools import pairwise

from mmaction_lite.data.loading.batch_plan import Multigrid, Phase
from mmaction_lite.errors import UserError
from mmaction_lite.optim import Steps
from mmaction_lite.recipes.recipe import Recipe

HALF = 0.5**0.5  # of a side, for half as many pixels
LONG_CYCLE = ((0.25, HALF), (0.5, HALF), (0.5, 1.0), (1.0, 1.0))  # of the frames and of the side
SHORT_CYCLE = (0.5, HALF)  # of the side
NORM_CLIPS = 8


def multigrid(recipe: Recipe, epoch_factor: float = 1.5) -> Recipe:
    """The training of `recipe` by multigrid, scheduled as PySlowFast does (slowfast/utils/multigrid.py).

    * Until the last milestone every stretch of constant lr goes through the four shapes of the long cycle,
      each for as many steps; what comes after has the recipe's own shape, and `gamma` times the lr in its
      second half.
    * All epochs together are `epoch_factor` times those of the recipe, in about 0.3 times the steps.
    * lr is multiplied with the batch of the long cycle; the warm-up begins where it did.
    * Batch normalisation takes 8 clips together, and k times as many where the short cycle makes the batch k
      times larger (`norm_clips`).

    Args:
        recipe: its schedule is `Steps` with milestones.
        epoch_factor: the published trainings have 1.5 times the epochs of those they are compared to.

    Raises:
        UserError: another schedule, too few epochs, or views that `Multigrid` cannot reshape.
    """
    if recipe.multigrid is not None:
        raise UserError(f"multigrid: {recipe.name} is one already")
    schedule = recipe.schedule
    if not isinstance(schedule, Steps) or not schedule.milestones:
        raise UserError(f"multigrid: schedule is {schedule}; expected Steps with milestones")
    Multigrid.check_views(recipe.train)
    frames, side = recipe.train.clips.clip_len, min(recipe.train.crop.size)
    if frames < 4:
        raise UserError(f"multigrid: clips have {frames} frames; expected at least 4, for a quarter of them")
    short_sides = tuple(round(side * share) for share in SHORT_CYCLE)
    shapes = [(round(frames * of_frames), round(side * of_side)) for of_frames, of_side in LONG_CYCLE]
    batches = [round(frames * side**2 / (clip_len * pixels**2)) for clip_len, pixels in shapes]
    # Clips of a mean step: with as many steps in each shape, epochs are in proportion to them.
    cycles = [[round((pixels / short) ** 2) for short in short_sides] + [1] for _, pixels in shapes]
    clips = [batch * sum(cycle) / len(cycle) for batch, cycle in zip(batches, cycles, strict=True)]

    lengths: list[float] = []
    for begin, end in pairwise((0, *schedule.milestones)):
        lengths += [(end - begin) * share / sum(clips) for share in clips]
    # The last part has as many steps fewer than in the recipe as the parts before it.
    steps_left = len(LONG_CYCLE) / sum(clips)
    lengths.append((recipe.epochs - schedule.milestones[-1]) * steps_left * clips[-1])
    scale = recipe.epochs * epoch_factor / sum(lengths)
    ends = [round(sum(lengths[:number]) * scale) for number in range(len(lengths) + 1)]
    if min(end - begin for begin, end in pairwise(ends)) < 1:
        raise UserError(
            f"multigrid: {ends[-1]} epochs ({recipe.epochs} times epoch_factor {epoch_factor:g}) are too few "
            f"for {len(lengths)} phases; use more"
        )

    parts = [*zip(batches, shapes, strict=True)] * len(schedule.milestones) + [(batches[-1], shapes[-1])]
    phases = [
        Phase(epochs=end - begin, batch=batch, clip_len=clip_len, side=pixels)
        for (begin, end), (batch, (clip_len, pixels)) in zip(pairwise(ends), parts, strict=True)
    ]
    milestones = ends[len(LONG_CYCLE) :: len(LONG_CYCLE)]
    milestones[-1] = (milestones[-1] + ends[-1]) // 2
    return replace(
        recipe,
        variant="multigrid",
        multigrid=Multigrid(phases=tuple(phases), short_sides=short_sides),
        schedule=replace(
            schedule, milestones=tuple(milestones), warmup_start=schedule.warmup_start / batches[0]
        ),
        epochs=ends[-1],
        norm_clips=NORM_CLIPS,
        reported=None,
    )

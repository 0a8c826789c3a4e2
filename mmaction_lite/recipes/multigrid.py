"""Convert a training with a step schedule to multigrid training (Wu et al. 2020, arXiv:1912.00998)."""

from dataclasses import replace
from itertools import pairwise

from mmaction_lite.data.loading.batch_plan import Multigrid, Phase
from mmaction_lite.errors import UserError
from mmaction_lite.optim import Steps
from mmaction_lite.recipes.recipe import Recipe

HALF = 0.5**0.5  # factor of the side that halves the number of pixels
LONG_CYCLE = ((0.25, HALF), (0.5, HALF), (0.5, 1.0), (1.0, 1.0))  # factors of the frames and of the side
SHORT_CYCLE = (0.5, HALF)  # factors of the side
NORM_CLIPS = 8


def multigrid(recipe: Recipe, epoch_factor: float = 1.5) -> Recipe:
    """Return `recipe` as a multigrid training, with the schedule of PySlowFast (slowfast/utils/multigrid.py).

    * Between two milestones, where the learning rate is constant, the training runs through the four shapes
      of the long cycle, with the same number of steps in each. After the last milestone all clips have the
      shape of the recipe, and the learning rate is multiplied by `gamma` for the second half.
    * The training has `epoch_factor` times the epochs of the recipe, in about 0.3 times the steps.
    * The learning rate is multiplied by the factor of the batch size in the long cycle. The warm-up starts at
      the same learning rate as in the recipe.
    * Batch normalization computes its statistics over groups of 8 clips, and of 8 k clips in the steps of the
      short cycle whose batch is k times larger (`norm_clips`).

    Args:
        recipe: a recipe whose schedule is `Steps` with milestones.
        epoch_factor: factor of the number of epochs; 1.5 in the published trainings.

    Raises:
        UserError: another schedule, too few epochs, or views that `Multigrid` cannot reshape.
    """
    if recipe.multigrid is not None:
        raise UserError(
            f"multigrid: {recipe.name} is a multigrid training; expected a recipe without multigrid"
        )
    schedule = recipe.schedule
    if not isinstance(schedule, Steps) or not schedule.milestones:
        raise UserError(f"multigrid: schedule is {schedule}; expected Steps with milestones")
    Multigrid.check_views(recipe.train)
    frames, side = recipe.train.clips.clip_len, min(recipe.train.crop.size)
    if frames < 4:
        raise UserError(f"multigrid: clips have {frames} frames; expected at least 4")
    short_sides = tuple(round(side * share) for share in SHORT_CYCLE)
    shapes = [(round(frames * of_frames), round(side * of_side)) for of_frames, of_side in LONG_CYCLE]
    batches = [round(frames * side**2 / (clip_len * pixels**2)) for clip_len, pixels in shapes]
    # Mean clips per step of each shape. All shapes have the same number of steps, so epochs are proportional.
    cycles = [[round((pixels / short) ** 2) for short in short_sides] + [1] for _, pixels in shapes]
    clips = [batch * sum(cycle) / len(cycle) for batch, cycle in zip(batches, cycles, strict=True)]

    lengths: list[float] = []
    for begin, end in pairwise((0, *schedule.milestones)):
        lengths += [(end - begin) * share / sum(clips) for share in clips]
    # The last part has the same ratio of steps to those of the recipe as the parts before it.
    steps_left = len(LONG_CYCLE) / sum(clips)
    lengths.append((recipe.epochs - schedule.milestones[-1]) * steps_left * clips[-1])
    scale = recipe.epochs * epoch_factor / sum(lengths)
    ends = [round(sum(lengths[:number]) * scale) for number in range(len(lengths) + 1)]
    if min(end - begin for begin, end in pairwise(ends)) < 1:
        raise UserError(
            f"multigrid: {ends[-1]} epochs ({recipe.epochs} times epoch_factor {epoch_factor:g}) are too few "
            f"for {len(lengths)} phases; expected at least one epoch in each. Increase epoch_factor"
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

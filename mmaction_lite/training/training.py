"""One step and one validation of a training."""

from collections.abc import Callable
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import MIX, Batch, generator
from mmaction_lite.device import release_memory
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.inference.scores import Evaluation
from mmaction_lite.models.probe import independent_parts
from mmaction_lite.optim import measure_statistics, set_lr
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.tasks.task import Task
from mmaction_lite.training.clips import TrainingClips
from mmaction_lite.training.gradients import Gradients, Lap, no_lap
from mmaction_lite.training.probe_clips import ProbeClips
from mmaction_lite.training.run_folder import Progress
from mmaction_lite.training.state import TrainingState


class StepResult(NamedTuple):
    """Numbers of one step.

    Args:
        lr: learning rate.
        loss: mean loss of the batch, a 0-d tensor on the device.
        correct: fraction of the clips that are classified correctly, a 0-d tensor on the device.
    """

    lr: float
    loss: Tensor
    correct: Tensor


class Training:
    """One training: network, optimizer and progress, with the functions that advance them.

    Args:
        recipe: the recipe.
        state: network and optimizer.
        progress: number of steps done, and the best validation; changed in place.
        batch_plan: clips of each step.
        context: processes and device of the training.
        task: kind of labels, for the classes of the data.
        prepare: see `Gradients`.
        num_classes: number of classes, K.
        class_weights: weights of the classes in the loss, float32 (K,); None weights all equally.
        seed: seed of the training.
        may_shrink: whether batches are divided into smaller parts when the memory of the device runs out.
        report: called with a line when they were.
    """

    def __init__(
        self,
        recipe: Recipe,
        state: TrainingState,
        progress: Progress,
        batch_plan: BatchPlan,
        context: DistributedContext,
        *,
        task: Task,
        num_classes: int,
        class_weights: Tensor | None = None,
        seed: int,
        may_shrink: bool,
        report: Callable[[str], None],
        prepare: Callable[[Tensor], Tensor] | None = None,
    ):
        self.recipe = recipe
        self.state = state
        self.progress = progress
        self.batch_plan = batch_plan
        self.context = context
        self.task = task
        self.num_classes = num_classes
        self.seed = seed
        self.report = report
        self.last_step = batch_plan.first_step(recipe.epochs)
        self.is_transformer = hasattr(state.model, "grid")
        self.gradients = Gradients(
            state.forward,
            recipe,
            class_weights,
            state.scaler,
            may_shrink=may_shrink,
            report=report,
            task=task,
            prepare=prepare,
        )

    @property
    def epoch(self) -> float:
        """Number of epochs done; an integer exactly at the end of an epoch."""
        return self.batch_plan.epochs(self.progress.step)

    @property
    def is_validation_due(self) -> bool:
        """Whether the recipe validates after the last step that was done."""
        recipe = self.recipe
        return self.progress.step > 0 and (self.epoch % recipe.val_every == 0 or self.epoch == recipe.epochs)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are validated, or `recipe.patience` validations brought no improvement."""
        recipe, progress = self.recipe, self.progress
        return progress.validated_step == self.last_step or (
            recipe.patience is not None and progress.bad_validations >= recipe.patience
        )

    def step(self, batch: Batch, lap: Lap = no_lap) -> StepResult:
        """Train on one batch. The network must be in training mode.

        Args:
            batch: clips of this process for step `progress.step`.
            lap: called with a name at the end of each stage, for benchmarks: "copy", "normalise", "forward",
                "backward", "optimizer".

        Raises:
            UserError: the memory of the device does not hold the smallest part of the batch.
        """
        self._unfreeze_if_due()
        recipe, state, number, device = self.recipe, self.state, self.progress.step, self.context.device
        seed_step(self.seed, number, self.context.rank, device)
        info = self.batch_plan.step_info(number)
        lr = recipe.optimizer.lr * recipe.schedule.factor(self.epoch, recipe.epochs) * info.long_factor
        set_lr(state.optimizer, lr)
        pixels = batch.pixels.to(device, non_blocking=True)  # (B, V, T, H, W, C)
        labels = batch.labels.to(device, non_blocking=True).flatten(0, 1)  # (B·V, ...)
        if recipe.mixing is not None:
            labels = self.task.dense(labels, self.num_classes)
        lap("copy")
        # Before the forward pass, so that gradients and all activations never coexist.
        state.optimizer.zero_grad()
        if self.is_transformer:  # a step takes so long that mapping pages again does not matter
            release_memory()
        rng = generator(self.seed, MIX, number)
        loss, correct = self.gradients.add(
            pixels, labels, rng, long_factor=info.long_factor, short_factor=info.short_factor, lap=lap
        )
        if recipe.max_grad_norm is not None:
            state.scaler.unscale_(state.optimizer)
            for part in independent_parts(state.model):
                nn.utils.clip_grad_norm_(part.parameters(), recipe.max_grad_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update_parameters(state.model)
        lap("optimizer")
        self.progress.step += 1
        return StepResult(lr, loss, correct)

    def _unfreeze_if_due(self) -> None:
        """Train all layers if the next step belongs to the epoch of `recipe.unfreeze` or a later one."""
        unfreeze = self.recipe.unfreeze
        if unfreeze is None or self.state.frozen_backbone is None or self.epoch < unfreeze.epoch:
            return
        self.state = self.state.unfreeze(self.context)
        self.gradients.model = self.state.forward
        self.report(
            f"epoch {self.epoch:g}: all layers are trained, with {unfreeze.lr_share:g} times the learning "
            "rate of the classifier"
        )

    def validate(self, clips: TrainingClips | ProbeClips, stop: Event) -> Evaluation | None:
        """Compute the scores of the validation split, and return to training mode.

        Returns:
            The scores; None if `stop` was set before they were complete, which a single process checks.
        """
        recipe, context, model = self.recipe, self.context, self.state.eval_model
        self.state.unshard()
        is_single = context.world_size == 1
        if recipe.precise_bn_clips and isinstance(clips, TrainingClips):
            batches = clips.statistics_batches(int(self.epoch))
            inputs = (recipe.normalize(b.pixels.to(context.device).flatten(0, 1)) for b in batches)
            frozen = set(self.state.modules_in_evaluation_mode)
            names = {name for name, module in self.state.model.named_modules() if module in frozen}
            kept = [module for name, module in model.named_modules() if name in names]
            measure_statistics(model, inputs, kept)
            context.average_buffers(model)
        else:
            context.broadcast_buffers(model)
        result = clips.evaluate(model, stop)
        self.state.set_train_mode()
        return None if is_single and stop.is_set() else result


def class_weights(recipe: Recipe, samples: Samples, device: torch.device) -> Tensor | None:
    """Return the recipe's weights of the classes in the loss, float32 (K,); None weights all equally."""
    weights = recipe.class_weights
    if weights is None:
        return None
    if weights == "balanced":
        task = recipe.task.for_classes(samples.classes)
        return torch.from_numpy(task.balanced_weights(samples.counts())).to(device)
    return torch.tensor(weights, dtype=torch.float32, device=device)


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed PyTorch's generators (dropout) from step and rank, so that checkpoints need no generator state."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint32)
    number = int(words[0]) << 31 | int(words[1]) >> 1
    # Not `torch.manual_seed`, which seeds every type of device and takes 1 % of a small step.
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(number)

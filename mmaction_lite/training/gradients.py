"""The gradients of one step: in parts that fit the device, mixed, in the recipe's precision."""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.distributed import no_sync
from mmaction_lite.errors import UserError
from mmaction_lite.models.sub_batch import SubBatchNorm2d, in_groups
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.tasks.task import Task


class Gradients:
    """Forward and backward pass of a step, in as many parts as the device's memory needs.

    Args:
        model: the network as training calls it.
        recipe: see there.
        class_weights: of the loss, float32 (K,).
        scaler: scales the loss where precision is float16.
        may_shrink: whether parts are halved when memory runs out. Of several processes none may: the others
            would wait for its gradients.
        say: called with a line when parts were halved.
        task: the recipe's task for the classes of the data; None for `recipe.task`.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        class_weights: Tensor | None,
        scaler: torch.amp.GradScaler,
        may_shrink: bool,
        say: Callable[[str], None],
        *,
        task: Task | None = None,
    ):
        self.model = model
        self.recipe = recipe
        self.task = task or recipe.task
        self.class_weights = class_weights
        self.scaler = scaler
        self.may_shrink = may_shrink
        self.say = say
        self.clips_per_part = recipe.clips_per_device
        self.norms = [module for module in model.modules() if isinstance(module, SubBatchNorm2d)]

    def add(
        self,
        pixels: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
        long_factor: int = 1,
        short_factor: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Set the gradients of the network's parameters, which must have none.

        Args:
            pixels: uint8 (B, V, T, H, W, C).
            labels: targets of the task, stacked (B·V, ...), or dense ones, (B·V, K), where clips are mixed.
            rng: for mixing; every part is mixed alike.
            long_factor: how many times more clips than the recipe's the step has, by the long cycle of a
                multigrid training; as many more enter the network together.
            short_factor: the same by its short cycle, and as many more are normalised together.

        Returns:
            the mean loss and the share of the clips that are right, 0-d.

        Raises:
            UserError: the device's memory does not even hold the smallest part.
        """
        num_views = pixels.shape[1]
        # Whole videos, and pairs of them where they are mixed.
        unit = num_views * (1 if self.recipe.mixing is None else 2)
        factor = long_factor * short_factor
        while True:
            size = len(labels)
            if self.clips_per_part is not None:
                size = min(size, max(unit, self.clips_per_part // unit * unit) * factor)
            state = rng.bit_generator.state
            try:
                return self._add(pixels.flatten(0, 1), labels, rng, size, num_views, short_factor)
            except torch.OutOfMemoryError as error:
                halved = size // factor // 2 // unit * unit
                if not self.may_shrink or halved == 0:
                    raise UserError(
                        f"the device's memory does not hold {size} clips at once; try --set clips_per_device="
                        f"{max(halved, unit)}, --set recompute=true, or smaller clips "
                        f"({str(error).splitlines()[0]})"
                    ) from None
            self.clips_per_part = halved
            rng.bit_generator.state = state
            self.model.zero_grad()
            torch.cuda.empty_cache()
            seen = self._seen(halved * factor, short_factor)
            self.say(
                f"the device's memory does not hold {size} clips at once: going on with {halved * factor} "
                f"at a time, whose gradients add up{seen}, as with --set clips_per_device={halved}"
            )

    def _seen(self, size: int, short_factor: int) -> str:
        """What smaller parts mean for batch normalisation."""
        if self.recipe.norm_clips is not None and size >= self.recipe.norm_clips * short_factor:
            return ""
        return f" (batch normalisation now sees {size} clips)"

    def _add(
        self,
        pixels: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
        size: int,
        num_views: int,
        short_factor: int,
    ) -> tuple[Tensor, Tensor]:
        recipe, device = self.recipe, labels.device
        loss, accuracy = torch.zeros((), device=device), torch.zeros((), device=device)
        state = rng.bit_generator.state
        if recipe.compile not in (None, "default") and size < len(labels):
            # What is played back from a recording puts each part's gradients where it put the last's.
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        dtype = getattr(torch, recipe.precision)
        norm_clips = None if recipe.norm_clips is None else recipe.norm_clips * short_factor
        for first in range(0, len(labels), size):
            part, truth = pixels[first : first + size], labels[first : first + size]
            inputs, targets = recipe.normalize(part), truth
            if recipe.mixing is not None:
                rng.bit_generator.state = state
                inputs, targets = recipe.mixing(inputs, truth, rng, num_views=num_views)
            is_last = first + size >= len(labels)
            if recipe.compile is not None:
                torch.compiler.cudagraph_mark_step_begin()
            groups = in_groups(self.norms, len(truth), norm_clips or len(truth))
            with groups, nullcontext() if is_last else no_sync(self.model):
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    logits = self.model(inputs)
                losses = self.task.loss(
                    logits,
                    targets,
                    label_smoothing=recipe.label_smoothing,
                    class_weights=self.class_weights,
                )
                share = len(truth) / len(labels)
                part_loss = losses.mean() * share
                self.scaler.scale(part_loss).backward()
            loss += part_loss.detach()
            accuracy += self.task.correct(logits, truth).mean() * share
        return loss, accuracy

"""Forward and backward pass of a step, in parts that fit the device."""

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

Lap = Callable[[str], None]
"""Called with the name of a stage when the stage ends."""


def no_lap(stage: str) -> None:
    """Do nothing at the end of a stage."""


class Gradients:
    """Forward and backward pass of a step, in as many parts as the memory of the device needs.

    Args:
        model: the network as forward passes call it.
        recipe: normalization, mixing, label smoothing, precision, number of clips per part.
        class_weights: weights of the classes in the loss, float32 (K,); None weights all equally.
        scaler: scales the loss if the precision is float16.
        may_shrink: whether parts are halved when memory runs out. Must be False with several processes: the
            others would wait for the gradients of this one.
        report: called with a line when parts were halved.
        task: the recipe's task for the classes of the data; None: `recipe.task`.
        prepare: converts clips or stored features to inputs; None: `recipe.normalize`.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        class_weights: Tensor | None,
        scaler: torch.amp.GradScaler,
        *,
        may_shrink: bool,
        report: Callable[[str], None],
        task: Task | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ):
        self.model = model
        self.prepare = prepare or recipe.normalize
        self.recipe = recipe
        self.task = task or recipe.task
        self.class_weights = class_weights
        self.scaler = scaler
        self.may_shrink = may_shrink
        self.report = report
        self.clips_per_part = recipe.clips_per_device
        self.norms = [module for module in model.modules() if isinstance(module, SubBatchNorm2d)]

    def add(
        self,
        pixels: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
        *,
        long_factor: int = 1,
        short_factor: int = 1,
        lap: Lap = no_lap,
    ) -> tuple[Tensor, Tensor]:
        """Add the gradients of a batch to those of the parameters, which must be unset.

        Args:
            pixels: uint8 (B, V, T, H, W, C), or stored features (B, V, tokens, D).
            labels: targets of the task, stacked (B·V, ...), or dense ones, (B·V, K), where clips are mixed.
            rng: for mixing; every part is mixed alike.
            long_factor: batch size divided by the recipe's, from the long cycle of multigrid training; parts
                grow by the same factor.
            short_factor: the same from the short cycle; groups of batch normalization grow by it, too.
            lap: called at the end of the stages "normalise", "forward" and "backward".

        Returns:
            The mean loss and the fraction of correctly classified clips, 0-d tensors on the device.

        Raises:
            UserError: the memory of the device does not hold the smallest part.
        """
        num_views = pixels.shape[1]
        # Parts consist of all views of a clip, or of a pair of clips where clips are mixed.
        unit = num_views * (1 if self.recipe.mixing is None else 2)
        factor = long_factor * short_factor
        while True:
            size = len(labels)
            if self.clips_per_part is not None:
                size = min(size, max(unit, self.clips_per_part // unit * unit) * factor)
            state = rng.bit_generator.state
            try:
                return self._add(
                    pixels.flatten(0, 1),
                    labels,
                    rng,
                    size=size,
                    num_views=num_views,
                    short_factor=short_factor,
                    lap=lap,
                )
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
            self.report(
                f"the device's memory does not hold {size} clips at once: continuing with {halved * factor} "
                f"at a time and accumulated gradients{seen}, as with --set clips_per_device={halved}"
            )

    def _seen(self, size: int, short_factor: int) -> str:
        """Return a note if smaller parts change the statistics of batch normalization."""
        if self.recipe.norm_clips is not None and size >= self.recipe.norm_clips * short_factor:
            return ""
        return f" (batch normalization now sees {size} clips)"

    def _add(
        self,
        pixels: Tensor,
        labels: Tensor,
        rng: np.random.Generator,
        *,
        size: int,
        num_views: int,
        short_factor: int,
        lap: Lap,
    ) -> tuple[Tensor, Tensor]:
        """Add the gradients of all parts of `size` clips; see `add`. Pixels are uint8 (B·V, T, H, W, C)."""
        recipe, device = self.recipe, labels.device
        loss, accuracy = torch.zeros((), device=device), torch.zeros((), device=device)
        state = rng.bit_generator.state
        if recipe.compile not in (None, "default") and size < len(labels):
            # A replayed CUDA graph writes the gradients of every part into the same memory.
            for parameter in self.model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        dtype = getattr(torch, recipe.precision)
        norm_clips = None if recipe.norm_clips is None else recipe.norm_clips * short_factor
        for first in range(0, len(labels), size):
            part, truth = pixels[first : first + size], labels[first : first + size]
            inputs, targets = self.prepare(part), truth
            if recipe.mixing is not None:
                rng.bit_generator.state = state
                inputs, targets = recipe.mixing(inputs, truth, rng, num_views=num_views)
            lap("normalise")
            is_last = first + size >= len(labels)
            if recipe.compile is not None:
                torch.compiler.cudagraph_mark_step_begin()
            groups = in_groups(self.norms, len(truth), norm_clips or len(truth))
            with groups, nullcontext() if is_last else no_sync(self.model):
                with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                    logits = self.model(inputs)
                lap("forward")
                # (B, K), or (B, heads, K) of independent heads: the sum of their losses gives each head the
                # gradients that it has alone.
                heads = logits.unbind(1) if logits.ndim == 3 else (logits,)
                losses = [
                    self.task.loss(
                        each,
                        targets,
                        label_smoothing=recipe.label_smoothing,
                        class_weights=self.class_weights,
                    ).mean()
                    for each in heads
                ]
                share = len(truth) / len(labels)
                part_loss = torch.stack(losses).sum() * share
                self.scaler.scale(part_loss).backward()
                lap("backward")
            loss += part_loss.detach() / len(heads)
            correct = torch.stack([self.task.correct(each, truth).mean() for each in heads])
            accuracy += correct.mean() * share
        return loss, accuracy

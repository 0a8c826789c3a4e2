"""Clips of a training: how its training and validation splits are cached and loaded."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

from torch import nn

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.annotations.unlabelled import read_unlabelled
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.loader import Batch, VideoDataset, training_loader
from mmaction_lite.data.loading.workers import IN_PROCESS, FaultTolerantLoader, WorkerSettings
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.inference.scores import Evaluation
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.tasks.named import uses_labels
from mmaction_lite.tasks.reconstruction import CLASSES
from mmaction_lite.tasks.task import Task
from mmaction_lite.training.signals import until_stopped


class TrainingClips:
    """Training and validation clips.

    A single process caches small data sets in memory, and then needs no decoding workers by default.

    Args:
        recipe: views and class balance.
        samples: the training split.
        val_samples: the validation split.
        context: processes and device of the training.
        task: kind of labels.
        workers: decoding worker processes.
        caches: decoded clips in memory.
        seed: seed of the training.
        report: called with a line when workers were restarted.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Samples,
        val_samples: Samples,
        context: DistributedContext,
        *,
        task: Task,
        workers: WorkerSettings,
        caches: Caches,
        seed: int,
        report: Callable[[str], None],
    ):
        self.recipe = recipe
        self.samples = samples
        self.val_samples = val_samples
        self.context = context
        self.task = task
        self.seed = seed
        self.report = report
        self.cache = caches.of(samples, recipe.train) if context.world_size == 1 else None
        self.val_cache = caches.of(val_samples, recipe.val) if self.cache else None
        own = replace(workers, num_workers=workers.count(context.local_world_size))
        self.workers = IN_PROCESS if self.cache and workers.num_workers is None else own
        self.val_workers = IN_PROCESS if self.val_cache and workers.num_workers is None else own

    def batches(self, batch_plan: BatchPlan, first_step: int, last_step: int) -> FaultTolerantLoader[Batch]:
        """Return a loader of this process's slices of the batches of steps `first_step` to `last_step - 1`.

        Raises:
            UserError: shared memory is too small for the batches of the workers.
        """
        recipe, context = self.recipe, self.context
        dataset = VideoDataset(
            self.samples,
            recipe.train,
            self.cache,
            seed=self.seed,
            batch_plan=batch_plan,
            target=self.task.target,
        )
        return training_loader(
            dataset,
            first_step,
            last_step,
            self.workers,
            pin=context.device.type == "cuda",
            report=self.report,
            class_balance=recipe.class_balance,
            rank=context.rank,
            world_size=context.world_size,
        )

    def evaluate(self, model: nn.Module, stop: Event) -> Evaluation:
        """Compute the scores of the validation split.

        Args:
            model: the network.
            stop: ends the evaluation of a single process early; the scores are then incomplete.
        """
        is_single = self.context.world_size == 1
        return evaluate(
            model,
            self.val_samples,
            self.recipe.val_protocol,
            task=self.task,
            workers=self.val_workers,
            cache=self.val_cache,
            track=(lambda videos, total, title: until_stopped(videos, stop)) if is_single else None,
            context=self.context,
        )

    def complete(self, model: nn.Module, result: Evaluation) -> nn.Module:
        """Return the network to save, which is the validated one."""
        return model

    def statistics_batches(self, epoch: int) -> FaultTolerantLoader[Batch]:
        """Return a loader of the first `recipe.precise_bn_clips` clips of an epoch.

        Their shape is that of the recipe's views, also in multigrid training.
        """
        recipe = self.recipe
        batch_plan = BatchPlan(len(self.samples), recipe.batch_size)
        first_step = batch_plan.first_step(epoch)
        num_steps = -(-recipe.precise_bn_clips // recipe.batch_size)
        return self.batches(batch_plan, first_step, first_step + num_steps)


def read_splits(data: Path, task: Task) -> tuple[Samples, Samples]:
    """Return the training and the validation split of a data set.

    Args:
        data: folder of the data set; for a task without labels, see `read_unlabelled`.
        task: kind of labels.

    Raises:
        UserError: see `read_training_split` and `read_unlabelled`.
    """
    if not uses_labels(task):
        return read_unlabelled(data, "train", CLASSES), read_unlabelled(data, "val", CLASSES)
    samples = read_training_split(data)
    return samples, read_split(data, "val", samples.classes)


def read_training_split(data: Path) -> Samples:
    """Return the training split of a data set.

    Raises:
        UserError: `data` is a single list, or see `read_split`.
    """
    if data.is_file():
        raise UserError(f"{data}: is one list; training needs a folder with a train and a val list")
    return read_split(data, "train")

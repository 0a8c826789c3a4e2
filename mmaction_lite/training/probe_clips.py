"""Stored features as the data of a training: batches, validations, and the network to save."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

import numpy as np
import torch
from torch import Tensor, nn

from mmaction_lite.data.annotations.samples import Samples, absolute
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import (
    CLIP,
    MAX_REDRAWS,
    REDRAW,
    Batch,
    Fault,
    TrainBatchSampler,
    VideoDataset,
    generator,
    rank_slice,
)
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.inference.scores import Evaluation, device_of
from mmaction_lite.models.probe import LinearHead, Probe, ProbeHeads
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.tasks.task import Task
from mmaction_lite.training.feature_extraction import StoredFeatures

VALIDATION_ROWS = 256  # in one forward pass of the heads


class ProbeClips:
    """Stored features of the training and the validation split; see `TrainingClips` for clips of pixels.

    Args:
        recipe: recipe of the probe.
        samples: the training split.
        val_samples: the validation split.
        context: processes and device of the training.
        task: kind of labels.
        probe: the encoder with a head, on the CPU.
        features: features of the training split.
        val_features: features of the validation split, one row for every view of the protocol.
        workers: decoding worker processes of the extraction, for the summary.
        seed: seed of the training.
    """

    def __init__(
        self,
        recipe: Recipe,
        samples: Samples,
        val_samples: Samples,
        context: DistributedContext,
        *,
        task: Task,
        probe: Probe,
        features: StoredFeatures,
        val_features: StoredFeatures,
        workers: WorkerSettings,
        seed: int,
    ):
        assert recipe.probe is not None
        self.recipe = recipe
        self.settings = recipe.probe
        self.samples = samples
        self.val_samples = val_samples
        self.context = context
        self.task = task
        self.probe = probe
        self.features = features
        self.val_features = val_features
        self.workers = workers
        self.seed = seed
        self._dataset = VideoDataset(samples, recipe.train, seed=seed, target=task.target)

    def heads(self) -> ProbeHeads:
        """Return the heads to train, all with the initial weights of the probe's head."""
        head = self.probe.head
        if isinstance(head, LinearHead):
            head.standardize(*self._statistics())
        return ProbeHeads([copy.deepcopy(head) for _ in self.settings.heads])

    def batches(self, batch_plan: BatchPlan, first_step: int, last_step: int) -> Iterator[Batch]:
        """Yield this process's slices of the batches of steps `first_step` to `last_step - 1`."""
        sampler = TrainBatchSampler(
            self.samples,
            batch_plan,
            self.seed,
            first_step,
            last_step,
            class_balance=self.recipe.class_balance,
            rank=self.context.rank,
            world_size=self.context.world_size,
        )
        return map(self._batch, sampler)

    def prepare(self, stored: Tensor) -> Tensor:
        """Convert stored features (n, tokens, D) to inputs of the heads, float32."""
        return stored.float()

    def complete(self, heads: nn.Module, result: Evaluation) -> nn.Module:
        """Return the network to save: the encoder with the best head of a validation."""
        assert isinstance(heads, ProbeHeads)
        probe = copy.copy(self.probe)
        probe._modules = self.probe._modules | {"head": heads.heads[result.best_head]}
        return probe

    @torch.no_grad()
    def evaluate(self, heads: nn.Module, stop: Event) -> Evaluation:
        """Compute the scores of the validation split with every head; those of the best one are returned.

        Args:
            heads: `ProbeHeads`; put into evaluation mode.
            stop: ends the evaluation early; the scores are then incomplete.
        """
        assert isinstance(heads, ProbeHeads)
        heads.eval()
        context, samples, protocol = self.context, self.val_samples, self.recipe.val_protocol
        own = range(len(samples))[rank_slice(len(samples), context.rank, context.world_size)]
        own = [i for i in own if i not in self.val_features.faults]
        scores = np.full((len(heads.heads), len(samples), len(samples.classes)), np.nan, np.float32)
        rows = self.val_features.cache.key.rows
        size = max(1, VALIDATION_ROWS // rows)
        for first in range(0, len(own), size):
            if stop.is_set() and context.world_size == 1:
                break
            numbers = own[first : first + size]
            values = np.concatenate([self.val_features.of(i).values for i in numbers])
            logits = heads(self.prepare(torch.from_numpy(values).to(device_of(heads))))
            for scored, each in zip(scores, logits.unbind(1), strict=True):
                views = each.unflatten(0, (len(numbers), rows))
                scored[numbers] = protocol.average_logits(views, self.task.probabilities).cpu().numpy()
        parts = context.all_gather(scores)
        scores = parts[0]
        for part in parts[1:]:
            scores = np.where(np.isnan(scores), part, scores)
        return self._best([self._evaluation(each) for each in scores])

    def _best(self, results: list[Evaluation]) -> Evaluation:
        """Return the result of the best head, with those of all; of equally good heads, the lowest loss."""
        rows = []
        for (lr, decay), result in zip(self.settings.heads, results, strict=True):
            rows.append({"lr": lr, "weight_decay": decay, **result.metrics, "loss": result.loss})
        metric = next(iter(results[0].metrics))
        best = max(range(len(rows)), key=lambda i: (rows[i][metric], -rows[i]["loss"]))
        return replace(results[best], heads=tuple(rows), best_head=best)

    def _evaluation(self, scores: np.ndarray) -> Evaluation:
        samples = self.val_samples
        return Evaluation(
            scores=scores,
            labels=self.task.targets(samples.labels, samples.label_counts(), len(samples.classes)),
            paths=[absolute(samples.name(i)) for i in range(len(samples))],
            classes=samples.classes,
            protocol=self.recipe.val_protocol,
            source=samples.source,
            faults=list(self.val_features.faults.values()),
            task=self.task,
        )

    def _batch(self, draws: list[tuple[int, int]]) -> Batch:
        values, labels, samples = [], [], []
        faults: list[Fault] = []
        for draw, first in draws:
            sample, replaced = self._readable(draw, first)
            faults += replaced
            if sample is None:
                continue
            stored = self.features.of(sample)
            row = int(generator(self.seed, CLIP, draw).integers(len(stored.values)))
            values.append(stored.values[row])
            labels.append(self._dataset.targets(sample, stored.altered[row, None] != 0))
            samples.append(sample)
        if not samples:
            return Batch(torch.empty(0), torch.empty(0), [], faults)
        return Batch(torch.from_numpy(np.stack(values)[:, None]), torch.stack(labels), samples, faults)

    def _readable(self, draw: int, sample: int) -> tuple[int | None, list[Fault]]:
        """Return the sample of a draw, or the replacement of an unreadable one, as `VideoDataset` does."""
        faults = []
        for attempt in range(MAX_REDRAWS):
            if sample not in self.features.faults:
                return sample, faults
            faults.append(self.features.faults[sample])
            sample = int(generator(self.seed, REDRAW, draw, attempt=attempt).integers(len(self.samples)))
        return None, faults

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the mean tokens of the training split, float32 (D,)."""
        means = [
            self.features.of(i).values.mean(1, dtype=np.float64)
            for i in range(len(self.samples))
            if i not in self.features.faults
        ]
        values = torch.from_numpy(np.concatenate(means))
        return values.mean(0).float(), values.std(0, correction=0).float()

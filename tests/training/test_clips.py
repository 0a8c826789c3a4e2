"""Which clips a training loads, and with which workers."""

from dataclasses import replace

import pytest
import torch

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.workers import IN_PROCESS, ONE_PER_CORE, WorkerSettings
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError
from mmaction_lite.training.clips import TrainingClips, read_training_split


def make(recipe, data, workers=ONE_PER_CORE, caches=None):
    samples = read_training_split(data)
    return TrainingClips(
        recipe,
        samples,
        read_split(data, "val", samples.classes),
        DistributedContext(0, 1, 1, torch.device("cpu")),
        task=recipe.task,
        workers=workers,
        caches=caches or Caches(),
        seed=0,
        report=print,
    )


def test_cached_clips_need_no_workers_unless_asked_for(tiny, recipe):
    cached = make(recipe, tiny)
    assert cached.cache is not None
    assert cached.val_cache is not None
    assert cached.workers == cached.val_workers == IN_PROCESS
    assert make(recipe, tiny, WorkerSettings(num_workers=3)).workers.num_workers == 3
    uncached = make(recipe, tiny, caches=Caches(budget_bytes=0))
    assert uncached.cache is None
    assert uncached.workers.count() == ONE_PER_CORE.count()


def test_statistics_are_measured_on_the_first_clips_of_an_epoch(tiny, recipe):
    clips = make(replace(recipe, precise_bn_clips=6), tiny)
    found = [batch.samples for batch in clips.statistics_batches(1)]
    epoch = [batch.samples for batch in clips.batches(BatchPlan(12, 4), 3, 6)]
    assert found == epoch[:2]


def test_one_list_is_no_training_data(tmp_path):
    (tmp_path / "all.txt").write_text("a.mp4 0\n")
    with pytest.raises(UserError, match="is one list; training needs a folder"):
        read_training_split(tmp_path / "all.txt")

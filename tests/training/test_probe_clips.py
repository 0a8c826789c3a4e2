"""Batches of stored features, and validations with several heads."""

from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.models.probe import ProbeHeads
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.training.feature_extraction import ClipViews
from mmaction_lite.training.probe_clips import ProbeClips
from tests.exports import with_statistics
from tests.probes import ONE, extraction, fixed_views, small_probe, store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clips(tiny, tmp_path_factory):
    """Three random passes of every training clip."""
    folder = tmp_path_factory.mktemp("cache")
    recipe = small_probe(passes=3)
    torch.manual_seed(0)
    network: Any = with_statistics(recipe.model(num_classes=2))
    samples, val_samples = (read_split(tiny, split, ("down", "up")) for split in ("train", "val"))
    computed = extraction(network)
    return ProbeClips(
        recipe,
        samples,
        val_samples,
        ONE,
        task=SingleLabel(),
        probe=network,
        features=store(computed, samples, folder, ClipViews(views=recipe.train, passes=3)),
        val_features=store(computed, val_samples, folder, fixed_views()),
        workers=IN_PROCESS,
        seed=0,
    )


def test_batches_depend_on_seed_and_step_only(clips):
    plan = BatchPlan(len(clips.samples), 4)
    batches = list(clips.batches(plan, 0, 9))
    assert len(batches) == 9
    late = list(clips.batches(plan, 5, 9))
    for one, other in zip(batches[5:], late, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.labels, other.labels)
        assert one.samples == other.samples
    assert batches[0].pixels.shape == (4, 1, 1, 64)
    assert batches[0].pixels.dtype == torch.float16
    epoch = [sample for batch in batches[:3] for sample in batch.samples]
    assert sorted(epoch) == list(range(12))
    rows = {
        (sample, row)
        for batch in clips.batches(plan, 0, 90)
        for sample, values in zip(batch.samples, batch.pixels[:, 0].numpy(), strict=True)
        for row, stored in enumerate(clips.features.of(sample).values)
        if np.array_equal(values, stored)
    }
    assert len(rows) == 36


def test_the_linear_head_is_standardized_by_the_training_clips(clips):
    heads = clips.heads()
    means = np.concatenate([clips.features.of(i).values.mean(1, dtype=np.float64) for i in range(12)])
    np.testing.assert_allclose(heads.heads[1].mean.numpy(), means.mean(0), rtol=1e-5)
    np.testing.assert_allclose(heads.heads[1].std.numpy(), means.std(0).clip(1e-6), rtol=1e-5)
    assert torch.equal(heads.heads[0].fc.weight, heads.heads[1].fc.weight)
    assert heads.heads[0].fc.weight is not heads.heads[1].fc.weight


def answer_always(head: Any, confidence: float) -> None:
    """Make a head of two classes give every clip the first label."""
    with torch.no_grad():
        head.fc.weight.zero_()
        head.fc.bias.copy_(torch.tensor([confidence, 0.0]))


def answer_correctly(head: Any, clips: ProbeClips) -> None:
    """Fit a head of two classes to the validation clips; there are fewer clips than features."""
    rows = [clips.val_features.of(i).values.mean((0, 1), dtype=np.float64) for i in range(6)]
    inputs = (torch.from_numpy(np.stack(rows)).float() - head.mean) / head.std
    targets = 10 * functional.one_hot(torch.as_tensor(clips.val_samples.labels), 2).float()
    with torch.no_grad():
        head.fc.weight.copy_((torch.linalg.pinv(inputs) @ targets).T)
        head.fc.bias.zero_()


@pytest.mark.parametrize("best", [0, 1])
def test_the_best_head_gives_the_scores(clips, best):
    heads = clips.heads()
    assert isinstance(heads, ProbeHeads)
    answer_correctly(heads.heads[best], clips)
    answer_always(heads.heads[1 - best], 50)
    result = clips.evaluate(heads, Event())
    assert result.best_head == best
    assert [row["top1"] for row in result.heads] == ([1, 0.5] if best == 0 else [0.5, 1])
    assert result.metrics["top1"] == 1
    assert result.loss == result.heads[best]["loss"]
    saved = clips.complete(heads, result)
    assert saved.head is heads.heads[best]
    assert saved.encoder is clips.probe.encoder
    assert clips.probe.head is not heads.heads[best]


def test_of_equally_good_heads_the_lower_loss_wins(clips):
    heads = clips.heads()
    assert isinstance(heads, ProbeHeads)
    answer_always(heads.heads[0], 50)
    answer_always(heads.heads[1], 1)
    result = clips.evaluate(heads, Event())
    assert result.heads[0]["top1"] == result.heads[1]["top1"]
    assert result.heads[0]["loss"] > result.heads[1]["loss"]
    assert result.best_head == 1

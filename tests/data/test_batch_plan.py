"""Multigrid training: which step has which clips in which shape, and that trainings follow it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmaction_lite import get_recipe
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan, Multigrid, Phase, Shape, reshape_views
from mmaction_lite.data.loading.loader import TrainBatchSampler, VideoDataset, training_loader
from mmaction_lite.data.loading.workers import IN_PROCESS, WorkerSettings
from mmaction_lite.data.sources.source import ArrayVideo
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop, ScaleJitterCrop
from mmaction_lite.data.views.samplers import DenseClips, PySlowFastClips, SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.errors import UserError
from mmaction_lite.models import slowfast_r50_8x8
from mmaction_lite.optim import SGD, Steps
from mmaction_lite.recipes.multigrid import multigrid
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.training.loop import train
from mmaction_lite.training.progress import TrainingLog
from mmaction_lite.weights.checkpoint import load_state
from tests.data.test_loader import numbered

pytestmark = pytest.mark.usefixtures("one_thread")

PUBLISHED = "slowfast_r50_multigrid_8x8x1_358e_kinetics400_rgb"
STEPWISE = "slowfast_r50_stepwise_8x8x1_239e_kinetics400_rgb"
# Ends of the phases, and batch, frames and side of each, as slowfast/utils/multigrid.py computes them from
# SLOWFAST_8x8_R50_stepwise_multigrid.yaml, and the lr with which it begins.
ENDS = [0, 73, 110, 142, 158, 205, 228, 248, 259, 291, 308, 322, 329, 358]
TABLE = [
    (8 * 64, 8, 158, 0.01),  # where the warm-up starts
    (4 * 64, 16, 158, 0.4),
    (2 * 64, 16, 224, 0.2),
    (64, 32, 224, 0.1),
    (8 * 64, 8, 158, 0.08),
    (4 * 64, 16, 158, 0.04),
    (2 * 64, 16, 224, 0.02),
    (64, 32, 224, 0.01),
    (8 * 64, 8, 158, 0.008),
    (4 * 64, 16, 158, 0.004),
    (2 * 64, 16, 224, 0.002),
    (64, 32, 224, 0.001),
    (64, 32, 224, 0.001),
]
# Times the batch and side of the steps of a short cycle, by the side of the phase.
SHORT = {158: [(2, 112), (1, 158), (1, 158)], 224: [(4, 112), (2, 158), (1, 224)]}
NUM_SAMPLES = 240_436

# On twelve clips: 2 steps (8 and 4 clips), 4 (4, 2, 2, 4), 2 (8, 4) and 4 (4, 2, 1, 4).
SMALL = Multigrid(
    phases=(
        Phase(epochs=1, batch=4, clip_len=4, side=24),
        Phase(epochs=1, batch=2, clip_len=8, side=24),
        Phase(epochs=1, batch=2, clip_len=8, side=32),
        Phase(epochs=1, batch=1, clip_len=16, side=32),
    ),
    short_sides=(16, 24),
)
SIZES = [8, 4, 4, 2, 2, 4, 8, 4, 4, 2, 1, 4]
SHAPES = [(4, 16), (4, 24), (8, 16), (8, 24), (8, 24), (8, 16)]
SHAPES += [(8, 16), (8, 24), (16, 16), (16, 24), (16, 32), (16, 16)]
LONG_FACTORS = [4] * 2 + [2] * 6 + [1] * 4


@pytest.fixture
def small(recipe):
    """A second of training in all of its shapes."""
    clips = PySlowFastClips(clip_len=16, frame_interval=1, target_fps=25.0)
    val = TestViews(clips=clips, short_side=32, crop=CenterCrop(size=(32, 32)))
    return replace(
        recipe,
        train=TrainViews(clips=clips, crop=ScaleJitterCrop(size=(32, 32), short_side=(36, 44)), flip=0.5),
        val=val,
        test=val,
        optimizer=SGD(lr=0.01),
        schedule=Steps(milestones=(3,), warmup_epochs=1, linear=True),
        epochs=4,
        batch_size=1,
        multigrid=SMALL,
        norm_clips=1,
        precise_bn_clips=4,
    )


def test_phases_and_learning_rates_are_the_published_ones():
    recipe = get_recipe(PUBLISHED)
    assert recipe.multigrid is not None
    batch_plan = BatchPlan(NUM_SAMPLES, recipe.batch_size, recipe.multigrid)
    assert [0, *np.cumsum([phase.epochs for phase in recipe.multigrid.phases])] == ENDS
    assert recipe.epochs == ENDS[-1]
    for first, end, (batch, clip_len, side, lr) in zip(ENDS, ENDS[1:], TABLE, strict=False):
        for step, epoch in ((batch_plan.first_step(first), first), (batch_plan.first_step(end - 1), end - 1)):
            assert batch_plan.epochs(step) == epoch
            for inside, (times, short) in enumerate(SHORT[side] * 2):
                place = batch_plan.step_info(step + inside)
                assert (place.epoch, place.batch_size) == (epoch, batch * times)
                assert batch_plan.shape(place.draw) == (clip_len, short)
                assert (place.long_factor * 64, place.short_factor) == (batch, times)
        assert recipe.optimizer.lr * recipe.schedule.factor(first, 358) * batch / 64 == pytest.approx(lr)
    for epoch, lr in {16: (0.01 + 0.8) / 2 - 0.79 / 34, 34: 0.8, 342.9: 0.001, 343: 0.0001}.items():
        factor = recipe.schedule.factor(epoch, 358) * (8 if epoch < 73 else 1)
        assert recipe.optimizer.lr * factor == pytest.approx(lr)
    stepwise = BatchPlan(NUM_SAMPLES, 64).first_step(get_recipe(STEPWISE).epochs)
    assert 3.4 < stepwise / batch_plan.first_step(358) < 3.5


@pytest.mark.parametrize("plan", [None, SMALL, get_recipe(PUBLISHED).multigrid])
@pytest.mark.parametrize(("num_samples", "batch_size"), [(103, 1), (1200, 2)])
def test_steps_follow_each_other_and_no_draw_comes_twice(plan, num_samples, batch_size):
    batch_plan = BatchPlan(num_samples, batch_size, plan)
    epochs = 4 if plan is None else sum(phase.epochs for phase in plan.phases)
    epoch, position, draw, num_steps = -1, 0, 0, batch_plan.first_step(epochs)
    for step in range(num_steps):
        place = batch_plan.step_info(step)
        if place.epoch != epoch:
            epoch, position = epoch + 1, 0
            assert batch_plan.first_step(epoch) == step
        assert batch_plan.epochs(step).is_integer() == (position == 0)
        assert int(batch_plan.epochs(step)) == epoch
        assert (place.epoch, place.first, place.draw) == (epoch, position, draw)
        if step % 7 == 0:
            shapes = {batch_plan.shape(draw + i) for i in range(place.batch_size)}
            assert (place.batch_size, *shapes) in batch_plan.batches
        position, draw = position + place.batch_size, draw + place.batch_size
        assert position <= num_samples
    assert batch_plan.epochs(num_steps) == epochs


def test_draws_follow_the_course_from_any_step_in_any_number_of_processes():
    batch_plan = BatchPlan(12, 2, replace(SMALL, short_sides=()))
    arguments = (numbered(12), batch_plan, 0, 0, batch_plan.first_step(4))
    whole = list(TrainBatchSampler(*arguments))
    assert [len(step) for step in whole] == [8] + [4] * 6 + [2] * 6
    for epoch in range(4):
        steps = whole[batch_plan.first_step(epoch) : batch_plan.first_step(epoch + 1)]
        assert len({sample for step in steps for _, sample in step}) == sum(map(len, steps))
    assert list(TrainBatchSampler(numbered(12), batch_plan, 0, 5, len(whole))) == whole[5:]
    pieces = [list(TrainBatchSampler(*arguments, rank=rank, world_size=2)) for rank in range(2)]
    assert [[*one, *other] for one, other in zip(*pieces, strict=True)] == whole


def test_views_of_a_draw_have_its_shape_and_as_wide_a_span_as_the_recipe():
    views = get_recipe(PUBLISHED).train
    rng = np.random.default_rng(0)
    found = [reshape_views(views, Shape(8, 112), rng) for _ in range(200)]
    assert {v.clips.frame_interval for v in found} == set(range(2, 9))  # pyright: ignore
    assert {v.crop for v in found} == {ScaleJitterCrop(size=(112, 112), short_side=(128, 320))}
    found = [reshape_views(views, Shape(16, 158), rng) for _ in range(50)]
    assert {v.clips.frame_interval for v in found} == {2, 3, 4}  # pyright: ignore
    assert {v.crop.short_side for v in found} == {(181, 320)}  # pyright: ignore
    before = rng.bit_generator.state
    assert reshape_views(views, Shape(32, 224), rng) == reshape_views(views, None, rng) == views
    assert rng.bit_generator.state == before  # nothing is drawn where there is no choice
    dense = replace(views, clips=DenseClips(clip_len=32, frame_interval=2))
    video = ArrayVideo(np.zeros((300, 24, 24, 3), np.uint8), fps=30.0)
    for base in (views, dense):
        spans = []
        for _ in range(300):
            (frames,) = reshape_views(base, Shape(8, 112), rng).indices(video, rng)
            assert len(frames) == 8
            spans.append(int(frames[-1] - frames[0]) + 1)
        assert 15 <= min(spans) <= 17
        assert 57 <= max(spans) <= 64


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_training_runs_through_all_shapes_and_resumes_bit_for_bit(small, tiny, tmp_path, monkeypatch):
    """Inside of a phase and of a short cycle (step 4), and where a phase begins (step 2)."""
    train(small, tiny, tmp_path / "whole", workers=IN_PROCESS)
    steps = [row for row in rows(tmp_path / "whole") if "split" not in row]
    assert [row["step"] for row in steps] == list(range(1, 13))
    assert [row["epoch"] for row in steps] == [0.5, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.25, 3.5, 3.75, 4]
    schedule = [0.1, 0.55] + [1] * 6 + [0.1] * 4
    expected = [0.01 * a * b for a, b in zip(schedule, LONG_FACTORS, strict=True)]
    assert [row["lr"] for row in steps] == pytest.approx(expected)
    validated = [(row["step"], row["epoch"]) for row in rows(tmp_path / "whole") if "split" in row]
    assert validated == [(2, 1), (6, 2), (8, 3), (12, 4)]

    whole = load_state(tmp_path / "whole" / "last.pt")
    finish_step = TrainingLog.step
    for last, workers in ((2, 0), (4, 2)):

        def die(self, number, *arguments, last=last):
            finish_step(self, number, *arguments)
            if number == last + 1:
                raise KeyboardInterrupt

        out = tmp_path / str(last)
        with monkeypatch.context() as patch:
            patch.setattr(TrainingLog, "step", die)
            with pytest.raises(KeyboardInterrupt):
                train(small, tiny, out, workers=IN_PROCESS, save_seconds=0)
        assert load_state(out / "last.pt")["progress"]["step"] == last
        train(small, tiny, out, workers=WorkerSettings(num_workers=workers), resume=True)
        resumed = load_state(out / "last.pt")
        assert resumed["progress"] == whole["progress"]
        for name, tensor in whole["model"].items():
            assert torch.equal(tensor, resumed["model"][name]), name
        numbers = [
            [(row["step"], row["loss"], row.get("lr"), row["top1"]) for row in rows(run)]
            for run in (out, tmp_path / "whole")
        ]
        assert numbers[0] == numbers[1]


class Recording(nn.Module):
    """Notes what it is given: (training, clips, frames, side); out of memory with more than `most` clips."""

    seen: list[tuple[bool, int, int, int]] = []  # noqa: RUF012  of the test that runs
    most = 100

    def __init__(self, num_classes: int):
        super().__init__()
        self.fc = nn.Linear(3, num_classes)

    def forward(self, x):
        if self.training and len(x) > Recording.most:
            raise torch.OutOfMemoryError("out of memory")
        Recording.seen.append((self.training, len(x), x.shape[2], x.shape[3]))
        return self.fc(x.mean((2, 3, 4)))


@pytest.mark.parametrize(("most", "clips_per_device"), [(100, 1), (5, None)])
def test_parts_hold_as_many_more_clips_as_these_are_smaller(
    small, tiny, tmp_path, monkeypatch, most, clips_per_device
):
    """As asked for, and where memory does not hold a batch of two of the recipe's clips."""
    monkeypatch.setattr(Recording, "seen", [])
    monkeypatch.setattr(Recording, "most", most)
    phases = (
        Phase(epochs=1, batch=2, clip_len=8, side=24),
        Phase(epochs=1, batch=1, clip_len=16, side=32),
    )
    small = replace(
        small,
        model=Build(Recording),
        norm_clips=None,
        epochs=2,
        batch_size=2,
        multigrid=Multigrid(phases=phases, short_sides=(16,)),
        clips_per_device=clips_per_device,
    )
    train(small, tiny, tmp_path / "run")
    seen = [call[1:] for call in Recording.seen if call[0]]
    assert seen == [(4, 8, 16)] * 2 + [(2, 8, 24)] * 2 + [(4, 16, 16)] * 2 + [(1, 16, 32)] * 2
    # Statistics are measured, and scores validated, in the shape of the recipe.
    assert {call[2:] for call in Recording.seen if not call[0]} == {(16, 32)}


def test_memory_that_does_not_hold_a_part_is_one_line(small, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Recording, "most", 1)
    with pytest.raises(UserError, match="does not hold 8 clips at once; try --set clips_per_device=1"):
        train(replace(small, model=Build(Recording), norm_clips=None), tiny, tmp_path / "run")


def test_the_largest_batch_decides_about_shared_memory(small, tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "mmaction_lite.data.loading.loader.check_shared_memory", lambda *found: asked.append(found)
    )
    samples = read_split(tiny, "train")
    dataset = VideoDataset(samples, small.train, seed=0, batch_plan=BatchPlan(12, 1, SMALL))
    loader = training_loader(dataset, 0, 12)
    assert [(len(b.samples), *b.pixels.shape[2:4]) for b in loader] == [
        (size, *shape) for size, shape in zip(SIZES, SHAPES, strict=True)
    ]
    assert asked == [(4 * 8 * 24 * 24 * 3, 0)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda r: Phase(epochs=0, batch=1, clip_len=8, side=24),
            "Phase: epochs is 0; expected an integer, at least 1",
        ),
        (lambda r: Multigrid(phases=()), r"phases is \(\); expected a tuple of Phase\(...\), not empty"),
        (lambda r: replace(SMALL, short_sides=(16, 25)), r"short_sides is \(16, 25\); expected at most 24"),
        (lambda r: replace(r, epochs=5), "its phases have 4 epochs, the recipe has 5; change both"),
        (
            lambda r: apply_overrides(r, ["epochs=2"]),
            "its phases have 4 epochs, the recipe has 2; change both",
        ),
        (
            lambda r: replace(r, train=replace(r.train, clips=SegmentFrames(num_segments=16))),
            "train.clips are SegmentFrames; expected DenseClips or PySlowFastClips",
        ),
        (
            lambda r: replace(r, train=replace(r.train, crop=RandomCrop(size=(32, 32)))),
            "train.crop is RandomCrop; expected ScaleJitterCrop",
        ),
        (
            lambda r: replace(r, train=replace(r.train, crop=ScaleJitterCrop(size=(28, 28)))),
            "a phase has 8 frames of side 32; expected at most the 16 of side 28",
        ),
        (lambda r: multigrid(get_recipe("slowfast_r50_8x8x1_196e_kinetics400_rgb")), "schedule is Cosine"),
        (lambda r: multigrid(replace(get_recipe(STEPWISE), epochs=200), 0.01), "too few for 13 phases"),
        (lambda r: multigrid(get_recipe(PUBLISHED)), "is a multigrid training; expected"),
    ],
)
def test_what_does_not_go_with_multigrid_is_one_line(small, wrong, message):
    with pytest.raises(UserError, match=message) as caught:
        wrong(small)
    assert "\n" not in str(caught.value)


def test_settings_switch_off_the_short_cycle_and_the_groups():
    recipe = apply_overrides(get_recipe(PUBLISHED), ["multigrid.short_sides=()", "norm_clips=none"])
    assert recipe.multigrid is not None
    assert recipe.norm_clips is None
    sizes = {size for size, _ in BatchPlan(NUM_SAMPLES, recipe.batch_size, recipe.multigrid).batches}
    assert sizes == {512, 256, 128, 64}


def test_too_few_clips_for_the_largest_batch(small, tiny, tmp_path):
    message = r"12 clips are fewer than one batch of 16 \(8 times batch_size, .*batch_size=1$"
    with pytest.raises(UserError, match=message):
        train(replace(small, batch_size=2), tiny, tmp_path / "run")
    phases = tuple(replace(phase, batch=16) for phase in small.multigrid.phases)
    crowded = replace(small, batch_size=2, multigrid=replace(small.multigrid, phases=phases))
    with pytest.raises(UserError, match="use a recipe without multigrid"):
        train(crowded, tiny, tmp_path / "run")


def test_slowfast_takes_the_shapes_of_its_multigrid_training():
    """In the first phase two of 8 frames are slow."""
    model = slowfast_r50_8x8(num_classes=3, width=8)
    for frames, side in ((8, 56), (8, 79), (16, 79)):
        assert model(torch.randn(2, 3, frames, side, side)).isfinite().all()


def test_the_recipe_on_the_page_about_training():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "multigrid" in block)
    found = {}
    exec(block, found)
    assert found["mine"]().name == "slowfast_r50_multigrid_8x8x1_239e_kinetics400_rgb"
    assert get_recipe(PUBLISHED).name in page
    assert get_recipe(STEPWISE).name in page

import multiprocessing
import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.cache import Caches, VideoCache
from mmaction_lite.data.loading.loader import (
    TrainBatchSampler,
    VideoDataset,
    epoch_order,
    evaluation_loader,
    training_loader,
)
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.sources.source import ArrayVideo, open_source
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop, RandomResizedCrop, TenCrop, ThreeCrop
from mmaction_lite.data.views.samplers import DenseClips, SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.errors import UserError


def batches(tiny, recipe, num_workers=0, cache=None, first_step=0, last_step=6):
    samples = read_split(tiny, "train")
    dataset = VideoDataset(samples, recipe.train, cache, seed=3, batch_plan=BatchPlan(len(samples), 4))
    loader = training_loader(dataset, first_step, last_step, WorkerSettings(num_workers=num_workers))
    return [(batch.samples, batch.labels.tolist(), batch.pixels) for batch in loader]


def equal(one, other):
    return len(one) == len(other) and all(
        a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(one, other, strict=True)
    )


def test_order_is_a_new_permutation_every_epoch_and_can_begin_anywhere():
    steps = list(TrainBatchSampler(numbered(11), BatchPlan(11, 4), seed=0, first_step=0, last_step=6))
    draws = [draw for step in steps for draw, _ in step]
    assert draws == list(range(24))
    epochs = [[s for step in steps[i : i + 2] for _, s in step] for i in (0, 2, 4)]
    for epoch in epochs:
        assert len(set(epoch)) == 8
    assert epochs[0] != epochs[1]
    assert (
        list(TrainBatchSampler(numbered(11), BatchPlan(11, 4), seed=0, first_step=3, last_step=6))
        == steps[3:]
    )
    assert list(TrainBatchSampler(numbered(11), BatchPlan(11, 4), seed=1, first_step=0, last_step=6)) != steps


def test_batches_depend_on_seed_and_draw_alone(tiny, recipe):
    """Batches do not depend on the first step, the number of workers or the cache."""
    reference = batches(tiny, recipe)
    assert equal(batches(tiny, recipe, first_step=4), reference[4:])
    samples = read_split(tiny, "train")
    cache = Caches().of(samples, recipe.train)
    assert isinstance(cache, VideoCache)
    assert equal(batches(tiny, recipe, cache=cache), reference)
    assert equal(batches(tiny, recipe, num_workers=2), reference)
    assert equal(batches(tiny, recipe, num_workers=2, cache=cache), reference)
    other = replace(recipe, train=replace(recipe.train, flip=0.0))
    assert not equal(batches(tiny, other), reference)


def test_decoding_in_the_parent_does_not_hang_the_workers(tiny, recipe):
    """A container left open with decoder threads hangs forked children; ours are not forked from it."""
    samples = read_split(tiny, "train")
    with av.open(str(samples.path(0))) as container:
        container.streams.video[0].thread_type = "AUTO"
        next(container.decode(video=0))
        with open_source(samples.path(1)) as source:
            source.frames([5])
            assert len(batches(tiny, recipe, num_workers=2, last_step=3)) == 3
    assert not multiprocessing.active_children()


def test_training_views_without_short_side_are_cut_from_the_source(tiny):
    samples = read_split(tiny, "train")
    views = TrainViews(
        clips=SegmentFrames(num_segments=4), crop=RandomResizedCrop(size=(20, 28)), antialias=False
    )
    with open_source(samples.path(0)) as source:
        pixels, flips, _ = views.draw_views(source, np.random.default_rng(1), np.random.default_rng(2))
        (placement,) = views.crop.plan(48, 64, np.random.default_rng(2))
        (indices,) = views.clips(16, np.random.default_rng(1))
        expected = source.frames(indices, placement.box, placement.size, False)
    assert pixels.shape == (1, 4, 20, 28, 3)
    assert (pixels[0] == expected).all()
    assert flips.tolist() == [False]


def test_test_views_are_clips_then_crops():
    frames = np.random.default_rng(0).integers(0, 256, (10, 24, 32, 3), np.uint8)
    for crop in (CenterCrop(size=(16, 16)), ThreeCrop(size=(24, 24)), TenCrop(size=(16, 16))):
        views = TestViews(clips=DenseClips(clip_len=3, num_clips=2), crop=crop)
        read = views.read(ArrayVideo(frames))
        assert read.shape == (2, 3, 24, 32, 3)
        pixels = views.crops(torch.from_numpy(read)).numpy()
        assert pixels.shape == (views.num_views, *views.view_shape)
        for i, indices in enumerate(views.clips(10)):
            for j, ((top, left, h, w), _, flip) in enumerate(crop.plan(24, 32)):
                cut = frames[indices, top : top + h, left : left + w]
                assert (pixels[i * crop.num_crops + j] == (cut[:, :, ::-1] if flip else cut)).all()


def test_frames_smaller_than_the_crop_are_enlarged():
    views = TestViews(clips=SegmentFrames(num_segments=2), crop=CenterCrop(size=(16, 16)))
    read = views.read(ArrayVideo(np.full((3, 8, 12, 3), 7, np.uint8)))
    assert (views.crops(torch.from_numpy(read)) == 7).all()
    assert views.crops(torch.from_numpy(read)).shape == (1, 2, 16, 16, 3)


def test_testing_reads_every_video_once_in_order(tiny, recipe):
    dataset = VideoDataset(read_split(tiny, "train"), recipe.val)
    clips = [clip for clips in evaluation_loader(dataset, 5) for clip in clips]
    assert [clip.sample for clip in clips] == list(range(12))


@pytest.fixture
def damaged(tiny, tmp_path):
    """`tiny` with two broken training files."""
    for path in tiny.rglob("*.mp4"):
        copy = tmp_path / path.relative_to(tiny)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for name in ("up/0.mp4", "down/3.mp4"):
        (tmp_path / "train" / name).write_text("not a video")
    return tmp_path


@pytest.mark.parametrize("cached", [False, True])
def test_broken_videos_are_replaced_by_the_seed_and_reported_once(damaged, tiny, recipe, cached):
    samples = read_split(damaged, "train")
    broken = {samples.path(i).name: i for i in range(12) if samples.path(i).name in ("0.mp4", "3.mp4")}
    cache = Caches().of(samples, recipe.train) if cached else None
    dataset = VideoDataset(samples, recipe.train, cache, seed=3, batch_plan=BatchPlan(12, 4))
    read = list(training_loader(dataset, 0, 6))
    faults = [fault for batch in read for fault in batch.faults]
    assert sorted(fault.path for fault in faults) == sorted(str(samples.path(i)) for i in broken.values())
    for batch, (good_samples, _, good_pixels) in zip(read, batches(tiny, recipe), strict=True):
        assert not set(batch.samples) & set(broken.values())
        for i, sample in enumerate(good_samples):
            if sample not in broken.values():  # the other draws are what they were
                assert batch.samples[i] == sample
                assert torch.equal(batch.pixels[i], good_pixels[i])
    dataset = VideoDataset(samples, recipe.train, cache, seed=3, batch_plan=BatchPlan(12, 4))
    again = list(training_loader(dataset, 3, 6))
    assert [batch.samples for batch in again] == [batch.samples for batch in read[3:]]


def test_mirrored_views_carry_the_label_of_the_mirrored_class(tiny, tmp_path, recipe):
    for name, source in (("move_left", "up"), ("move_right", "down")):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "train" / name).symlink_to(tiny / "train" / source)
    samples = read_split(tmp_path, "train")
    plain, mirrored = (VideoDataset(samples, replace(recipe.train, flip=flip), seed=3) for flip in (0.0, 1.0))
    for draw in range(4):
        before, after = plain[draw, draw], mirrored[draw, draw]
        assert before.pixels is not None
        assert after.pixels is not None
        assert torch.equal(after.pixels, before.pixels.flip(3))
        assert after.labels.tolist() == [1 - before.labels.item()]
    with pytest.raises(
        UserError, match=r"class 'move_left' mirrored would be 'move_right', which is not a class"
    ):
        VideoDataset(replace(samples, classes=("move_left", "jump")), replace(recipe.train, flip=0.5), seed=3)


@pytest.mark.slow
def test_testing_many_videos_keeps_within_the_open_files_of_a_process(tiny, recipe, tmp_path):
    clip = next((tiny / "val").rglob("*.mp4"))
    (tmp_path / "test.txt").write_text(f"{clip} 0\n" * 600)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
    try:
        dataset = VideoDataset(read_split(tmp_path, "test"), recipe.val)
        counts = [len(clips) for clips in evaluation_loader(dataset, 8, WorkerSettings(num_workers=2))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert counts == [8] * 75


def test_reversed_views_carry_the_label_of_the_reversed_class(tiny, recipe):
    samples = read_split(tiny, "train")  # the classes down and up
    views = replace(recipe.train, clips=DenseClips(clip_len=4), crop=RandomCrop(size=(32, 32)))
    forward = VideoDataset(samples, views, seed=0)[(5, 0)]
    backward = VideoDataset(samples, replace(views, reverse=1.0), seed=0)[(5, 0)]
    assert forward.pixels is not None
    assert backward.pixels is not None
    assert torch.equal(forward.pixels.flip(1), backward.pixels)
    assert (1 - forward.labels).tolist() == backward.labels.tolist()


def test_class_balance_evens_out_the_classes():
    labels = np.repeat([0, 1, 3], [90, 9, 1])  # no sample of class 2
    samples = numbered(100, labels=labels)

    def order(balance, seed=0):
        return epoch_order(samples, samples.draw_weights(balance), np.random.default_rng(seed))

    plain, root, even = (order(balance) for balance in (0, 0.5, 1))
    assert sorted(plain) == list(range(100))
    assert sorted(np.bincount(labels[even]).tolist()) == [0, 33, 33, 34]
    in_proportion = np.array([9.487, 3, 0, 1]) * 100 / 13.487
    assert np.abs(np.bincount(labels[root]) - in_proportion).max() < 1
    assert len(set(even[labels[even] == 0])) >= 33  # of a large class nothing comes twice
    counts = np.bincount(even[labels[even] == 1], minlength=99)[90:]
    assert counts.max() - counts.min() <= 1
    assert (order(1) == even).all()
    assert (order(1, seed=1) != even).any()


def test_weights_say_how_often_a_clip_comes():
    weights = np.array([0, 1, 1, 2, 0.5, 0.5])
    samples = numbered(6, labels=np.array([0, 0, 0, 1, 2, 3]), weights=weights)
    seen = np.zeros(6)
    for seed in range(300):
        takes = np.bincount(
            epoch_order(samples, samples.draw_weights(0), np.random.default_rng(seed)), minlength=6
        )
        assert (np.abs(takes - 6 * weights / 5) < 1).all()
        seen += takes
    np.testing.assert_allclose(seen / 300, 6 * weights / 5, atol=0.1)


def test_processes_share_every_step():
    whole = list(TrainBatchSampler(numbered(11), BatchPlan(11, 4), seed=0, first_step=0, last_step=6))
    for number in (2, 4):
        pieces = [
            list(
                TrainBatchSampler(
                    numbered(11),
                    BatchPlan(11, 4),
                    seed=0,
                    first_step=0,
                    last_step=6,
                    rank=rank,
                    world_size=number,
                )
            )
            for rank in range(number)
        ]
        assert [
            [draw for rank_slice in step for draw in rank_slice] for step in zip(*pieces, strict=True)
        ] == whole


@pytest.mark.slow
def test_ten_per_cent_broken_files_do_not_change_the_good_draws(tiny, recipe, tmp_path):
    """A list of 60 clips, 6 of them broken in different ways; workers find them at different times."""
    clips = sorted((tiny / "train").rglob("*.mp4"))
    lines = []
    for number in range(60):
        file = tmp_path / f"{number}.mp4"
        data = clips[number % 12].read_bytes()
        if number % 10 == 7:
            data = (b"", data[: len(data) // 3], b"text", data[len(data) // 2 :], b"\0" * 500, b"RIFF")[
                number // 10
            ]
        file.write_bytes(data)
        lines.append(f"{file.name} {clips[number % 12].parent.name}\n")
    (tmp_path / "train.txt").write_text("".join(lines))
    samples = read_split(tmp_path, "train")
    runs = []
    for workers in (0, 2):
        dataset = VideoDataset(samples, recipe.train, seed=3, batch_plan=BatchPlan(60, 4))
        runs.append(list(training_loader(dataset, 0, 30, WorkerSettings(num_workers=workers))))
    for one, other in zip(*runs, strict=True):
        assert one.samples == other.samples
        assert torch.equal(one.pixels, other.pixels)
    broken = {str(samples.path(i)) for i in range(60) if i % 10 == 7}
    assert {fault.path for batch in runs[0] for fault in batch.faults} == broken
    assert {fault.path for batch in runs[1] for fault in batch.faults} == broken
    order = [sample for step in TrainBatchSampler(samples, BatchPlan(60, 4), 3, 0, 30) for _, sample in step]
    drawn = [sample for batch in runs[0] for sample in batch.samples]
    assert all(a == b for a, b in zip(order, drawn, strict=True) if a % 10 != 7)


@pytest.mark.slow
def test_a_file_that_vanishes_during_a_run_is_replaced(tiny, recipe, tmp_path):
    for clip in (tiny / "train").rglob("*.mp4"):
        copy = tmp_path / "train" / clip.relative_to(tiny / "train")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(clip.read_bytes())
    samples = read_split(tmp_path, "train")
    gone = samples.path(5)
    faults = []
    dataset = VideoDataset(samples, recipe.train, seed=3, batch_plan=BatchPlan(12, 4))
    for number, batch in enumerate(training_loader(dataset, 0, 30, WorkerSettings(num_workers=2))):
        if number == 3:
            gone.unlink()
        faults += batch.faults
    assert {fault.path for fault in faults} == {str(gone)}
    assert "no such file" in faults[0].reason


@pytest.mark.slow
def test_memory_of_a_worker_stays_flat(tiny, recipe):
    """Over 2,000 draws, after the first 200."""
    code = """
import sys
from pathlib import Path
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.loader import VideoDataset
from tests.data.test_loader import small_views
samples = read_split(Path(sys.argv[1]), "train")
dataset = VideoDataset(samples, small_views(), seed=0)
resident = []
for draw in range(2000):
    dataset[draw, draw % len(samples)]
    if draw in (199, 1999):
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20)
print(*resident)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    output = subprocess.check_output([sys.executable, "-c", code, str(tiny)], text=True, env=environment)
    early, late = map(float, output.split())
    assert late - early < 8, (early, late)


def numbered(count, **columns):
    """Samples that are only numbers, all of one class."""
    labels = np.zeros(count, np.int64)
    paths = PackedStrings([str(number) for number in range(count)])
    return replace(Samples(paths, labels, ("a", "b", "c", "d"), Path(), "numbers"), **columns)


def small_views():
    return TrainViews(clips=SegmentFrames(num_segments=4), crop=RandomResizedCrop(size=(20, 28)))

"""Drills: workers that hang or die, and shared memory that is too small."""

import dataclasses
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.utils.data import dataloader

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading import workers
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import VideoDataset, evaluation_loader, training_loader
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.errors import UserError, VideoError


@dataclass(frozen=True, kw_only=True)
class Trap:
    """Part of views that fail at the file `bad`: they open a pipe, which never returns, or end the process.

    Args:
        bad: path of the file.
        pipe: a named pipe without a writer; "" to end the process instead.
        once: a file whose presence says that the trap has snapped; "" lets it snap every time.
    """

    bad: str
    pipe: str = ""
    once: str = ""

    def spring(self, source):
        if source.path != self.bad or (self.once and Path(self.once).exists()):
            return
        if self.once:
            Path(self.once).touch()
        if self.pipe:
            Path(self.pipe).read_bytes()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class TrappedTrainViews(Trap, TrainViews):
    def draw_views(self, source, clip_rng, rng):
        self.spring(source)
        return super().draw_views(source, clip_rng, rng)


@dataclass(frozen=True, kw_only=True)
class TrappedTestViews(Trap, TestViews):
    def read(self, source):
        self.spring(source)
        return super().read(source)


def fields(views):
    return {field.name: getattr(views, field.name) for field in dataclasses.fields(views)}


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="this system has no priorities to ask for")
def test_decoding_workers_have_a_lower_priority_than_the_training(tiny, recipe):
    samples = read_split(tiny, "train")
    dataset = VideoDataset(samples, recipe.train, seed=3, batch_plan=BatchPlan(len(samples), 4))
    batches = iter(training_loader(dataset, 0, 6, WorkerSettings(num_workers=2)))
    for _ in range(2):  # one batch of each worker, which has then stored its process id
        next(batches)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    found = [os.getpriority(os.PRIO_PROCESS, int(pid)) for pid in dataset.worker_status.table[:, 0]]
    assert found == 2 * [min(19, own + workers.NICENESS)]


def trained(samples, views, num_workers, hang_seconds=2.0):
    lines = []
    dataset = VideoDataset(samples, views, seed=3, batch_plan=BatchPlan(len(samples), 4))
    settings = WorkerSettings(num_workers=num_workers, hang_seconds=hang_seconds)
    loader = training_loader(dataset, 0, 6, settings, report=lines.append)
    return list(loader), lines


def bad_sample(samples):
    return next(i for i in range(len(samples)) if samples.path(i).name == "3.mp4")


def assert_others_are_unchanged(found, expected, bad):
    """Every batch is there, in order, and differs only where the bad video was replaced."""
    assert len(found) == len(expected)
    for batch, good in zip(found, expected, strict=True):
        assert bad not in batch.samples
        for i, sample in enumerate(good.samples):
            if sample != bad:
                assert batch.samples[i] == sample
                assert torch.equal(batch.pixels[i], good.pixels[i])


@pytest.mark.slow
def test_a_hanging_file_is_named_and_replaced_and_no_draw_is_lost(tiny, recipe, tmp_path):
    samples = read_split(tiny, "train")
    bad = bad_sample(samples)
    os.mkfifo(tmp_path / "pipe")
    views = TrappedTrainViews(**fields(recipe.train), bad=str(samples.path(bad)), pipe=str(tmp_path / "pipe"))
    expected, _ = trained(samples, recipe.train, 0)
    start = time.time()
    found, lines = trained(samples, views, 2)
    assert time.time() - start < 40
    assert_others_are_unchanged(found, expected, bad)
    (line,) = lines
    assert line.startswith(f"{samples.path(bad)}: reading it took more than 2 s; restarted the decoding")
    assert {fault.path for batch in found for fault in batch.faults} == {str(samples.path(bad))}


@pytest.mark.slow
def test_a_killed_worker_loses_no_batch(tiny, recipe, tmp_path):
    """The file that the worker was reading is read again; a single death can have another cause."""
    samples = read_split(tiny, "train")
    bad = str(samples.path(bad_sample(samples)))
    views = TrappedTrainViews(**fields(recipe.train), bad=bad, once=str(tmp_path / "snapped"))
    expected, _ = trained(samples, recipe.train, 0)
    found, lines = trained(samples, views, 2, hang_seconds=10.0)
    assert lines == ["a decoding worker died; restarted the decoding workers, no batch is lost"]
    for batch, good in zip(found, expected, strict=True):
        assert batch.samples == good.samples
        assert torch.equal(batch.pixels, good.pixels)
        assert not batch.faults


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError])
def test_a_connection_that_a_dying_worker_breaks_costs_nothing(tiny, recipe, monkeypatch, error):
    samples = read_split(tiny, "train")
    expected, _ = trained(samples, recipe.train, 0)
    fetch, kills = dataloader._MultiProcessingDataLoaderIter._next_data, [True]

    def fail(self):
        if not kills:
            return fetch(self)
        kills.clear()
        os.kill(self._workers[0].pid, signal.SIGKILL)
        raise error

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_next_data", fail)
    found, lines = trained(samples, recipe.train, 2, hang_seconds=10.0)
    assert lines == ["a decoding worker died; restarted the decoding workers, no batch is lost"]
    for batch, good in zip(found, expected, strict=True):
        assert torch.equal(batch.pixels, good.pixels)


@pytest.mark.slow
def test_a_file_that_kills_two_workers_is_skipped(tiny, recipe):
    samples = read_split(tiny, "train")
    bad = bad_sample(samples)
    views = TrappedTrainViews(**fields(recipe.train), bad=str(samples.path(bad)))
    expected, _ = trained(samples, recipe.train, 0)
    found, lines = trained(samples, views, 2, hang_seconds=10.0)
    assert_others_are_unchanged(found, expected, bad)
    assert "2 decoding workers died while reading it" in lines[-1]
    assert len(lines) == 2


@pytest.mark.slow
def test_a_test_counts_a_hanging_file_as_unreadable(tiny, recipe, tmp_path):
    samples = read_split(tiny, "train")
    bad = bad_sample(samples)
    os.mkfifo(tmp_path / "pipe")
    views = TrappedTestViews(**fields(recipe.val), bad=str(samples.path(bad)), pipe=str(tmp_path / "pipe"))
    settings = WorkerSettings(num_workers=2, hang_seconds=2.0)
    loader = evaluation_loader(VideoDataset(samples, views), 5, settings, report=lambda line: None)
    clips = [clip for clips in loader for clip in clips]
    assert [clip.sample for clip in clips] == list(range(12))
    assert [clip.sample for clip in clips if clip.pixels is None] == [bad]
    assert "took more than 2 s" in clips[bad].faults[0].reason


def test_a_named_pipe_is_an_unreadable_video(tiny, recipe, tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    (tmp_path / "train.txt").write_text("a.mp4 0\n")
    clip = VideoDataset(read_split(tmp_path, "train"), recipe.val)[0]
    assert clip.faults[0].reason.endswith("a.mp4: is neither a file nor a directory")


def test_other_errors_in_a_worker_are_raised(tiny, recipe):
    samples = read_split(tiny, "train")
    dataset = VideoDataset(samples, recipe.train, seed=3, batch_plan=BatchPlan(len(samples), 4))
    loader = training_loader(dataset, 0, 6)
    dataset.views = None  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError):
        list(loader)


def test_too_little_shared_memory_is_an_error_before_the_first_batch(tiny, recipe, monkeypatch):
    usage = type("Usage", (), {"free": 64 << 20})
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda path: usage)
    workers.check_shared_memory(8 << 20, 4)
    workers.check_shared_memory(100 << 20, 0)
    with pytest.raises(
        UserError, match=r"has 64 MiB free, and 5 workers .* of 8 MiB each need 80 MiB; .*--workers 4"
    ):
        workers.check_shared_memory(8 << 20, 5)


def test_an_error_clears_the_recorded_sample(monkeypatch):
    """Otherwise an idle worker would appear to hang in a broken file."""
    monkeypatch.setattr(workers, "get_worker_info", lambda: type("Info", (), {"id": 1}))
    notes = workers.WorkerStatus(2)
    try:
        with notes.reading(7):
            assert notes.hung(-1.0) == [7]
            raise VideoError("broken")
    except VideoError:
        pass
    assert notes.hung(-1.0) == []


@pytest.mark.slow
def test_a_dead_worker_is_recognized_by_its_exit_code(tiny, recipe, tmp_path, monkeypatch):
    """The text of PyTorch's error does not matter."""
    read = dataloader._MultiProcessingDataLoaderIter._try_get_data

    def read_or_raise(self, *arguments):
        try:
            return read(self, *arguments)
        except RuntimeError:
            raise RuntimeError("other words") from None

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_try_get_data", read_or_raise)
    samples = read_split(tiny, "train")
    bad = str(samples.path(bad_sample(samples)))
    views = TrappedTrainViews(**fields(recipe.train), bad=bad, once=str(tmp_path / "snapped"))
    found, lines = trained(samples, views, 2, hang_seconds=10.0)
    assert [len(batch.samples) for batch in found] == [4] * 6
    assert lines == ["a decoding worker died; restarted the decoding workers, no batch is lost"]


class Raising:
    """A dataset with an error of PyTorch's own type and words."""

    def __init__(self):
        self.worker_status = workers.WorkerStatus()

    def __len__(self):
        return 4

    def __getitem__(self, number):
        raise RuntimeError("DataLoader timed out after 5 seconds")


def test_a_runtime_error_of_the_dataset_is_raised():
    loader = workers.FaultTolerantLoader(
        Raising(), lambda done: {}, 4, WorkerSettings(num_workers=1), name=str, report=pytest.fail
    )
    with pytest.raises(RuntimeError, match="timed out after 5 seconds"):
        next(iter(loader))


def test_worker_settings_are_checked():
    with pytest.raises(UserError, match="num_workers is -1; expected an integer, at least 0, or None"):
        WorkerSettings(num_workers=-1)
    with pytest.raises(UserError, match="hang_seconds is 0; expected a number, above 0"):
        WorkerSettings(hang_seconds=0)

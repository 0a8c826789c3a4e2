"""Clips are read in order, in batches, with and without worker processes."""

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from mmaction_lite.data.loading import decoder_launch
from mmaction_lite.data.loading.decoder_launch import worker_count
from mmaction_lite.data.loading.worker_settings import IN_PROCESS, WorkerSettings
from mmaction_lite.data.sources.source import ArrayVideo
from mmaction_lite.data.views.samplers import TimedClips
from mmaction_lite.inference.batches import read_batches

DEFAULT = WorkerSettings()


@pytest.fixture
def videos(tiny, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"broken")
    return [*sorted((tiny / "val").rglob("*.mp4"))[:3], tmp_path / "broken.mp4", tmp_path / "gone.mp4"]


def test_batches_hold_the_clips_in_order(videos, recipe):
    read = list(read_batches(videos, recipe.test, 2, IN_PROCESS))
    assert [len(batch) for batch in read] == [2, 2, 1]
    items = [item for batch in read for item in batch]
    assert [item.name for item in items] == list(map(str, videos))
    assert [item.pixels is None for item in items] == [False, False, False, True, True]
    assert items[3].reason.startswith(f"{videos[3]}: ")
    assert items[4].reason == f"{videos[4]}: no such file"


def test_an_iterator_is_read_one_batch_at_a_time(recipe):
    taken = []

    def arrays():
        for number in range(6):
            taken.append(number)
            yield np.zeros((4, 48, 64, 3), np.uint8)

    first = next(read_batches(arrays(), recipe.test, 2, WorkerSettings(num_workers=2)))
    assert [item.name for item in first] == ["array 0", "array 1"]
    assert taken == [0, 1]


def test_a_video_without_a_frame_rate_is_a_fault_with_a_name(recipe):
    views = replace(recipe.test, clips=TimedClips(clip_len=4, target_fps=10))
    pixels = np.zeros((4, 48, 64, 3), np.uint8)
    ((item,),) = read_batches([ArrayVideo(pixels, float("nan"))], views, 2, IN_PROCESS)
    assert item.reason.startswith("video 0: TimedClips: the video's frame rate is nan")


def test_few_small_files_start_no_workers(videos, monkeypatch):
    assert worker_count(videos, DEFAULT) == 0
    assert worker_count(videos[:1], DEFAULT) == 0
    assert worker_count(videos[:1], WorkerSettings(num_workers=1)) == 1
    assert worker_count([*videos] * 20, DEFAULT) == DEFAULT.count()
    assert worker_count(["https://host/a.mp4"] * 5, DEFAULT) == DEFAULT.count()
    monkeypatch.setattr(decoder_launch, "MANY_BYTES", 100)
    assert worker_count(videos, DEFAULT) == DEFAULT.count()
    assert worker_count(videos * 20, IN_PROCESS) == 0


class Faulty:
    """Views that block on one file."""

    def __init__(self, views):
        self.views, self.video_bytes = views, views.video_bytes

    def read(self, source):
        if source.path.endswith("hang.mp4"):
            time.sleep(600)
        return self.views.read(source)


@pytest.mark.slow
def test_workers_read_the_same_clips_and_survive_a_hang(videos, recipe, tmp_path):
    expected = [item for batch in read_batches(videos, recipe.test, 2, IN_PROCESS) for item in batch]
    videos.insert(1, Path(shutil.copy(videos[0], tmp_path / "hang.mp4")))
    reports: list[str] = []
    # With a second process, no other one is started if that has read the rest in time.
    workers = WorkerSettings(num_workers=1, hang_seconds=2.0)
    read = read_batches(videos, cast(Any, Faulty(recipe.test)), 1, workers, report=reports.append)
    found = [item for batch in read for item in batch]
    assert [item.name for item in found] == list(map(str, videos))
    assert found[1].reason == f"{videos[1]}: reading it took more than 2 s"
    assert len(reports) == 1
    for one, other in zip([found[0], *found[2:]], expected, strict=True):
        assert one.reason == other.reason
        assert (one.pixels is None) == (other.pixels is None)
        assert other.pixels is None or torch.equal(cast(Any, one.pixels), other.pixels)

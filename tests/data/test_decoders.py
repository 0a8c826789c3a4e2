"""Decoding processes read every video once and in order, and survive videos that end or block them."""

import os
import time

import numpy as np
import pytest

from mmaction_lite.data.loading.decoders import Decoders
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import UserError

TWO = WorkerSettings(num_workers=2, hang_seconds=2.0)


class Fatal:
    """Views that end the process at one file, block at another, and raise at a third."""

    def __init__(self, views):
        self.views = views

    def read(self, source):
        if source.path.endswith("fatal.mp4"):
            os._exit(3)
        if source.path.endswith("hang.mp4"):
            time.sleep(600)
        if source.path.endswith("bug.mp4"):
            raise ZeroDivisionError("a bug")
        return self.views.read(source)


@pytest.fixture
def videos(tiny):
    return sorted((tiny / "val").rglob("*.mp4"))


@pytest.mark.slow
def test_videos_are_read_in_order_and_equal_those_of_this_process(videos, recipe, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"broken")
    paths = [*videos, broken, *videos[:2]]
    with Decoders(paths, recipe.test, TWO) as decoders:
        read = list(decoders)
    assert [each.pixels is None for each in read] == [path == broken for path in paths]
    assert read[len(videos)].reason.startswith(f"{broken}: ")
    for path, each in zip(paths, read, strict=True):
        if each.pixels is not None:
            with Video(path) as video:
                expected = recipe.test.read(video)
                assert each.pixels.shape[2:4] == video.size  # this process resizes
            np.testing.assert_array_equal(recipe.test.resize(each.pixels, each.size), expected)


@pytest.mark.slow
def test_a_video_that_ends_or_blocks_its_process_is_given_up(videos, recipe, tmp_path):
    for name in ("fatal.mp4", "hang.mp4"):
        (tmp_path / name).write_bytes(videos[0].read_bytes())
    reports: list[str] = []
    paths = [videos[0], tmp_path / "fatal.mp4", tmp_path / "hang.mp4", *videos]
    with Decoders(paths, Fatal(recipe.test), TWO, report=reports.append) as decoders:
        read = list(decoders)
    assert [each.pixels is None for each in read] == [False, True, True] + [False] * len(videos)
    assert read[1].reason == f"{paths[1]}: 2 decoding workers died while reading it"
    assert read[2].reason == f"{paths[2]}: reading it took more than 2 s"
    assert len(reports) == 3
    assert reports[0] == "a decoding worker died; restarted a decoding worker, no video is lost"


@pytest.mark.slow
def test_an_unexpected_error_ends_the_run(videos, recipe, tmp_path):
    (tmp_path / "bug.mp4").write_bytes(videos[0].read_bytes())
    decoders = Decoders([tmp_path / "bug.mp4"], Fatal(recipe.test), TWO)
    with decoders, pytest.raises(RuntimeError, match=r"bug\.mp4: .*a bug"):
        list(decoders)


def test_views_that_cannot_be_sent_are_an_error():
    class Local:
        pass

    with pytest.raises(UserError, match="the views cannot be sent to decoding workers"):
        Decoders([], Local(), TWO)

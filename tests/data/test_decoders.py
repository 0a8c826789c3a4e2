"""Decoding processes read every video once and in order, and survive videos that end or block them."""

import os
import subprocess
import sys
import time
from collections import deque
from io import BytesIO
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from mmaction_lite.data.loading import decoders as decoders_module
from mmaction_lite.data.loading.decoders import AHEAD_BYTES, Decoders, _Decoder
from mmaction_lite.data.loading.worker_faults import CRASHED
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.data.sources.video import Video
from mmaction_lite.errors import UserError

TWO = WorkerSettings(num_workers=2, hang_seconds=2.0)


class Fatal:
    """Views that end the process at one file, and block at another."""

    def __init__(self, views):
        self.views = views

    def read_small(self, source, most_bytes):
        if source.path.endswith("fatal.mp4"):
            os._exit(3)
        if source.path.endswith("hang.mp4"):
            time.sleep(600)
        return self.views.read_small(source, most_bytes)


class Wrong:
    """Views with a bug, which cannot leave out the resizing."""

    def read(self, source):
        raise ZeroDivisionError("a bug")


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
def test_a_video_that_ends_or_blocks_its_process_is_given_up(videos, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(decoders_module, "FIRST_SECONDS", 0.0)
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
def test_an_unexpected_error_ends_the_run(videos):
    decoders = Decoders(videos[:1], Wrong(), TWO)
    with decoders, pytest.raises(RuntimeError, match=r"13\.mp4: .*a bug") as raised:
        list(decoders)
    assert 'raise ZeroDivisionError("a bug")' in str(raised.value)  # the traceback


@pytest.mark.slow
def test_a_result_without_memory_gives_up_its_video(videos, recipe, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(decoders_module, "_read_pixels", fail)
    monkeypatch.setattr(decoders_module, "END_SECONDS", 0.1)
    with Decoders(videos[:1], recipe.test, TWO, report=lambda line: None) as decoders:
        assert [each.reason for each in decoders] == [f"{videos[0]}: {CRASHED}"]


MAIN_VIEWS = """
import os, subprocess, sys
import numpy as np
from mmaction_lite.data.loading.decoders import Decoders
from mmaction_lite.data.loading.worker_settings import WorkerSettings

class Loud:
    def read_small(self, source, most_bytes):
        print("x", flush=True)
        os.write(2, b"x")
        subprocess.run(["cat"], check=True)
        return np.full((1, 2, 4, 4, 3), len(source), np.uint8), None

if __name__ == "__main__":
    with Decoders(sys.argv[1:], Loud(), WorkerSettings(num_workers=1)) as decoders:
        print(*[each.pixels.max() for each in decoders])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs sh")
def test_views_of_the_main_module_may_print_and_read_standard_input(videos, tmp_path):
    """Standard error is closed, as for some services: its number must not be given to the results."""
    (tmp_path / "main.py").write_text(MAIN_VIEWS)
    command = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, tmp_path / "main.py", *videos[:2]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "16 16\n"


def test_tasks_of_ended_processes_wait_in_order(monkeypatch):
    """Otherwise the next video waits behind one that does not fit into memory, which waits for the next."""
    decoders = Decoders([str(number) for number in range(9)], None, TWO, report=lambda line: None)
    decoders._waiting = deque([8])
    monkeypatch.setattr(decoders_module, "launch", lambda count: [None])
    monkeypatch.setattr(decoders, "_start", lambda process: None)
    for tasks in ([2, 3], [6]):
        ended = _Decoder(
            cast(Any, SimpleNamespace(wait=int, kill=int, returncode=0, stdin=None, stdout=None))
        )
        ended.tasks.extend(tasks)
        decoders._replace(ended)
    assert list(decoders._waiting) == [2, 3, 6, 8]


def test_the_memory_limits_the_videos_that_are_read_ahead():
    decoders = Decoders([str(number) for number in range(99)], None, TWO)
    workers = [_Decoder(cast(Any, SimpleNamespace(stdin=BytesIO()))) for _ in range(2)]
    decoders._decoders = workers

    def assigned() -> int:
        for worker in workers:
            decoders._assign(worker)
        return decoders._waiting[0]

    assert assigned() == 4  # the size of clips is not known yet
    decoders._largest = AHEAD_BYTES // 6
    assert assigned() == 6
    decoders._largest = 1
    assert assigned() == 8
    workers[0].tasks.clear()
    decoders._ahead_bytes, decoders._yielded = AHEAD_BYTES, 5
    assert assigned() == 9


def test_views_that_cannot_be_sent_are_an_error():
    class Local:
        pass

    with pytest.raises(UserError, match="the views cannot be sent to decoding workers"):
        Decoders([], Local(), TWO)

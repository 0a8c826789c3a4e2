"""The timeline of an uploaded video equals that of the command, also for damaged videos."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmaction_lite.data.sources.source import ArrayVideo, Source
from mmaction_lite.errors import VideoError
from mmaction_lite.inference.long_video import score_video
from mmaction_lite.inference.segment_files import csv_text, srt_text, vtt_text
from mmaction_lite.inference.segments import PathRule, find_segments
from mmaction_lite.inference.windows import Windows
from mmaction_lite.serve import timeline as timelines
from mmaction_lite.serve.decoding import Reading
from mmaction_lite.serve.jobs import CancelledJobError, Job
from mmaction_lite.serve.models import KnownModel
from mmaction_lite.serve.problems import Problem
from mmaction_lite.serve.readers import Reader, VideoLimits
from mmaction_lite.serve.timeline import Question, Timeline, Worker, run_timeline, split_frames
from tests.conftest import brightening
from tests.exports import carded, small_protocol

LIMITS = VideoLimits(max_seconds=60, max_frames=10_000, max_side=1000)
WINDOWS = Windows(seconds=0.5, stride=0.13)
RULE = PathRule(switch=0.1, threshold=0.0)


class Failing(ArrayVideo):
    """Frames 40 to 44 cannot be read."""

    def frames(self, indices: Any, *arguments: Any, **options: Any) -> np.ndarray:
        if any(40 <= index < 45 for index in np.asarray(indices)):
            raise VideoError("secret/video: frame 40 is damaged")
        return super().frames(indices, *arguments, **options)


@pytest.fixture(scope="module")
def model() -> Any:
    return carded("tsm_r10", small_protocol(), width=8)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.concatenate([brightening(number) for number in range(6)])


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def worker_of(loop: asyncio.AbstractEventLoop, source: Source, model: Any) -> Worker:
    """A worker that reads and computes in the event loop."""

    async def read(reader: Reader) -> Reading:
        return Reading(*reader.read_described(source), 0.0, 0.0)

    async def compute(function: Any) -> Any:
        return function(model)

    return Worker(loop, Path("secret/video"), read, compute, LIMITS)


def question_of(model: Any, windows: Windows = WINDOWS) -> Question:
    return Question(KnownModel("small", "weights", model.card, 0, False), windows, RULE, 2)


def run(job: Job, loop: asyncio.AbstractEventLoop, source: Source, model: Any) -> Timeline:
    run_timeline(job, question_of(model), worker_of(loop, source, model))
    assert isinstance(job.value, Timeline)
    return job.value


@torch.no_grad()
@pytest.mark.parametrize("kind", [ArrayVideo, Failing])
def test_the_results_equal_those_of_the_command(kind, model, loop, pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(timelines, "PIECE_BYTES", 20 * 24 * 32 * 3)  # several pieces
    source, job = kind(pixels, 25.0), Job(tmp_path, Path("video"))
    timeline = run(job, loop, source, model)
    expected = score_video(model, source, WINDOWS)
    segments = find_segments(expected, RULE)
    assert timeline.segments
    assert [(s.label, s.first_frame, s.end_frame) for s in timeline.segments] == [
        (s.label, s.first_frame, s.end_frame) for s in segments
    ]
    rows = timeline.rows(0, 1000)
    assert [row["start"] for row in rows] == [number * 0.13 for number in expected.numbers.tolist()]
    for row, scores in zip(rows, expected.scores, strict=True):
        found = {top["index"]: top["probability"] for top in row["top"]}
        np.testing.assert_allclose([found[0], found[1]], scores, atol=1e-5)
        assert row["top"][0]["probability"] >= row["top"][1]["probability"]
    content = json.loads((tmp_path / "result.json").read_text())
    line = f"{expected.plan}; {RULE}"
    assert (content["protocol"], content["duration_seconds"]) == (line, expected.duration)
    assert content["windows"] == rows
    assert "secret" not in str(content)
    assert content["notes"] == [note.replace("secret/video", "the video") for note in expected.notes]
    assert bool(content["notes"]) == (kind is Failing)
    assert (tmp_path / "result.csv").read_text() == csv_text([("video", timeline.segments)], line)
    assert (tmp_path / "result.srt").read_text() == srt_text(timeline.segments)
    assert (tmp_path / "result.vtt").read_text() == vtt_text(timeline.segments, line)


def test_results_that_cannot_be_stored_are_a_problem(model, loop, pixels, tmp_path):
    with pytest.raises(Problem, match="the results cannot be stored"):
        run(Job(tmp_path / "missing", Path("video")), loop, ArrayVideo(pixels, 25.0), model)


def test_progress_counts_windows(model, loop, pixels, tmp_path):
    job, seen = Job(tmp_path, Path("video")), []
    report = job.report
    job.report = lambda done, total: seen.append((done, total)) or report(done, total)
    timeline = run(job, loop, ArrayVideo(pixels, 25.0), model)
    assert seen[0] == (0, timeline.count)
    assert seen[-1] == (timeline.count, timeline.count)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_rows_are_pages_of_the_windows(model, loop, pixels, tmp_path):
    timeline = run(Job(tmp_path, Path("video")), loop, ArrayVideo(pixels, 25.0), model)
    rows = timeline.rows(0, timeline.count)
    pages = [timeline.rows(first, 5) for first in range(0, timeline.count, 5)]
    assert [row for page in pages for row in page] == rows
    assert timeline.rows(timeline.count, 5) == []


class Dark(ArrayVideo):
    """No frame can be read."""

    def frames(self, *arguments: Any, **options: Any) -> np.ndarray:
        raise VideoError("secret/video: damaged")


@pytest.mark.parametrize(
    ("source", "windows", "kind"),
    [
        (Dark(brightening(0), 25.0), WINDOWS, "unreadable-video"),
        (ArrayVideo(brightening(0), float("nan")), WINDOWS, "unreadable-video"),
        (ArrayVideo(brightening(0), 25.0), Windows(seconds=0.1, stride=0.01), "invalid-value"),
    ],
)
def test_videos_without_a_timeline(source, windows, kind, model, loop, tmp_path, monkeypatch):
    monkeypatch.setattr(timelines, "MOST_WINDOWS", 10)
    with pytest.raises(Problem) as caught:
        run_timeline(Job(tmp_path, Path("x")), question_of(model, windows), worker_of(loop, source, model))
    assert caught.value.kind == kind
    assert "secret" not in str(caught.value)


def test_a_job_that_waits_notices_its_end(model, loop, tmp_path):
    job, cancelled = Job(tmp_path, Path("video")), threading.Event()

    async def read(reader: Reader) -> Reading:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        raise AssertionError

    worker = worker_of(loop, ArrayVideo(brightening(0)), model)._replace(read=read)
    threading.Timer(0.05, job.stop.set).start()
    with pytest.raises(CancelledJobError):
        run_timeline(job, question_of(model), worker)
    assert cancelled.wait(5)


def test_pieces_are_limited_by_memory_and_time(monkeypatch):
    monkeypatch.setattr(timelines, "PIECE_BYTES", 3 * 10 * 10 * 4)
    monkeypatch.setattr(timelines, "PIECE_PIXELS", 100 * 100 * 50)
    wanted = np.array([0, 1, 2, 3, 4, 5, 100, 140, 160, 1000])
    pieces = split_frames(wanted, (100, 100), (10, 10))
    assert [piece.tolist() for piece in pieces] == [[0, 1, 2, 3], [4, 5], [100, 140], [160], [1000]]
    assert [len(piece) for piece in split_frames(wanted, (1000, 1000), (1000, 1000))] == [1] * 10

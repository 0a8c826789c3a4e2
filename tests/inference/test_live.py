"""Answers about live sources: equal to those of the recorded video, late by a bounded time, never mixed."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmaction_lite.data.sources.capture import Capture, LiveFrame
from mmaction_lite.data.sources.live import CaptureSettings
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.errors import VideoError
from mmaction_lite.inference.live import Answer, watch
from mmaction_lite.inference.predict import load_for_inference
from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.inference.windows import Windows, read_windows
from mmaction_lite.weights.card import ModelCard, card_of, save_weights
from tests.conftest import brightening, small_recipe, write_video
from tests.data.stream_server import serving

pytestmark = pytest.mark.usefixtures("short_pauses")
WINDOWS = Windows(seconds=0.6, stride=0.25)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> nn.Module:
    card = ModelCard.of(small_recipe(), ("down", "up"))
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    network = card.build()
    for weight in network.parameters():  # scores that differ between windows
        weight.data.mul_(1.5)
    save_weights(path, network.state_dict(), card)
    return load_for_inference(path)


Expected = list[tuple[float, float, np.ndarray]]


def recorded(model: nn.Module, path: Path, windows: Windows = WINDOWS) -> Expected:
    """Start, end and sorted scores of the windows of a file."""
    card = card_of(model)
    with open_source(path) as source:
        plan = windows.plan(card.test, source.fps)
        return [
            (
                window.start_seconds,
                window.end_seconds,
                card.task.ranked(
                    compute_scores(model, [torch.from_numpy(window.clips)], plan.protocol)[0], card.classes
                )[1],
            )
            for window in read_windows(source, plan)
        ]


def check_equal(answers: list[Answer], expected: Expected) -> None:
    assert len(answers) == len(expected)
    for answer, (start, end, scores) in zip(answers, expected, strict=True):
        assert (answer.start_seconds, answer.end_seconds) == pytest.approx((start, end))
        np.testing.assert_array_equal(answer.scores, scores)


@pytest.mark.parametrize("speed", [0, 4])
def test_answers_equal_those_of_the_recorded_file(model, transport, speed):
    with Capture(transport, CaptureSettings(speed=speed)) as capture:
        answers = list(watch(model, capture, WINDOWS))
    expected = recorded(model, transport)
    check_equal(answers, expected)
    assert len({answer.scores.tobytes() for answer in answers}) > 3
    first = answers[0]
    assert first.labels[0] in ("down", "up")
    assert "windows of 0.6 s every 0.25 s" in first.protocol
    assert 0 < first.latency_seconds < 2
    assert abs(first.time.timestamp() - time.time()) < 10
    assert answers[-1].counts.dropped == answers[-1].skipped == 0


def test_answers_about_a_stream_equal_those_of_its_recording(model, transport):
    data = transport.read_bytes()
    with (
        serving(lambda _, send: send(data), length=len(data)) as server,
        Capture(server.address, CaptureSettings(speed=4)) as capture,
    ):
        answers = list(watch(model, capture, WINDOWS))
    check_equal(answers, recorded(model, transport))


def test_a_loop_repeats_the_answers(model, transport):
    expected = recorded(model, transport)
    with Capture(transport, CaptureSettings(speed=0, loop=True)) as capture:
        answers = [
            answer
            for answer, _ in zip(watch(model, capture, WINDOWS), range(2 * len(expected)), strict=False)
        ]
    check_equal(answers[: len(expected)], expected)
    shifted = [(start + 2.0, end + 2.0, scores) for start, end, scores in expected]
    check_equal(answers[len(expected) :], shifted)
    assert [answer.part for answer in answers] == [0] * len(expected) + [1] * len(expected)


def test_a_video_shorter_than_a_window_has_one_answer(model, transport):
    long = Windows(seconds=10.0, stride=1.0)
    with Capture(transport, CaptureSettings(speed=0)) as capture:
        check_equal(list(watch(model, capture, long)), recorded(model, transport, long))


def test_windows_begin_again_after_a_reconnect(model, transport):
    data = transport.read_bytes()
    notes: list[str] = []
    with (
        serving(lambda _, send: send(data)) as server,
        Capture(server.address, CaptureSettings(speed=10, retries=3)) as capture,
    ):
        answers: list[Answer] = []
        with pytest.raises(VideoError, match="connection lost"):
            answers.extend(watch(model, capture, WINDOWS, note=notes.append))
    per_part = len(recorded(model, transport)) - 1  # a lost part has no window that ends early
    expected = recorded(model, transport)[:per_part]
    assert [answer.part for answer in answers] == [part for part in range(4) for _ in range(per_part)]
    for part in range(4):
        of_part = [answer for answer in answers if answer.part == part]
        begin = of_part[0].start_seconds
        check_equal(of_part, [(start + begin, end + begin, scores) for start, end, scores in expected])
    assert answers[-1].counts.reconnects == 3
    assert sum("connected again" in note for note in notes) == 3


class Recorded(Capture):
    """A capture of given frame numbers of 25 gray frames per second, each as bright as its number."""

    def __init__(self, numbers: list[int], settings: CaptureSettings) -> None:
        super().__init__("none.mp4", settings)
        now = time.monotonic()
        self.frames = [
            LiveFrame(0, "start", n, n / 25, n / 25, 25.0, now, 0.0, np.full((24, 28, 3), n, np.uint8))
            for n in numbers
        ]

    def next_frame(self, wait: float) -> LiveFrame | None:
        return self.frames.pop(0) if self.frames else None

    @property
    def is_over(self) -> bool:
        return not self.frames


class Seen(nn.Module):
    """Records the brightness of the frames of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        card = ModelCard.of(small_recipe(), ("a", "b"))
        views = replace(card.test.views, clips=DenseClips(clip_len=10))
        self.card = replace(card, test=replace(card.test, views=views))
        self.bias = nn.Parameter(torch.zeros(1))
        self.inputs: list[list[int]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalize = self.card.test.normalize
        pixels = x[0, 0, :, 0, 0] * normalize.std[0] + normalize.mean[0]
        self.inputs.append(pixels.round().int().tolist())
        return torch.zeros(len(x), 2)


def seen(numbers: list[int], **settings: float) -> list[list[int]]:
    model = Seen()
    windows = Windows(seconds=0.4, stride=0.4)
    list(watch(model, Recorded(numbers, CaptureSettings(**settings)), windows))  # type: ignore[arg-type]
    return model.inputs


def test_dropped_frames_are_replaced_by_the_frame_before():
    present = [n for n in range(20) if n not in (3, 4, 12)]
    assert seen(present) == [[0, 1, 2, 2, 2, 5, 6, 7, 8, 9], [10, 11, 11, 13, 14, 15, 16, 17, 18, 19]]


def test_windows_begin_again_after_a_longer_gap():
    present = [*range(15), *range(40, 60)]
    assert seen(present, max_gap=0.5) == [[*range(10)], [*range(40, 50)], [*range(50, 60)]]
    assert seen(present, max_gap=2.0)[1] == [10, 11, 12, 13, *[14] * 6]


def test_windows_are_skipped_while_the_model_is_slow(transport, monkeypatch):
    model = Seen()
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda x: (time.sleep(0.1), forward(x))[1])
    monkeypatch.setattr("mmaction_lite.inference.live.LATE_SECONDS", 0.05)
    with Capture(transport, CaptureSettings(speed=4, queue_frames=64)) as capture:
        answers = list(watch(model, capture, Windows(seconds=0.4, stride=0.04)))
    assert answers[-1].counts.dropped == 0
    assert answers[-1].skipped > 20
    assert len(answers) + answers[-1].skipped == len(range(41))
    assert max(answer.latency_seconds for answer in answers) < 1


def test_it_ends_after_a_time_of_the_stream_or_when_stopped(model, transport):
    with Capture(transport, CaptureSettings(speed=0)) as capture:
        answers = list(watch(model, capture, WINDOWS, seconds=1.0))
    assert [answer.end_seconds for answer in answers] == pytest.approx([0.6, 0.85])
    stop = threading.Event()
    with Capture(transport, CaptureSettings(speed=0, loop=True)) as capture:
        for number, _ in enumerate(watch(model, capture, WINDOWS, stop=stop)):
            if number == 2:
                stop.set()
    assert number == 2  # pyright: ignore[reportPossiblyUnboundVariable]


def test_leaving_the_loop_ends_the_capture(model, transport):
    before = threading.active_count()
    answers = watch(model, transport, WINDOWS)
    assert next(answers).part == 0
    answers.close()
    assert threading.active_count() == before


def test_memory_and_queue_stay_flat(model, tmp_path):
    """A minute of video in accelerated time."""
    write_video(tmp_path / "clip.mp4", brightening(0, 100))
    with Capture(tmp_path / "clip.mp4", CaptureSettings(speed=0, loop=True, queue_frames=16)) as capture:
        answers = list(watch(model, capture, Windows(seconds=1.0, stride=1.0), seconds=60.0))
        assert capture.counts.most_waiting <= 16
    assert len(answers) == 60
    assert answers[-1].counts.frames >= 1500

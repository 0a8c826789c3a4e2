"""Scores of long videos equal predictions of the segments, at bounded memory."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite.data.annotations.samples import Segment
from mmaction_lite.data.sources.source import ArrayVideo, SegmentOf, open_source
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.inference.long_video import score_video
from mmaction_lite.inference.scores import compute_scores
from mmaction_lite.inference.segments import SegmentRule, find_segments
from mmaction_lite.inference.window_store import WindowStore
from mmaction_lite.inference.windows import Windows, read_windows
from mmaction_lite.weights.card import ModelCard
from tests.conftest import brightening
from tests.data.mutants import mutant, write_bases

# 2,000 mutants take some minutes.
MUTANTS = int(os.environ.get("MMACTION_LITE_MUTANTS", "60"))
WINDOWS = Windows(seconds=0.5, stride=0.13)


@pytest.fixture
def model(recipe):
    torch.manual_seed(0)
    card = ModelCard.of(recipe, ("down", "up"))
    model = card.build().eval()
    setattr(model, "card", card)  # noqa: B010
    return model


@pytest.fixture
def source():
    return ArrayVideo(np.concatenate([brightening(number) for number in range(6)]), fps=25.0)


class Failing(ArrayVideo):
    """Frames 40 to 44 cannot be read."""

    def frames(self, indices, *arguments, **options):
        if any(40 <= index < 45 for index in np.asarray(indices)):
            raise VideoError("failing.mp4: frame 40 is damaged")
        return super().frames(indices, *arguments, **options)


@torch.no_grad()
def test_scores_equal_those_of_the_segments(model, source):
    progress = []
    found = score_video(model, source, WINDOWS, progress=lambda *pair: progress.append(pair))
    plan = WINDOWS.plan(model.card.test, source.fps)
    windows = list(read_windows(source, plan))
    assert found.numbers.tolist() == [window.number for window in windows]
    assert progress[-1] == (len(windows), len(windows))
    for window, scores in zip(windows, found.scores, strict=True):
        segment = SegmentOf(source, Segment(window.first_frame, window.end_frame, True), "segment")
        clip = torch.from_numpy(plan.protocol.read(segment))
        expected = compute_scores(model, [clip], plan.protocol, probabilities=model.card.task.probabilities)[
            0
        ]
        np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_unreadable_frames_are_noted_and_kept_over_a_resume(model, source, tmp_path):
    failing, faults = Failing(source.pixels, source.fps), []
    whole = score_video(model, source, WINDOWS)
    plan = WINDOWS.plan(model.card.test, source.fps)
    found = whole
    for _ in range(2):
        store = store_of(tmp_path / "windows.jsonl", plan)
        found = score_video(model, failing, WINDOWS, store=store, on_fault=faults.append)
        assert 0 < len(found.numbers) < len(whole.numbers)
        assert set(np.diff(found.numbers)) > {1}
        kept = np.isin(whole.numbers, found.numbers)
        np.testing.assert_allclose(found.scores, whole.scores[kept], atol=1e-5)
        assert found.notes
        assert found.notes[0].startswith("failing.mp4: frame 40 is damaged; windows from 1.60 s")
    assert len(faults) == len(found.notes)  # the second time, the file is not read


def test_a_video_without_any_readable_window_is_an_error(model):
    with pytest.raises(VideoError, match="frame 40 is damaged"):
        score_video(model, SegmentOf(Failing(brightening(0, 60)), Segment(40, 45, True), "x"), WINDOWS)


def test_an_error_of_the_network_stops_the_thread(model, source):
    def fail(*_):
        raise RuntimeError("out of memory")

    model.forward = fail
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        score_video(model, source, WINDOWS)
    assert threading.active_count() == before


def test_a_store_of_another_number_of_classes_is_refused(model, source, tmp_path):
    plan = WINDOWS.plan(model.card.test, source.fps)
    store = WindowStore(tmp_path / "windows.jsonl")
    store.open("model", plan, "video")
    store.append([0], [np.zeros(5, np.float32)])
    with pytest.raises(UserError, match="delete the file"):
        score_video(model, source, WINDOWS, store=store_of(tmp_path / "windows.jsonl", plan))


def store_of(path: Path, plan) -> WindowStore:
    store = WindowStore(path)
    store.open("model", plan, "video")
    return store


@pytest.mark.slow
def test_damaged_videos_give_windows_or_one_error(model, tmp_path):
    bases, seconds, messages, read = write_bases(tmp_path / "bases"), [], [], 0
    for number in range(MUTANTS):
        name, content = mutant(number, bases)
        path = tmp_path / name
        path.write_bytes(content)
        start = time.monotonic()
        try:
            with open_source(path) as source:
                found = score_video(model, source, Windows(seconds=0.3, stride=0.1))
            assert len(find_segments(found, SegmentRule(enter=0.1, leave=0.1))) > 0
            read += 1
        except VideoError as error:
            messages.append(str(error))
        seconds.append(time.monotonic() - start)
        path.unlink()
    print(f"{MUTANTS} mutants: {read} have windows; the slowest took {max(seconds):.1f} s")
    assert max(seconds) < 10
    unclear = [m for m in messages if not (m.startswith(str(tmp_path)) and m.isprintable())]
    assert not unclear, unclear[:3]
    assert MUTANTS / 4 < read < MUTANTS

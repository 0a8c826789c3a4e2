"""Answers frame by frame equal those of `Stream`, and begin again after a gap."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmaction_lite.data.sources.capture import Capture
from mmaction_lite.data.sources.live import CaptureSettings
from mmaction_lite.data.sources.source import open_source
from mmaction_lite.errors import UserError
from mmaction_lite.inference.live_frames import watch_frames
from mmaction_lite.inference.stream import Stream
from mmaction_lite.models import tsm_online_r10
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import ModelCard
from tests.conftest import brightening, small_recipe, write_video
from tests.inference.test_live import Recorded, Seen


@pytest.fixture(scope="module")
def online():
    recipe = replace(small_recipe(), model=Build(tsm_online_r10, width=8))
    torch.manual_seed(0)
    card = ModelCard.of(recipe, ("down", "up"))
    model = card.build().eval()
    model.card = card  # pyright: ignore[reportArgumentType]
    return model


def test_answers_equal_those_of_the_stream(online, tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, brightening(0, 50))
    with Capture(path, CaptureSettings(speed=0, loop=True)) as capture:
        answers = list(watch_frames(online, capture, every=0.4, frame_interval=1, seconds=3.9))
    stream = Stream(online, frame_interval=1, device="cpu")
    with open_source(path) as source:
        expected = [stream.push(pixels) for pixels in source.frames(range(50))]
    numbers = [10, 20, 30, 40]
    assert [round(25 * answer.end_seconds) for answer in answers] == [*numbers, *(50 + n for n in numbers)]
    assert [answer.start_seconds for answer in answers] == pytest.approx([0] * 4 + [2.0] * 4)
    for answer, number in zip(answers, numbers * 2, strict=True):
        found = expected[number]
        assert found is not None
        np.testing.assert_array_equal(answer.scores, found.scores)
        assert answer.protocol == found.protocol
    assert [answer.part for answer in answers] == [0] * 4 + [1] * 4


def test_features_begin_again_after_a_longer_gap(online):
    frames = [*range(30), *range(33, 50), *range(90, 120)]
    answers = list(watch_frames(online, Recorded(frames, CaptureSettings()), every=1.0, frame_interval=1))
    assert [answer.start_seconds for answer in answers] == pytest.approx([0, 90 / 25])
    assert [answer.end_seconds for answer in answers] == pytest.approx([1.0, 115 / 25])


def test_other_networks_are_refused():
    with pytest.raises(UserError):
        next(watch_frames(Seen(), Recorded([0], CaptureSettings())))

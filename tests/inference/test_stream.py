"""A stream of frames, classified one by one, equals the clip of all frames."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmaction_lite.data.sources.source import ArrayVideo
from mmaction_lite.data.views.samplers import DenseClips, SegmentFrames, TimedClips
from mmaction_lite.errors import UserError
from mmaction_lite.inference.stream import Stream, StreamAnswer
from mmaction_lite.models import optimize_for_inference, tsm_online_r10
from mmaction_lite.models.online_step import OnlineStep
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import ModelCard, card_of, load, save_weights
from tests.conftest import brightening
from tests.models.test_models import train_norms

NUM_FRAMES = int(os.environ.get("MMACTION_STREAM_FRAMES", "24"))


@pytest.fixture
def weights(recipe, tmp_path):
    """Weights of an online TSM for clips of four consecutive frames."""
    views = replace(recipe.test, clips=DenseClips(clip_len=4))
    recipe = replace(recipe, model=Build(tsm_online_r10, width=8), test=views)
    card = ModelCard.of(recipe, ("down", "up"))
    torch.manual_seed(0)
    model = card.build()
    train_norms(model)
    torch.nn.init.normal_(model.get_parameter("fc.weight"), std=0.1)
    save_weights(tmp_path / "online.safetensors", model.state_dict(), card)
    return tmp_path / "online.safetensors"


def pixels(length: int = NUM_FRAMES) -> np.ndarray:
    """Frames of a textured video, uint8 (length, 48, 64, 3)."""
    return brightening(0, length)


def offline_logits(weights, video: np.ndarray) -> torch.Tensor:
    """Logits (T, K) of the frames of the clip of all frames, under the test protocol of the weights."""
    model = load(weights).eval()
    protocol = card_of(model).test
    views = replace(protocol.views, clips=DenseClips(clip_len=len(video)))
    protocol = replace(protocol, views=views)
    clip = protocol.prepare(torch.from_numpy(protocol.read(ArrayVideo(video))))
    with torch.inference_mode():
        return model.head(model.features(clip))[0]  # pyright: ignore[reportCallIssue]


def push(stream: Stream, video: np.ndarray) -> list[StreamAnswer]:
    return [answer for frame in video if (answer := stream.push(frame)) is not None]


def test_every_frame_equals_the_clip_of_all_frames(weights):
    """With MMACTION_STREAM_FRAMES=1000, a stream of 1,000 frames."""
    video = pixels()
    expected = offline_logits(weights, video)
    stream = Stream(weights, device="cpu", average=len(video))
    answers = push(stream, video)
    found = torch.from_numpy(np.stack([answer.logits for answer in answers]))
    assert float((found - expected).abs().max()) <= 1e-5
    assert [answer.frame for answer in answers] == list(range(len(video)))
    probabilities = expected.mean(0).softmax(0)
    np.testing.assert_allclose(answers[-1].probabilities, probabilities, atol=1e-5)


def test_an_answer_holds_ranked_classes_and_the_protocol(weights):
    stream = Stream(weights, device="cpu")
    answers = push(stream, pixels(6))
    logits = np.stack([answer.logits for answer in answers])
    for last in (0, 3, 5):
        mean = torch.from_numpy(logits[max(0, last - 3) : last + 1]).mean(0)  # the clips have four frames
        np.testing.assert_allclose(answers[last].probabilities, mean.softmax(0), atol=1e-6)
    answer = answers[-1]
    assert stream.classes == ("down", "up")
    assert answer.labels[0] == stream.classes[int(answer.probabilities.argmax())]
    assert answer.scores.tolist() == sorted(answer.probabilities.tolist(), reverse=True)
    assert answer.protocol == str(stream)
    assert answer.protocol.startswith("online, every frame, mean logits of the last 4: ")
    assert "CenterCrop 20x28 of short side 24, antialias on" in answer.protocol


def test_memory_does_not_grow(weights):
    stream = Stream(weights, device="cpu")
    held = []
    for number, frame in enumerate(pixels(40)):
        stream.push(frame)
        if number in (5, 39):
            tensors = [*stream._caches, *stream._logits]
            held.append((len(tensors), sum(tensor.untyped_storage().nbytes() for tensor in tensors)))
    assert held[0] == held[1]


def test_a_reset_stream_starts_again(weights):
    stream, video = Stream(weights, device="cpu"), pixels(5)
    first = push(stream, video)
    stream.reset()
    second = push(stream, video)
    assert [answer.frame for answer in second] == [0, 1, 2, 3, 4]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.logits, other.logits)


def test_streams_of_one_step_are_independent(weights):
    step = OnlineStep(optimize_for_inference(load(weights)))
    one, other = Stream(step, device="cpu"), Stream(step, device="cpu")
    up, down = brightening(0, 6), brightening(1, 6)
    answers = [(push(one, a[None]), push(other, b[None])) for a, b in zip(up, down, strict=True)]
    for number, video in enumerate((up, down)):
        for found, expected in zip(answers, push(Stream(weights, device="cpu"), video), strict=True):
            np.testing.assert_allclose(found[number][0].logits, expected.logits, atol=1e-6)


def test_a_model_of_the_user_stays_as_it_is(weights):
    model = load(weights).train()
    push(Stream(model, device="cpu"), pixels(2))
    assert model.training
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_frames_between_the_interval_are_skipped(weights):
    video = pixels(7)
    stream = Stream(weights, device="cpu", frame_interval=3)
    answers = push(stream, video)
    assert [answer.frame for answer in answers] == [0, 3, 6]
    expected = push(Stream(weights, device="cpu"), video[::3])
    for found, other in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(found.logits, other.logits)
    assert "every 3 frames" in str(stream)


def with_clips(weights, clips):
    """The model of the weights, its test protocol with other clips."""
    model = load(weights)
    card = card_of(model)
    changed = replace(card, test=replace(card.test, views=replace(card.test.views, clips=clips)))
    model.card = changed  # pyright: ignore[reportArgumentType]
    return model


def test_the_interval_is_that_of_the_training_clips(weights):
    model = with_clips(weights, DenseClips(clip_len=5, frame_interval=2))
    assert str(Stream(model, device="cpu")).startswith("online, every 2 frames, mean logits of the last 5: ")
    for clips, message in (
        (SegmentFrames(num_segments=8), "the frames of a typical training video divided by 8"),
        (TimedClips(clip_len=4, target_fps=10.0), "10 frames per second; .* of the stream divided by 10"),
    ):
        model = with_clips(weights, clips)
        with pytest.raises(UserError, match=f"frame_interval is None, and .*{message}"):
            Stream(model, device="cpu")
        assert "every 6 frames" in str(Stream(model, device="cpu", frame_interval=6))


def test_the_temperature_of_the_weights_is_applied(weights):
    frame = pixels(1)[0]
    model = load(weights)
    model.card = card_of(model).calibrated(2.0)  # pyright: ignore
    answer = Stream(model, device="cpu").push(frame)
    assert answer is not None
    expected = torch.from_numpy(answer.logits / 2).softmax(0)
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            np.zeros((48, 64, 3), np.float32),
            r"frame 0 of the stream is float32 \(48, 64, 3\); expected uint8",
        ),
        (np.zeros((48, 64), np.uint8), r"uint8 \(48, 64\)"),
        (np.zeros((48, 64, 4), np.uint8), r"uint8 \(48, 64, 4\)"),
        (np.zeros((0, 64, 3), np.uint8), r"uint8 \(0, 64, 3\)"),
        (None, r"object \(\)"),
    ],
)
def test_other_frames_are_refused(weights, frame, message):
    stream = Stream(weights, device="cpu")
    with pytest.raises(UserError, match=message):
        stream.push(frame)
    assert stream.push(pixels(1)[0]) is not None


def test_frames_of_any_size_and_memory_order(weights):
    stream = Stream(weights, device="cpu")
    small, frame = np.full((5, 9, 3), 7, np.uint8), pixels(1)[0]
    for each in (frame, small, frame[::-1, :, ::-1], frame.transpose(1, 0, 2)):
        assert stream.push(each) is not None
    read_only = frame.copy()
    read_only.flags.writeable = False
    assert stream.push(read_only) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": 0}, "Stream: average is 0; expected an integer, at least 1"),
        ({"average": 2.5}, "average is 2.5"),
        ({"frame_interval": -1}, "frame_interval is -1"),
        ({"frame_interval": True}, "frame_interval is True"),
    ],
)
def test_other_settings_are_refused(weights, options, message):
    with pytest.raises(UserError, match=message):
        Stream(weights, device="cpu", **options)


def test_weights_of_other_networks_are_refused(recipe, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    save_weights(tmp_path / "tsm.safetensors", card.build().state_dict(), card)
    with pytest.raises(UserError, match="depends on later frames; expected a network of tsm_online_r10"):
        Stream(tmp_path / "tsm.safetensors", device="cpu")

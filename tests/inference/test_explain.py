"""Explanations of a network whose right map is known, of every kind of task, view and video."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mmaction_lite.data.generated import motions
from mmaction_lite.data.views.crops import CenterCrop, ThreeCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import DenseClips, SegmentFrames
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError, VideoError
from mmaction_lite.inference.explain import ExplainSettings, class_index, explain, explain_classes
from mmaction_lite.inference.predict import predict
from mmaction_lite.models import optimize_for_inference, tsm_r10
from mmaction_lite.tasks.multi_label import MultiLabel
from mmaction_lite.tasks.single_label import SingleLabel
from mmaction_lite.tasks.task import Task
from mmaction_lite.tasks.verb_noun import VerbNoun
from mmaction_lite.weights.card import ModelCard, save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

VIEWS = TestViews(clips=SegmentFrames(num_segments=8), short_side=48, crop=CenterCrop(size=(40, 56)))
NORMALIZE = Normalize(mean=(116.0, 116.0, 116.0), std=(58.0, 58.0, 58.0))  # grey is 0
CLASSES = ("red", "green", "blue")


class Detector(nn.Module):
    """Detects pixels in which one color channel is brighter than the others, in cells of 2x2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 3, (1, 2, 2), stride=(1, 2, 2), bias=False)
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)
        colors = torch.eye(3) - 0.5 * (1 - torch.eye(3))
        self.conv.weight.data.copy_(colors[:, :, None, None, None].expand_as(self.conv.weight) / 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().mean((2, 3, 4)))


def with_card(
    model: nn.Module, classes: tuple[str, ...], protocol: Protocol, task: Task | None = None
) -> nn.Module:
    task = (task or SingleLabel()).for_classes(classes)
    model.card = ModelCard(  # pyright: ignore[reportArgumentType]
        builder="own", arguments={}, classes=classes, val=protocol, test=protocol, recipe="own", task=task
    )
    return model.eval()


@pytest.fixture
def detector() -> nn.Module:
    return with_card(Detector(), CLASSES, Protocol(views=VIEWS, normalize=NORMALIZE))


def square_video(frames: int = 24, color: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A colored square that moves right over grey, and its mask: (T, 96, 128, 3), (T, 96, 128)."""
    video = np.full((frames, 96, 128, 3), 116, np.uint8)
    mask = np.zeros((frames, 96, 128), bool)
    for t in range(frames):
        left = 20 + 64 * t // frames
        mask[t, 40:56, left : left + 16] = True
    video[mask] = np.where(np.arange(3) == color, 250, 40)
    return video, mask


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_the_map_lies_on_the_object(detector, method):
    video, mask = square_video()
    found = explain(detector, video, settings=ExplainSettings(method=method, fill="mean"), device="cpu")
    assert (found.label, found.top_label, found.method) == ("red", "red", method)
    assert found.layers == (("conv",) if method == "gradcam" else ())
    assert found.frames.tolist() == [1, 4, 7, 10, 13, 16, 19, 22]
    np.testing.assert_allclose(found.seconds, found.frames / 25)
    assert found.maps.shape == (8, 40, 56)
    assert (found.maps.min(), found.maps.max()) == (0, 1)
    for position, frame in enumerate(found.frames):
        map_, square = found.map_in_frame(position), mask[frame]
        assert map_[square].mean() > 5 * map_[~square].mean()
        if method == "gradcam":
            assert map_[square].sum() > 0.75 * map_.sum()
            for axis in (0, 1):
                place, expected = (
                    np.average(np.indices(square.shape)[axis], weights=w) for w in (map_, square)
                )
                assert place == pytest.approx(expected, abs=0.5)
    assert found.drops is not None
    assert (found.drops > 0).all()


def test_a_class_that_is_not_there_has_an_empty_map(detector):
    video, _ = square_video()
    found = explain(detector, video, "blue", device="cpu")
    assert (found.label, found.top_label) == ("blue", "red")
    assert found.score < found.top_score
    assert not found.maps.any()
    assert not found.frame_mass.any()
    other = explain(detector, square_video(color=2)[0], "blue", device="cpu")
    assert other.maps.any()


def test_the_time_that_matters_is_found(detector):
    video, _ = square_video(100)
    video[:75] = 116
    found = explain(detector, video, device="cpu", settings=ExplainSettings(fill="mean"))
    rows = found.per_second()
    assert [(row["start"], row["end"]) for row in rows] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [round(row["mass"], 6) for row in rows] == [0, 0, 0, 1]
    assert [row["drop"] > 1e-4 for row in rows] == [False, False, False, True]
    described = found.to_dict()
    assert described["protocol"] == str(found.protocol)
    assert sum(described["frame_mass"]) == pytest.approx(1)


def test_views_of_the_protocol_are_merged(detector):
    """Frames that several clips contain are averaged; several crops become the center crop."""
    clips = DenseClips(clip_len=8, frame_interval=2, num_clips=3)
    views = replace(VIEWS, clips=clips, crop=ThreeCrop(size=(40, 56)))
    model = with_card(detector, CLASSES, Protocol(views=views, normalize=NORMALIZE))
    found = explain(model, square_video(20)[0], device="cpu")
    assert isinstance(found.protocol.views.crop, CenterCrop)
    assert "3 clips × 1 crop" in str(found.protocol)
    assert found.frames.tolist() == sorted(set(clips(20).ravel().tolist()))
    assert found.drops is not None
    assert len(found.maps) == len(found.drops) == len(found.seconds) == len(found.frames)
    one = explain(model, square_video(1)[0], device="cpu")
    assert one.frames.tolist() == [0]
    assert one.maps.shape == (1, 40, 56)


@pytest.mark.parametrize(
    ("classes", "task", "expected"),
    [
        (CLASSES, SingleLabel(), {"red"}),
        (CLASSES, MultiLabel(), {"red"}),
        (("verb: open", "noun: door", "noun: cup"), VerbNoun(), {"verb: open", "noun: door"}),
    ],
)
def test_the_best_class_of_every_group_is_explained(detector, classes, task, expected):
    model = with_card(detector, classes, Protocol(views=VIEWS, normalize=NORMALIZE), task)
    video, _ = square_video()
    found = explain_classes(model, video, settings=ExplainSettings(fill=None))
    assert {explanation.label for explanation in found} == expected
    assert all(explanation.label == explanation.top_label for explanation in found)
    assert all(explanation.drops is None for explanation in found)
    (last,) = explain_classes(model, video, [classes[2]], ExplainSettings(fill=None))
    assert last.top_label == ("noun: door" if "noun" in classes[2] else "red")
    assert last.score <= last.top_score


def test_scores_are_those_of_a_prediction_and_windows_have_gradients(recipe, tiny, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    torch.manual_seed(0)
    model = card.build()
    save_weights(tmp_path / "weights.safetensors", model.state_dict(), card)
    clip = tiny / "val" / "up" / "12.mp4"
    prediction = predict(tmp_path / "weights.safetensors", clip, "cpu")
    found = explain(tmp_path / "weights.safetensors", clip, device="cpu")
    assert found.label == prediction.labels[0]
    assert found.score == pytest.approx(float(prediction.scores[0]), rel=1e-4)
    assert found.frame_size == (48, 64)
    windowed = with_card(model, card.classes, replace(card.test, window=1))
    windows = explain(windowed, clip, found.label, device="cpu")
    assert "every 1x1 window of the features" in str(windows.protocol)
    assert windows.maps.any() == found.maps.any()


def test_randomized_weights_and_another_class_change_the_map():
    """The sanity checks of Adebayo et al., arXiv:1810.03292."""
    torch.manual_seed(0)
    views = replace(VIEWS, crop=CenterCrop(size=(48, 64)))
    model = with_card(
        tsm_r10(num_classes=3, dropout=0.0), CLASSES, Protocol(views=views, normalize=NORMALIZE)
    )
    video = motions.render(600)
    first, second = (explain(model, video, label, device="cpu").maps for label in ("red", "green"))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.9
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    other = explain(model, video, "red", device="cpu").maps
    assert not other.any() or abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.9


def test_wrong_arguments_are_one_line(detector, tmp_path):
    video, _ = square_video()
    with pytest.raises(UserError, match="the model has no class 'rde'; nearest: red"):
        class_index(detector.card, "rde")
    with pytest.raises(UserError, match="Detector has no layer 'cnov'; nearest: conv"):
        explain(detector, video, settings=ExplainSettings(layers=("cnov",)), device="cpu")
    with pytest.raises(UserError, match="ExplainSettings: method is 'cam'"):
        ExplainSettings(method="cam")  # pyright: ignore[reportArgumentType]
    with pytest.raises(VideoError, match="no such file"):
        explain(detector, tmp_path / "missing.mp4", device="cpu")
    with pytest.raises(UserError, match="has no card"):
        explain(Detector(), video, device="cpu")


def test_optimized_models_have_an_occlusion_but_no_gradients():
    views = replace(VIEWS, clips=SegmentFrames(num_segments=2))
    model = with_card(tsm_r10(num_classes=3), CLASSES, Protocol(views=views, normalize=NORMALIZE))
    fast = optimize_for_inference(model)
    with pytest.raises(UserError, match="optimized for inference"):
        explain(fast, square_video()[0], device="cpu")
    found = explain(fast, square_video()[0], device="cpu", settings=ExplainSettings(method="occlusion"))
    assert found.maps.any()

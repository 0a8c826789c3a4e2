"""The protocol of a test: reading, inputs, averaging and the line that describes it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmaction_lite.data.sources.source import ArrayVideo
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop, ThreeCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import DenseClips, SegmentFrames, SegmentWindows
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.errors import UserError

VIEWS = TestViews(clips=DenseClips(clip_len=3, num_clips=2), short_side=24, crop=ThreeCrop(size=(24, 24)))


def softmax(logits):
    return logits.softmax(-1)


def test_probabilities_or_scores_are_averaged():
    logits = torch.tensor([[[4.0, 0.0], [0.0, 1.0]]])
    probability, score = Protocol(views=VIEWS), Protocol(views=VIEWS, average="score")
    mean = torch.tensor([[2.0, 0.5]])
    torch.testing.assert_close(probability.average_logits(logits, softmax), logits.softmax(-1).mean(1))
    torch.testing.assert_close(score.average_logits(logits, softmax), mean.softmax(-1))
    torch.testing.assert_close(probability.average_logits(logits, torch.sigmoid), logits.sigmoid().mean(1))
    torch.testing.assert_close(score.average_logits(logits, torch.sigmoid), mean.sigmoid())


def test_inputs_are_normalized_views_whole_or_in_chunks():
    frames = np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), np.uint8)
    protocol = Protocol(views=VIEWS, normalize=Normalize(mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0)))
    read = protocol.read(ArrayVideo(frames))
    assert (read == VIEWS.read(ArrayVideo(frames))).all()
    pixels = torch.from_numpy(read)
    inputs = protocol.prepare(pixels)
    assert inputs.shape == (6, 3, 3, 24, 24)
    expected = (VIEWS.crops(pixels).float() - torch.tensor([1.0, 2.0, 3.0])) / torch.tensor([4.0, 5.0, 6.0])
    torch.testing.assert_close(inputs, expected.permute(0, 4, 1, 2, 3))
    chunks = list(protocol.prepare_in_chunks([pixels, pixels], 5))
    assert [len(chunk) for chunk in chunks] == [5, 5, 2]
    assert torch.equal(torch.cat(chunks), torch.cat([inputs, inputs]))


def test_the_line_names_views_averaging_and_window():
    views = "3x1x2 frames: 2 clips × 3 crops (ThreeCrop 24x24 of short side 24, antialias on)"
    assert str(Protocol(views=VIEWS)) == f"{views}, probabilities averaged"
    tested = replace(Protocol(views=VIEWS, average="score"), window=7)
    assert str(tested) == f"{views}, every 7x7 window of the features, scores averaged"


def test_training_views_and_test_views_are_not_interchangeable(recipe):
    clips = DenseClips(clip_len=3)
    with pytest.raises(
        UserError, match=r"^TestViews: crop is RandomCrop.*CenterCrop.*Use TrainViews for random"
    ):
        TestViews(clips=clips, crop=RandomCrop(size=(20, 28)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        UserError, match=r"^TrainViews: crop is CenterCrop.*RandomCrop.*Use TestViews for fixed"
    ):
        TrainViews(clips=clips, crop=CenterCrop(size=(20, 28)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"^Protocol: views is TrainViews\(.*expected TestViews\(\.\.\.\)"):
        Protocol(views=recipe.train)
    with pytest.raises(UserError, match=r"^Recipe: test is TrainViews\(.*expected TestViews\(\.\.\.\)"):
        replace(recipe, test=recipe.train)
    with pytest.raises(UserError, match=r"^Recipe: train is TestViews\(.*expected TrainViews\(\.\.\.\)"):
        replace(recipe, train=recipe.val)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("average", "max", r"average is 'max'; expected one of 'probability', 'score'$"),
        ("window", 0, r"window is 0; expected an integer, at least 1, or None$"),
    ],
)
def test_values_out_of_range_are_refused(field, value, message, recipe):
    with pytest.raises(UserError, match=message):
        replace(recipe.test_protocol, **{field: value})
    with pytest.raises(UserError, match=message):
        replace(recipe, **{field: value})


@pytest.mark.parametrize("name", ["center", "1", "CenterCrop"])
def test_other_views_keep_everything_else(name):
    protocol = Protocol(views=VIEWS, average="score", window=7)
    other = protocol.with_views(5, name)
    assert other.views.clips == DenseClips(clip_len=3, num_clips=5)
    assert other.views.crop == CenterCrop(size=(24, 24))
    assert (other.average, other.window, other.views.short_side) == ("score", 7, 24)
    assert "5 clips × 1 crop (CenterCrop 24x24" in str(other)
    assert protocol.with_views() == protocol
    with pytest.raises(UserError, match=r"crops is 'left'; expected center, three or ten \(or 1, 3, 10\)"):
        protocol.with_views(crop="left")
    one = replace(protocol, views=replace(VIEWS, clips=SegmentFrames(num_segments=4)))
    assert one.with_views(1) == one
    with pytest.raises(UserError, match="clips is 2; expected 1"):
        one.with_views(2)
    windows = SegmentWindows(window_len=2, num_segments=3)
    with pytest.raises(UserError, match="takes one clip with 2 frames of each of 3 parts of the video"):
        replace(protocol, views=replace(VIEWS, clips=windows)).with_views(2)

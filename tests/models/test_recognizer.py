"""Backbone, pooling, dropout and classifier."""

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError
from mmaction_lite.models.recognizer import Recognizer, fold_time


class Scale(nn.Module):
    """Frames as feature maps, at half the rate."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        return self.scale * x.unflatten(0, (batch_size, -1))[:, ::2].flatten(0, 1)


def recognizer(**options) -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(Scale(), 3, 4, 0.5, **options)


def test_frames_of_a_batch_are_folded_channels_last():
    x = torch.randn(2, 3, 5, 4, 6)
    frames = fold_time(x)
    assert frames.shape == (10, 3, 4, 6)
    assert frames.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(frames[7], x[1, :, 2])


@pytest.mark.parametrize("per_frame", [False, True])
def test_logits_are_those_of_the_mean_features(per_frame):
    model, x = recognizer(per_frame=per_frame).eval(), torch.randn(2, 3, 6, 4, 4)
    expected = model.fc(2 * x[:, :, ::2].mean((2, 3, 4)))
    torch.testing.assert_close(model(x), expected)
    assert model.features(x).shape == (2, 3 if per_frame else 1, 3)
    torch.testing.assert_close(model.features(x).mean(1), 2 * x[:, :, ::2].mean((2, 3, 4)))


def test_dropout_acts_on_every_frame_by_itself_where_frames_are_classified():
    x = torch.ones(64, 3, 8, 2, 2)
    whole, frames = recognizer().train(), recognizer(per_frame=True).train()
    for model in (whole, frames):
        nn.init.ones_(model.fc.weight)
    # Of three channels whole clips keep 0 to 3; of four frames of three channels rarely all or none are kept.
    assert len(whole(x)[:, 0].unique()) <= 4
    assert len(frames(x)[:, 0].unique()) > 4


def test_windows_are_classified_by_themselves():
    model, x = recognizer().eval(), torch.randn(2, 3, 4, 5, 6)
    logits = model(x, window=4)
    assert logits.shape == (2, 2 * 3, 4)
    for number, (top, left) in enumerate((t, left) for t in range(2) for left in range(3)):
        torch.testing.assert_close(logits[:, number], model(x[..., top : top + 4, left : left + 4]))
    with pytest.raises(UserError, match="window is 6; expected at most the feature map, 5x6"):
        model(x, window=6)


def test_the_classifier_starts_with_the_standard_deviation_asked_for():
    model = Recognizer(Scale(), 500, 40, 0.5, init_std=0.03)
    assert float(model.fc.weight.detach().std()) == pytest.approx(0.03, rel=0.05)
    assert not model.fc.bias.any()
    assert model.head is model.fc

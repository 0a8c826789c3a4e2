"""Calibrated probabilities: the temperature of a protocol."""

from dataclasses import replace

import pytest
import torch

from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.data.views.temperature import Temperature
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError

VIEWS = TestViews(clips=DenseClips(clip_len=3, num_clips=2), short_side=24, crop=CenterCrop(size=(24, 24)))


def softmax(logits):
    return logits.softmax(-1)


@pytest.mark.parametrize(
    ("probabilities", "scale"), [(softmax, "log_probability"), (torch.sigmoid, "log_odds")]
)
@pytest.mark.parametrize("average", ["probability", "score"])
def test_a_temperature_divides_the_logits_of_the_averaged_probabilities(probabilities, scale, average):
    logits = torch.randn(5, 2, 7, generator=torch.Generator().manual_seed(0))
    plain = Protocol(views=VIEWS, average=average)
    hot = replace(plain, temperature=Temperature(value=2.0, scale=scale))
    one = replace(plain, temperature=Temperature(value=1.0, scale=scale))
    before, after = (own.average_logits(logits, probabilities) for own in (plain, hot))
    torch.testing.assert_close(one.average_logits(logits, probabilities), before)
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert (after.max(1).values < before.max(1).values).all()
    single = logits[:, :1]  # of one view, it is the division of the logits
    torch.testing.assert_close(hot.average_logits(single, probabilities), probabilities(single[:, 0] / 2))


def test_probabilities_of_zero_one_and_nan():
    scores = torch.tensor([[0.0, 1.0], [torch.nan, torch.nan]])
    found = Temperature(value=3.0).apply(scores, softmax)
    assert found[0].tolist() == [0.0, 1.0]
    assert found[1].isnan().all()
    assert Temperature(value=3.0, scale="log_odds").apply(scores, torch.sigmoid)[0].tolist() == [0.0, 1.0]


def test_the_protocol_line_names_the_temperature():
    assert str(Protocol(views=VIEWS, temperature=Temperature(value=1.69999))).endswith(
        "antialias on), probabilities averaged, temperature 1.7"
    )
    with pytest.raises(UserError, match=r"Temperature: value is 0; expected a number, at least 0\.01"):
        Temperature(value=0)

"""Builders of V-JEPA 2.1: size and cost of the published networks."""

from typing import Any

import pytest
import torch

from mmaction_lite.models.complexity import multiply_adds, parameters
from mmaction_lite.models.vjepa21 import vjepa21_base, vjepa21_giant, vjepa21_gigantic, vjepa21_large

# Parameters of encoder and probe (174 classes), clip and 10^9 multiply-adds of the encoder.
PUBLISHED = {
    vjepa21_base: (86_833_152, 27_895_470, (16, 384, 384), 788),
    vjepa21_large: (304_680_960, 49_514_670, (16, 384, 384), 2_442),
    vjepa21_giant: (1_013_267_968, 93_494_190, (64, 384, 384), 56_911),
    vjepa21_gigantic: (1_845_216_768, 130_514_350, None, None),
}


LARGE = (vjepa21_giant, vjepa21_large)


@pytest.mark.parametrize(
    "builder", [pytest.param(builder, marks=[pytest.mark.slow] * (builder in LARGE)) for builder in PUBLISHED]
)
def test_the_published_size_and_cost(builder: Any) -> None:
    encoder_size, probe_size, clip, cost = PUBLISHED[builder]
    with torch.device("meta"):
        model = builder(num_classes=174)
        assert parameters(model.encoder) == encoder_size
        assert parameters(model) - encoder_size == probe_size
        if clip:
            assert multiply_adds(model.encoder, (1, 3, *clip)) == pytest.approx(cost * 1e9, rel=1e-3)

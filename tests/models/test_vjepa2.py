"""Builders of V-JEPA 2: size and cost of the published networks."""

from typing import Any

import pytest
import torch

from mmaction_lite.models.complexity import multiply_adds, parameters
from mmaction_lite.models.vjepa2 import vjepa2_giant, vjepa2_huge, vjepa2_large

# Parameters of encoder and probe (174 classes), clip and 10^9 multiply-adds of the encoder.
PUBLISHED = {
    vjepa2_large: (303_885_312, 49_514_670, (16, 256, 256), 827.9),
    vjepa2_huge: (631_648_000, 77_294_254, (64, 256, 256), 10_668),
    vjepa2_giant: (1_012_173_952, 93_494_190, (64, 384, 384), 56_911),
}


LARGE = (vjepa2_huge, vjepa2_giant)


@pytest.mark.parametrize(
    "builder", [pytest.param(builder, marks=[pytest.mark.slow] * (builder in LARGE)) for builder in PUBLISHED]
)
def test_the_published_size_and_cost(builder: Any) -> None:
    encoder_size, probe_size, clip, cost = PUBLISHED[builder]
    with torch.device("meta"):
        model = builder(num_classes=174)
        assert parameters(model.encoder) == encoder_size
        assert parameters(model) - encoder_size == probe_size
        assert multiply_adds(model.encoder, (1, 3, *clip)) == pytest.approx(cost * 1e9, rel=1e-3)

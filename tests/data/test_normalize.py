"""Pixels to inputs of a network."""

import numpy as np
import pytest
import torch

from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)


def test_normalize_puts_channels_behind_the_batch_and_keeps_the_memory_order(frames):
    pixels = torch.from_numpy(frames)[None]
    inputs = Normalize(mean=(10, 20, 30), std=(2, 4, 5))(pixels)
    assert inputs.shape == (1, 3, 3, 40, 60)
    assert inputs.is_contiguous(memory_format=torch.channels_last_3d)
    expected = (pixels[0, 1, 2, 3].float() - torch.tensor([10, 20, 30])) / torch.tensor([2, 4, 5])
    torch.testing.assert_close(inputs[0, :, 1, 2, 3], expected)


@pytest.mark.parametrize(
    "wrong", [{"mean": (1.0, 2.0)}, {"std": (1.0, 2.0)}, {"std": (1.0, 0.0, 1.0)}, {"std": (1.0, -1.0, 1.0)}]
)
def test_three_means_and_three_positive_stds_are_required(wrong):
    with pytest.raises(UserError, match="Normalize"):
        Normalize(**wrong)


def test_default_is_imagenets():
    inputs = Normalize()(torch.tensor([[[[[123, 116, 104]]]]], dtype=torch.uint8))
    torch.testing.assert_close(
        inputs.flatten(), torch.tensor([-0.675 / 58.395, -0.28 / 57.12, 0.47 / 57.375]), rtol=1e-4, atol=1e-6
    )

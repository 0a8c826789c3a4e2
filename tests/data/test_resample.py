"""Cropping and resizing of decoded frames."""

import numpy as np
import pytest
import torch

from mmaction_lite.data.sources.resample import crop_and_resize, short_side_size


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)


def test_short_side_is_resized_and_the_other_side_rounded():
    assert short_side_size((256, 340), 256) == (256, 340)
    assert short_side_size((1080, 1920), 256) == (256, 455)
    assert short_side_size((320, 240), 256) == (341, 256)


def test_crop_without_resize_is_exact(frames):
    assert (crop_and_resize(frames, (3, 5, 20, 30)) == frames[:, 3:23, 5:35]).all()
    assert (crop_and_resize(frames, (3, 5, 20, 30), (20, 30)) == frames[:, 3:23, 5:35]).all()


@pytest.mark.parametrize("antialias", [False, True])
def test_resize_is_within_a_level_of_float_interpolation(frames, antialias):
    inputs = torch.from_numpy(frames[:, :, 10:50]).permute(0, 3, 1, 2).float()
    exact = torch.nn.functional.interpolate(inputs, (24, 16), mode="bilinear", antialias=antialias)
    ours = crop_and_resize(frames, (0, 10, 40, 40), (24, 16), antialias=antialias)
    assert ours.shape == (3, 24, 16, 3)
    assert np.abs(ours - exact.permute(0, 2, 3, 1).numpy()).max() <= 1.01

"""Cropping and resizing of decoded frames."""

import numpy as np
import pytest
import torch
from PIL import Image

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


def taps(length: int, count: int, antialias: bool) -> np.ndarray:
    """Weights of cubic convolution (Keys 1981) from `length` to `count` pixels, float64 (count, length)."""
    scale = length / count
    width, a = (max(1.0, scale), -0.5) if antialias else (1.0, -0.75)
    weights = np.zeros((count, length))
    for row in range(count):
        center = (row + 0.5) * scale - 0.5
        for pixel in range(int(center - 2 * width) - 1, int(center + 2 * width) + 3):
            x = abs(pixel - center) / width
            near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
            weight = near if x < 1 else far if x < 2 else 0.0
            # Outside of the frame: Pillow leaves pixels out, OpenCV repeats the border.
            if not antialias or 0 <= pixel < length:
                weights[row, min(max(pixel, 0), length - 1)] += weight
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(24, 16), (35, 50), (90, 100)])
def test_bicubic_equals_a_plain_implementation(frames, antialias, size):
    def rounded(values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values), 0, 255)

    rows, columns = taps(40, size[0], antialias), taps(60, size[1], antialias)
    wide = rounded(np.einsum("tjkc,lk->tjlc", frames.astype(float), columns))  # as Pillow, in two passes
    exact = rounded(np.einsum("ij,tjlc->tilc", rows, wide))
    found = crop_and_resize(frames, None, size, antialias=antialias, interpolation="bicubic")
    assert np.abs(found - exact).max() <= 1
    assert np.abs(found.astype(int) - crop_and_resize(frames, None, size, antialias=antialias)).max() > 20


@pytest.mark.parametrize("size", [(24, 16), (35, 50), (90, 100)])
def test_bicubic_with_antialias_equals_pillow(frames, size):
    found = crop_and_resize(frames, (3, 5, 30, 40), size, interpolation="bicubic")
    for frame, ours in zip(frames, found, strict=True):
        image = Image.fromarray(frame[3:33, 5:45])
        wide = image.resize((size[1], 30), Image.Resampling.BICUBIC)  # Pillow's order depends on the size
        expected = np.asarray(wide.resize((size[1], size[0]), Image.Resampling.BICUBIC))
        assert np.abs(ours.astype(int) - expected).max() <= 2  # each pass may round differently

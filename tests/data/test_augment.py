import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mmaction_lite.data.views.augment import (
    OPERATIONS,
    ColorJitter,
    RandAugment,
    RandomErasing,
    apply,
)
from mmaction_lite.errors import UserError

EVERYTHING = [
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    RandAugment(probability=1.0),
    RandomErasing(probability=1.0),
]


def picture(seed=0, height=40, width=60):
    """Smooth colors with a few sharp edges: uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 220, (6, 8, 3), np.uint8))
    frame = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))
    frame[10:20, 15:30] = 240, 20, 90
    return frame


@pytest.fixture
def clip():
    return np.stack([picture(seed) for seed in range(4)])


def pillow(operation, frame, strength):
    """What Pillow makes of one frame, with the arguments of the published augmentation."""
    image, most, factor = Image.fromarray(frame), abs(strength), 1 + 0.9 * strength
    width, height = image.size

    def affine(*matrix):
        return image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=(128,) * 3
        )

    added = [i + int(most * 110) if i < 128 else i for i in range(256)]
    return np.array(
        {
            "auto_contrast": lambda: ImageOps.autocontrast(image),
            "equalize": lambda: ImageOps.equalize(image),
            "invert": lambda: ImageOps.invert(image),
            "posterize": lambda: ImageOps.posterize(image, 4 - int(most * 4)),
            "solarize": lambda: ImageOps.solarize(image, 256 - int(most * 256)),
            "solarize_add": lambda: image.point(added * 3),
            "color": lambda: ImageEnhance.Color(image).enhance(factor),
            "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
            "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
            "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
            "rotate": lambda: image.rotate(
                30 * strength, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)
            ),
            "shear_x": lambda: affine(1, 0.3 * strength, 0, 0, 1, 0),
            "shear_y": lambda: affine(1, 0, 0, 0.3 * strength, 1, 0),
            "translate_x": lambda: affine(1, 0, round(0.45 * strength * width), 0, 1, 0),
            "translate_y": lambda: affine(1, 0, 0, 0, 1, round(0.45 * strength * height)),
        }[operation]()
    )


@pytest.mark.parametrize("strength", [-0.9, -0.5, 0.0, 0.3, 0.7])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_do_what_pillow_does_to_a_frame(operation, strength):
    frame = picture()
    ours = apply(operation, frame[None], strength)[0]
    difference = np.abs(ours.astype(int) - pillow(operation, frame, strength))
    if operation in ("rotate", "shear_x", "shear_y"):
        # Where a moved frame begins: we blend with the gray outside, Pillow does not.
        assert np.quantile(difference, 0.9) <= 2
        assert difference.mean() < 2.5
    else:
        assert difference.max() <= 2


@pytest.mark.parametrize("transform", EVERYTHING, ids=lambda transform: type(transform).__name__)
def test_all_frames_of_a_clip_are_treated_alike(transform):
    still = np.repeat(picture()[None], 5, 0)
    for seed in range(12):
        changed = transform(still, np.random.default_rng(seed))
        assert changed.shape == still.shape
        assert changed.dtype == np.uint8
        assert (changed == changed[:1]).all()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operations_do_not_treat_a_frame_by_its_own_colors(operation, clip):
    """A bright frame beside a dark one stays brighter: contrast and histograms are those of the clip."""
    changed = apply(operation, np.stack([clip[0] // 4, clip[0] // 4 + 120]), 0.1)
    if operation == "invert":
        changed = 255 - changed
    assert changed[1].mean() > changed[0].mean() + 60


@pytest.mark.parametrize("transform", EVERYTHING, ids=lambda transform: type(transform).__name__)
def test_the_generator_decides_and_the_clip_given_stays(transform, clip):
    before = clip.copy()
    first, again, other = (transform(clip, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != clip).any()
    assert (clip == before).all()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_mirrored_and_reversed_clips_are_read_in_their_order(operation, clip):
    """Views with negative strides, as flips make them."""
    mirrored = clip[::-1, :, ::-1]
    assert (apply(operation, mirrored, 0.4) == apply(operation, mirrored.copy(), 0.4)).all()


def test_rand_augment_leaves_out_and_chooses():
    clip = np.stack([picture(), picture(1)])
    assert (RandAugment(probability=0.0)(clip, np.random.default_rng(0)) == clip).all()
    one = RandAugment(num_ops=1, magnitude_std=0.0, probability=1.0)
    results = {one(clip, np.random.default_rng(seed)).tobytes() for seed in range(300)}
    # Three have no strength, and three work one way only.
    two_ways = {"color", "contrast", "brightness", "sharpness", "rotate"}
    two_ways |= {"shear_x", "shear_y", "translate_x", "translate_y"}
    expected = {apply(op, clip, sign * 0.7).tobytes() for op in OPERATIONS for sign in (1, -1)}
    assert results == expected
    assert len(expected) == len(OPERATIONS) + len(two_ways)


def test_color_jitter_scales_brightness_contrast_and_saturation(clip):
    def of(seed, **spreads):
        return ColorJitter(**spreads)(clip, np.random.default_rng(seed)).astype(float)

    inside = (clip.min(-1) > 40) & (clip.max(-1) < 200)  # nothing is clipped
    luma = clip @ np.array([0.299, 0.587, 0.114])
    for seed in range(20):
        bright = of(seed, brightness=0.2)
        factor = np.median(bright[inside] / clip[inside])
        assert 0.79 < factor < 1.21
        assert np.abs(bright - clip * factor)[inside].max() < 2
        contrast = of(seed, contrast=0.2) - luma.mean()
        factor = np.median(contrast[inside] / (clip - luma.mean())[inside])
        assert 0.79 < factor < 1.21
        assert np.abs(contrast - (clip - luma.mean()) * factor)[inside].max() < 2
        pale = of(seed, saturation=0.2)
        assert np.abs(pale @ np.array([0.299, 0.587, 0.114]) - luma)[inside].max() < 1
        turned = of(seed, hue=0.1)
        whole = (turned.min(-1) > 0) & (turned.max(-1) < 255)
        assert np.abs(turned @ np.array([0.299, 0.587, 0.114]) - luma)[whole].max() < 1
    gray = np.repeat(clip[..., :1], 3, -1)
    untouched = ColorJitter(saturation=0.5, hue=0.5)(gray, np.random.default_rng(0))
    assert np.abs(untouched.astype(int) - gray).max() <= 1
    assert (ColorJitter()(clip, np.random.default_rng(0)) == clip).all()


def test_half_a_turn_of_the_hue_gives_the_complementary_color():
    class FullState:
        """A generator that draws the end of every range."""

        def uniform(self, low, high):
            return high

    red = np.full((1, 2, 2, 3), (200, 100, 100), np.uint8)
    turned = ColorJitter(hue=0.5)(red, FullState())  # pyright: ignore[reportArgumentType]
    luma = 100 + 0.299 * 100
    assert np.abs(turned[0, 0, 0] - (2 * luma - np.array([200, 100, 100]))).max() < 1


def test_erasing_puts_the_same_noise_into_a_box_of_every_frame(clip):
    shares, ratios = [], []
    for seed in range(400):
        changed = RandomErasing(probability=1.0)(clip, np.random.default_rng(seed))
        where = (changed != clip).any((0, 3))
        rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
        box = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (changed[box] == changed[box][:1]).all()
        assert where.sum() > 0.95 * changed[box][0, ..., 0].size  # a box, but for noise that hit the color
        shares.append(changed[box][0, ..., 0].size / where.size)
        ratios.append(len(rows) / len(columns))
    assert 0.015 < min(shares) < 0.04
    assert 0.36 < max(shares) < 0.42
    assert 0.25 < min(ratios) < 0.4
    assert 2 < max(ratios) < 3.6
    changed = [
        (RandomErasing(probability=0.25)(clip, np.random.default_rng(seed)) != clip).any()
        for seed in range(400)
    ]
    assert 0.18 < np.mean(changed) < 0.32


@pytest.mark.parametrize("transform", EVERYTHING, ids=lambda transform: type(transform).__name__)
def test_tiny_and_constant_clips_are_accepted(transform):
    for shape in ((1, 1, 1, 3), (2, 2, 7, 3), (3, 16, 1, 3)):
        for seed in range(30):
            flat = np.full(shape, 77, np.uint8)
            assert transform(flat, np.random.default_rng(seed)).shape == shape


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match=r"hue is 0\.6; expected a number, at least 0 and at most 0\.5"):
        ColorJitter(hue=0.6)
    with pytest.raises(UserError, match="magnitude is 11; expected a number, at least 0 and at most 10"):
        RandAugment(magnitude=11)
    with pytest.raises(UserError, match="area is"):
        RandomErasing(area=(0.4, 0.1))


@pytest.mark.parametrize("operation", ["rotate", "shear_x", "shear_y"])
def test_bicubic_rotation_and_shear_equal_a_plain_implementation(operation):
    """Cubic convolution with the parameter -0.75 at every source position; gray outside of the frame."""
    frame, strength = picture(), 0.6
    height, width = frame.shape[:2]
    turn = math.radians(30 * strength)
    cos, sin = math.cos(turn), math.sin(turn)
    matrix = {
        "rotate": ((cos, -sin), (sin, cos)),
        "shear_x": ((1, 0.3 * strength), (0, 1)),
        "shear_y": ((1, 0), (0.3 * strength, 1)),
    }[operation]
    center = np.array([width, height]) / 2 if operation == "rotate" else np.zeros(2)
    padded = np.pad(frame.astype(float), ((99, 99), (99, 99), (0, 0)), constant_values=128)

    def weight(x: float) -> float:
        a, x = -0.75, abs(x)
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        return near if x < 1 else far if x < 2 else 0.0

    expected = np.zeros(frame.shape)
    for row, column in np.ndindex(height, width):
        x, y = np.array(matrix) @ (np.array([column, row]) + 0.5 - center) + center - 0.5
        left, top = math.floor(x) - 1, math.floor(y) - 1
        weights = np.outer([weight(y - top - i) for i in range(4)], [weight(x - left - i) for i in range(4)])
        window = padded[top + 99 : top + 103, left + 99 : left + 103]
        expected[row, column] = np.einsum("ij,ijc->c", weights, window)
    found = apply(operation, frame[None], strength, "bicubic")[0]
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 0.51
    assert (found != apply(operation, frame[None], strength)[0]).any()
    augment = RandAugment(num_ops=1, magnitude=6.0, magnitude_std=0.0, probability=1.0)
    cubic = replace(augment, interpolation="bicubic")
    drawn = {cubic(frame[None], np.random.default_rng(seed)).tobytes() for seed in range(100)}
    assert found.tobytes() in drawn

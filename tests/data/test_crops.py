import numpy as np
import pytest

from mmaction_lite.data.views.crops import (
    CenterCrop,
    MultiScaleCrop,
    RandomCrop,
    RandomResizedCrop,
    ScaleJitterCrop,
    TenCrop,
    ThreeCrop,
)
from mmaction_lite.errors import UserError


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)


@pytest.mark.parametrize("crop", [RandomCrop, ScaleJitterCrop, RandomResizedCrop, MultiScaleCrop])
@pytest.mark.parametrize("frame", [(256, 340), (340, 256), (24, 24), (5, 300)])
def test_random_boxes_lie_inside_the_frame(crop, frame):
    rng = np.random.default_rng(0)
    for _ in range(200):
        (placement,) = crop(size=(24, 24)).plan(*frame, rng)
        top, left, height, width = placement.box
        assert top >= 0
        assert left >= 0
        assert height >= 1
        assert width >= 1
        assert top + height <= frame[0]
        assert left + width <= frame[1]
        assert placement.size == (24, 24)
        assert all(type(value) is int for value in placement.box)


def test_multi_scale_crop_uses_the_published_sizes_and_places():
    rng = np.random.default_rng(0)
    for positions in (5, 13):
        crop = MultiScaleCrop(size=(224, 224), positions=positions)
        boxes = {crop.plan(256, 340, rng)[0].box for _ in range(3000)}
        sizes = {box[2:] for box in boxes}
        sides = [256, 224, 192, 168]
        assert sizes == {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}
        # One step of four between the edges: whole steps only, as published.
        assert {(top, left) for top, left, h, w in boxes if (h, w) == (224, 224)} == {
            (row * 8, column * 29)
            for row, column in (
                [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
                + [(0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)] * (positions == 13)
            )
        }


def test_random_resized_crop_covers_its_range_of_areas_and_shapes():
    rng = np.random.default_rng(0)
    boxes = [RandomResizedCrop(size=(8, 8)).plan(256, 340, rng)[0].box for _ in range(2000)]
    area = np.array([h * w / (256 * 340) for _, _, h, w in boxes])
    ratio = np.array([w / h for _, _, h, w in boxes])
    assert 0.07 < area.min() < 0.12
    assert 0.9 < area.max() <= 1
    assert 0.72 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.4


def test_scale_jitter_is_a_fixed_crop_of_a_frame_resized_to_a_random_short_side():
    crop, rng = ScaleJitterCrop(size=(224, 160), short_side=(256, 320)), np.random.default_rng(0)
    boxes = np.array([crop.plan(512, 700, rng)[0].box for _ in range(5000)])
    # Short sides 256 to 320 of a frame of 512: scales 2 down to 1.6.
    expected = {(round(224 * 512 / side), round(160 * 512 / side)) for side in range(256, 321)}
    assert {(h, w) for _, _, h, w in boxes.tolist()} == expected
    assert boxes[:, 0].min() == 0
    assert (boxes[:, 0] + boxes[:, 2]).max() == 512
    assert (boxes[:, 1] + boxes[:, 3]).max() == 700
    inverse = ScaleJitterCrop(size=(64, 64), short_side=(64, 256), draw="reciprocal")
    lengths = np.array([64 * 512 / inverse.plan(512, 700, rng)[0].box[2] for _ in range(5000)])
    assert (lengths.min(), lengths.max()) == pytest.approx((64, 256), abs=1)
    assert float((1 / lengths).mean()) == pytest.approx((1 / 64 + 1 / 256) / 2, rel=0.02)
    with pytest.raises(UserError, match=r"short_side is \(320, 256\)"):
        ScaleJitterCrop(size=(224, 224), short_side=(320, 256))


def test_fixed_crops_are_where_the_protocols_put_them():
    assert [p.box for p in CenterCrop(size=(224, 224)).plan(256, 341)] == [(16, 58, 224, 224)]
    assert [p.box[:2] for p in ThreeCrop(size=(256, 256)).plan(256, 341)] == [(0, 0), (0, 42), (0, 85)]
    assert [p.box[:2] for p in ThreeCrop(size=(256, 256)).plan(341, 256)] == [(0, 0), (42, 0), (85, 0)]
    ten = TenCrop(size=(224, 224)).plan(256, 340)
    assert [p.box[:2] for p in ten[:5]] == [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]
    assert [p.box for p in ten[5:]] == [p.box for p in ten[:5]]
    assert [p.flip for p in ten] == [False] * 5 + [True] * 5

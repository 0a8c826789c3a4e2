"""Random and fixed crops: from the size of a frame to the boxes of the views.

A crop receives only the size of the frames and returns placements. The video source or the device cuts and
resizes the pixels afterwards, so that every frame is resampled once.
"""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np

from mmaction_lite.data.sources.resample import Box, Size
from mmaction_lite.settings import (
    ASCENDING,
    NOT_EMPTY,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    check_fields,
)

ViewSize = tuple[PositiveInt, PositiveInt]
"""(height, width) of a view."""


class Placement(NamedTuple):
    """Position of one view in the frame.

    Args:
        box: (top, left, height, width) in pixels.
        size: (height, width) to which the box is resampled.
        flip: whether the view is mirrored.
    """

    box: Box
    size: Size
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """Crop a box of exactly `size` at a random position."""

    num_crops: ClassVar[int] = 1
    size: ViewSize

    def __post_init__(self):
        check_fields(self)

    def plan(self, height: int, width: int, rng: np.random.Generator) -> list[Placement]:
        """Return one placement; a frame smaller than `size` is enlarged."""
        h, w = _fitting(self.size, height, width)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        return [Placement((int(top), int(left), h, w), self.size)]


@dataclass(frozen=True, kw_only=True)
class ScaleJitterCrop:
    """Crop `size` at random after resizing the short side at random (Simonyan & Zisserman 2014, §3.1).

    This is PySlowFast's training crop, which resizes whole frames and then crops. Here the same box is
    computed in the original frame and resampled once.

    Args:
        size: (height, width) of the view.
        short_side: smallest and largest length of the short side in pixels.
        draw: whether the "length" or its "reciprocal" is drawn uniformly (`DATA.INV_UNIFORM_SAMPLE`).
    """

    num_crops: ClassVar[int] = 1
    size: ViewSize
    short_side: Annotated[tuple[PositiveInt, PositiveInt], ASCENDING] = (256, 320)
    draw: Literal["length", "reciprocal"] = "length"

    def __post_init__(self):
        check_fields(self)

    def plan(self, height: int, width: int, rng: np.random.Generator) -> list[Placement]:
        """Return one placement; a box larger than the frame is reduced to fit, with the same aspect ratio."""
        shortest, longest = self.short_side
        if self.draw == "length":
            length = rng.integers(shortest, longest + 1)
        else:
            length = round(1 / rng.uniform(1 / longest, 1 / shortest))
        scale = min(height, width) / length
        box = max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))
        h, w = _fitting(box, height, width)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        return [Placement((int(top), int(left), h, w), self.size)]


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """Crop a box of random area and aspect ratio and resize it to `size` (Szegedy et al. 2015, §6).

    Args:
        size: (height, width) of the view.
        area: smallest and largest area of the box, as fractions of the area of the frame.
        ratio: smallest and largest width / height of the box, drawn log-uniformly.
    """

    num_crops: ClassVar[int] = 1
    size: ViewSize
    area: Annotated[tuple[PositiveFraction, PositiveFraction], ASCENDING] = (0.08, 1.0)
    ratio: Annotated[tuple[PositiveFloat, PositiveFloat], ASCENDING] = (3 / 4, 4 / 3)

    def __post_init__(self):
        check_fields(self)

    def plan(self, height: int, width: int, rng: np.random.Generator) -> list[Placement]:
        """Return one placement; the largest centered square if none of ten random boxes fits."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                return [Placement((int(top), int(left), h, w), self.size)]
        side = min(height, width)
        return [Placement(_centered(side, side, height, width), self.size)]


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """Crop a box of one of a few sizes at one of a few positions and resize it (TSN: Wang et al. 2016, §3.2).

    Args:
        size: (height, width) of the view.
        scales: height and width of the box are the short side times one of these factors each.
        max_scale_gap: largest distance in `scales` between the factors of height and width.
        positions: 5 (corners and center) or 13 (also midpoints of the edges and quarter points).
    """

    num_crops: ClassVar[int] = 1
    size: ViewSize
    scales: Annotated[tuple[PositiveFraction, ...], NOT_EMPTY] = (1.0, 0.875, 0.75, 0.66)
    max_scale_gap: NonNegativeInt = 1
    positions: Literal[5, 13] = 5

    def __post_init__(self):
        check_fields(self)

    def plan(self, height: int, width: int, rng: np.random.Generator) -> list[Placement]:
        """Return one placement."""
        steps = range(len(self.scales))
        pairs = [(i, j) for i in steps for j in steps if abs(i - j) <= self.max_scale_gap]
        i, j = pairs[rng.integers(len(pairs))]
        h, w = (max(1, int(min(height, width) * self.scales[k])) for k in (i, j))
        # Positions on a 5 x 5 grid, as (row, column).
        corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
        others = [(2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
        places = corners if self.positions == 5 else corners + others
        row, column = places[rng.integers(len(places))]
        box = (row * ((height - h) // 4), column * ((width - w) // 4), h, w)
        return [Placement(box, self.size)]


@dataclass(frozen=True, kw_only=True)
class CenterCrop:
    """Crop one box of `size` in the center."""

    num_crops: ClassVar[int] = 1
    size: ViewSize

    def __post_init__(self):
        check_fields(self)

    def plan(self, height: int, width: int, rng: object = None) -> list[Placement]:
        """Return one placement; a frame smaller than `size` is enlarged."""
        return [Placement(_centered(*_fitting(self.size, height, width), height, width), self.size)]


@dataclass(frozen=True, kw_only=True)
class ThreeCrop:
    """Crop three boxes of `size` along the longer side: start, middle, end (Wang et al. 2018, §4.1)."""

    num_crops: ClassVar[int] = 3
    size: ViewSize

    def __post_init__(self):
        check_fields(self)

    def plan(self, height: int, width: int, rng: object = None) -> list[Placement]:
        """Return three placements, from left to right or from top to bottom."""
        h, w = _fitting(self.size, height, width)
        down, across = height - h, width - w
        middle = (down // 2, across // 2)
        ends = (
            [(middle[0], 0), (middle[0], across)] if across >= down else [(0, middle[1]), (down, middle[1])]
        )
        return [Placement((top, left, h, w), self.size) for top, left in (ends[0], middle, ends[1])]


@dataclass(frozen=True, kw_only=True)
class TenCrop:
    """Crop four corners and the center, and mirror each of the five (Krizhevsky et al. 2012, §4.1)."""

    num_crops: ClassVar[int] = 10
    size: ViewSize

    def __post_init__(self):
        check_fields(self)

    def plan(self, height: int, width: int, rng: object = None) -> list[Placement]:
        """Return ten placements: five boxes, then the same five mirrored."""
        h, w = _fitting(self.size, height, width)
        down, across = height - h, width - w
        places = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
        return [
            Placement((top, left, h, w), self.size, flip) for flip in (False, True) for top, left in places
        ]


RandomPlan = RandomCrop | ScaleJitterCrop | RandomResizedCrop | MultiScaleCrop
FixedPlan = CenterCrop | ThreeCrop | TenCrop


def _fitting(size: Size, height: int, width: int) -> Size:
    """Return the largest (height, width) with the aspect ratio of `size` that fits into frame and `size`."""
    shrink = min(1.0, height / size[0], width / size[1])
    return max(1, int(size[0] * shrink)), max(1, int(size[1] * shrink))


def _centered(h: int, w: int, height: int, width: int) -> Box:
    return (height - h) // 2, (width - w) // 2, h, w

"""From a frame's size to boxes, and from pixels to the inputs a model sees.

Geometry is planned first: a crop knows only the size of the frames and answers with placements; whoever
holds the pixels executes them. Every frame is resampled once.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from mmaction_lite.data.sources.resample import Box, Size
from mmaction_lite.errors import UserError


class Placement(NamedTuple):
    """Where one view lies in the frame: cut `box`, resample it to `size`, mirror it if `flip`."""

    box: Box
    size: Size
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class RandomCrop:
    """A box of exactly `size` anywhere in the frame."""

    num_crops: ClassVar[int] = 1
    size: Size

    def plan(self, height: int, width: int, rng: np.random.Generator) -> list[Placement]:
        """One placement; a frame smaller than `size` is enlarged."""
        h, w = _fitting(self.size, height, width)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        return [Placement((int(top), int(left), h, w), self.size)]


@dataclass(frozen=True, kw_only=True)
class ScaleJitterCrop:
    """A box that is `size` once the short side is a random length (Simonyan & Zisserman 2014, §3.1).

    PySlowFast's training crop, there two steps: resize the short side to a length in `short_side`, cut
    `size` anywhere. Here the same box is found in the source's frame and resampled once.

    Args:
        size: (height, width) of the view.
        short_side: smallest and largest length, drawn uniformly.
    """

    num_crops: ClassVar[int] = 1
    size: Size
    short_side: tuple[int, int] = (256, 320)

    def __post_init__(self):
        shortest, longest = self.short_side
        if not 1 <= shortest <= longest:
            raise UserError(f"ScaleJitterCrop: short_side is {self.short_side}; expected smallest, largest")

    def plan(self, height: int, width: int, rng: np.random.Generator) -> list[Placement]:
        """One placement; a box larger than the frame is shrunk to fit, in its shape."""
        scale = min(height, width) / rng.integers(self.short_side[0], self.short_side[1] + 1)
        box = max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))
        h, w = _fitting(box, height, width)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        return [Placement((int(top), int(left), h, w), self.size)]


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop:
    """A box of random area and shape, resized to `size` (Szegedy et al. 2015, §6).

    Args:
        size: (height, width) of the view.
        area: smallest and largest share of the frame's area.
        ratio: smallest and largest width / height, drawn log-uniformly.
    """

    num_crops: ClassVar[int] = 1
    size: Size
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def plan(self, height: int, width: int, rng: np.random.Generator) -> list[Placement]:
        """One placement; after ten boxes that do not fit, the largest centred square."""
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                return [Placement((int(top), int(left), h, w), self.size)]
        side = min(height, width)
        return [Placement(_centred(side, side, height, width), self.size)]


@dataclass(frozen=True, kw_only=True)
class MultiScaleCrop:
    """A box of a few sizes at a few places, resized to `size` (TSN: Wang et al. 2016, §3.2).

    Height and width are `scales` times the short side, at most `max_scale_gap` steps of the list apart.
    `positions` is 5 (corners and centre) or 13 (also the edges' middles and the quarter points).
    """

    num_crops: ClassVar[int] = 1
    size: Size
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    max_scale_gap: int = 1
    positions: int = 5

    def __post_init__(self):
        if self.positions not in (5, 13):
            raise UserError(f"MultiScaleCrop: positions is {self.positions}; it must be 5 or 13")

    def plan(self, height: int, width: int, rng: np.random.Generator) -> list[Placement]:
        """One placement."""
        steps = range(len(self.scales))
        pairs = [(i, j) for i in steps for j in steps if abs(i - j) <= self.max_scale_gap]
        i, j = pairs[rng.integers(len(pairs))]
        h, w = (max(1, int(min(height, width) * self.scales[k])) for k in (i, j))
        # Places on a 5 x 5 grid of quarter steps, as (row, column).
        corners = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
        others = [(2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
        places = corners if self.positions == 5 else corners + others
        row, column = places[rng.integers(len(places))]
        box = (row * ((height - h) // 4), column * ((width - w) // 4), h, w)
        return [Placement(box, self.size)]


@dataclass(frozen=True, kw_only=True)
class CenterCrop:
    """One box of `size` in the middle."""

    num_crops: ClassVar[int] = 1
    size: Size

    def plan(self, height: int, width: int, rng: object = None) -> list[Placement]:
        """One placement; a frame smaller than `size` is enlarged."""
        return [Placement(_centred(*_fitting(self.size, height, width), height, width), self.size)]


@dataclass(frozen=True, kw_only=True)
class ThreeCrop:
    """Three boxes of `size` along the longer side: start, middle, end (Wang et al. 2018, §4.1)."""

    num_crops: ClassVar[int] = 3
    size: Size

    def plan(self, height: int, width: int, rng: object = None) -> list[Placement]:
        """Three placements, from left to right or from top to bottom."""
        h, w = _fitting(self.size, height, width)
        down, across = height - h, width - w
        middle = (down // 2, across // 2)
        ends = (
            [(middle[0], 0), (middle[0], across)] if across >= down else [(0, middle[1]), (down, middle[1])]
        )
        return [Placement((top, left, h, w), self.size) for top, left in (ends[0], middle, ends[1])]


@dataclass(frozen=True, kw_only=True)
class TenCrop:
    """Four corners and the centre, each also mirrored (Krizhevsky et al. 2012, §4.1)."""

    num_crops: ClassVar[int] = 10
    size: Size

    def plan(self, height: int, width: int, rng: object = None) -> list[Placement]:
        """Ten placements: five boxes as they are, then the same five mirrored."""
        h, w = _fitting(self.size, height, width)
        down, across = height - h, width - w
        places = [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]
        return [
            Placement((top, left, h, w), self.size, flip) for flip in (False, True) for top, left in places
        ]


RandomPlan = RandomCrop | ScaleJitterCrop | RandomResizedCrop | MultiScaleCrop
FixedPlan = CenterCrop | ThreeCrop | TenCrop


def _fitting(size: Size, height: int, width: int) -> Size:
    """The largest box with the shape of `size`, not larger than `size`, that the frame holds."""
    shrink = min(1.0, height / size[0], width / size[1])
    return max(1, int(size[0] * shrink)), max(1, int(size[1] * shrink))


def _centred(h: int, w: int, height: int, width: int) -> Box:
    return (height - h) // 2, (width - w) // 2, h, w

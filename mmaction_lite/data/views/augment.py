"""Transform the pixels of training clips after crop and flip: color jitter, RandAugment, random erasing.

Each transform maps uint8 RGB (T, h, w, 3) to the same shape and draws from the generator that it receives.
All frames of a clip get the same transform. Statistics of the pixels (mean, range, histogram) are computed
over the whole clip, so that the result does not flicker. The input array is never modified.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from mmaction_lite.data.sources.resample import Interpolation
from mmaction_lite.settings import (
    ASCENDING,
    NonNegativeFloat,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    Probability,
    at_least,
    at_most,
    check_fields,
)

# ITU-R 601-2 luma, as Pillow and torchvision use it.
LUMA = np.array([0.299, 0.587, 0.114])
# RGB to luma and two chroma axes (NTSC's YIQ). Rotating the plane of the chroma axes changes only the hue.
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
GRAY = 128  # fill value of pixels that a shifted or warped frame does not cover
# Pixels per matrix product: small enough for the cache, and for BLAS to use one thread.
BLOCK = 16384


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue at random, the first three as in torchvision.

    The four changes are linear and applied as one matrix. Values are clipped only at the end, so the order of
    the changes does not matter. Contrast scales the difference from the mean gray of the clip. Hue is a
    rotation in YIQ, which keeps the luma.

    Args:
        brightness: draw the factor from 1 ± `brightness`, clipped below at 0.
        contrast: draw the factor from 1 ± `contrast`, clipped below at 0.
        saturation: draw the factor from 1 ± `saturation`, clipped below at 0.
        hue: draw the angle from ± `hue`, as a fraction of a full rotation; at most 0.5.
    """

    brightness: NonNegativeFloat = 0.0
    contrast: NonNegativeFloat = 0.0
    saturation: NonNegativeFloat = 0.0
    hue: Annotated[float, at_least(0), at_most(0.5)] = 0.0

    def __post_init__(self):
        check_fields(self)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Map uint8 (T, h, w, 3) to the same shape."""
        spreads = (self.brightness, self.contrast, self.saturation)
        bright, contrast, color = (rng.uniform(max(0.0, 1 - spread), 1 + spread) for spread in spreads)
        angle = 2 * math.pi * rng.uniform(-self.hue, self.hue)
        turn = np.eye(3)
        turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        turned = np.linalg.inv(YIQ) @ turn @ YIQ if self.hue > 0 else np.eye(3)
        matrix = bright * contrast * _saturating(color) @ turned
        gray = float(_means(pixels) @ LUMA) if self.contrast > 0 else 0.0
        return _recolor(pixels, matrix, bright * (1 - contrast) * gray)


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Apply a few random operations of one magnitude (Cubuk et al. 2020, arXiv:1909.13719, §3) to a clip.

    Operations, their ranges and the defaults are those of the trainings of MViT and VideoMAE
    ("rand-m7-n4-mstd0.5-inc1"). Compared with the paper, they add `invert` and `solarize_add`, skip each
    operation with probability 0.5 instead of drawing the identity, and add noise to the magnitude.
    Differences from these trainings: the input is the crop, not the whole frame; translations are by whole
    pixels; contrast, range and histogram are those of the clip; bicubic interpolation has the parameter -0.75
    of PyTorch, and -1 in these trainings (Pillow). Rotation and shear resample the frames a second time.

    Args:
        num_ops: number of operations in a row, drawn independently.
        magnitude: mean magnitude, 0 to 10.
        magnitude_std: standard deviation of the normal noise on the magnitude.
        probability: probability of applying each drawn operation.
        interpolation: filter of rotation and shear.
    """

    num_ops: PositiveInt = 4
    magnitude: Annotated[float, at_least(0), at_most(10)] = 7.0
    magnitude_std: NonNegativeFloat = 0.5
    probability: Probability = 0.5
    interpolation: Interpolation = "bilinear"

    def __post_init__(self):
        check_fields(self)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Map uint8 (T, h, w, 3) to the same shape."""
        for op in rng.integers(len(OPERATIONS), size=self.num_ops):
            strength = min(max(rng.normal(self.magnitude, self.magnitude_std), 0.0), 10.0) / 10
            sign = 1 if rng.random() < 0.5 else -1
            if rng.random() < self.probability:
                pixels = apply(OPERATIONS[op], pixels, sign * strength, self.interpolation)
        return pixels


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Replace a random box by noise, the same in all frames (Zhong et al. 2020, arXiv:1708.04896).

    Args:
        probability: probability of erasing a box.
        area: smallest and largest area of the box, as fractions of the area of the frame.
        ratio: smallest and largest height / width of the box, drawn log-uniformly.
    """

    probability: Probability = 0.5
    area: Annotated[tuple[PositiveFraction, PositiveFraction], ASCENDING] = (0.02, 0.4)
    ratio: Annotated[tuple[PositiveFloat, PositiveFloat], ASCENDING] = (0.3, 1 / 0.3)

    def __post_init__(self):
        check_fields(self)

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Map uint8 (T, h, w, 3) to the same shape; unchanged if none of ten random boxes fits."""
        if rng.random() >= self.probability:
            return pixels
        height, width = pixels.shape[1:3]
        for _ in range(10):
            area = height * width * rng.uniform(*self.area)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                erased = pixels.copy()
                erased[:, top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
                return erased
        return pixels


TIMM_ERASING = RandomErasing(probability=0.25, area=(0.02, 1 / 3))
"""The erasing of published trainings of transformers, with timm's areas."""

PixelTransform = ColorJitter | RandAugment | RandomErasing

OPERATIONS = (
    *("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add"),
    *("color", "contrast", "brightness", "sharpness"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)


def apply(
    operation: str, pixels: np.ndarray, strength: float, interpolation: Interpolation = "bilinear"
) -> np.ndarray:
    """Apply one operation of RandAugment to a clip.

    Args:
        operation: one of `OPERATIONS`, named as in Pillow.
        pixels: uint8 (T, h, w, 3).
        strength: -1 to 1. Operations with two directions use the sign.
        interpolation: filter of rotation and shear.

    Returns:
        uint8 (T, h, w, 3).
    """
    most = abs(strength)
    height, width = pixels.shape[1:3]
    levels = np.arange(256)
    match operation:
        case "auto_contrast":
            return _auto_contrast(pixels)
        case "equalize":
            return _equalize(pixels)
        case "invert":
            return 255 - pixels
        case "posterize":  # to between 4 bits and 1 bit
            return pixels & np.uint8(256 - (1 << (8 - max(1, 4 - int(most * 4)))))
        case "solarize":
            return _look_up(pixels, np.where(levels < 256 - int(most * 256), levels, 255 - levels))
        case "solarize_add":
            return _look_up(pixels, np.where(levels < 128, levels + int(most * 110), levels))
        case "color":
            return _recolor(pixels, _saturating(1 + 0.9 * strength), 0.0)
        case "contrast":
            gray = float(_means(pixels) @ LUMA)
            return _recolor(pixels, np.eye(3) * (1 + 0.9 * strength), -0.9 * strength * gray)
        case "brightness":
            return _recolor(pixels, np.eye(3) * (1 + 0.9 * strength), 0.0)
        case "sharpness":
            return _sharpen(pixels, 1 + 0.9 * strength)
        case "rotate":  # about the center, positive counterclockwise
            angle = math.radians(30 * strength)
            cos, sin = math.cos(angle), math.sin(angle)
            x, y = width / 2, height / 2
            matrix = [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]]
            return _warp(pixels, matrix, interpolation)
        case "shear_x":
            return _warp(pixels, [[1, 0.3 * strength, 0], [0, 1, 0]], interpolation)
        case "shear_y":
            return _warp(pixels, [[1, 0, 0], [0.3 * strength, 1, 0]], interpolation)
        case "translate_x":
            return _shift(pixels, 2, round(0.45 * strength * width))
        case "translate_y":
            return _shift(pixels, 1, round(0.45 * strength * height))
    raise ValueError(f"{operation!r} is not an operation; expected one of {OPERATIONS}")


def _look_up(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Map every value through `table` (256,), rounded and clipped; faster than indexing."""
    table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    changed = bytearray(np.ascontiguousarray(pixels).data).translate(table.tobytes())
    return np.frombuffer(changed, np.uint8).reshape(pixels.shape)


def _look_up_channels(pixels: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """Map every value through the table (256,) of its channel."""
    import torch

    planes = [_look_up(pixels[..., channel], table) for channel, table in enumerate(tables)]
    return torch.from_numpy(np.stack(planes)).permute(1, 2, 3, 0).contiguous().numpy()


def _columns(pixels: np.ndarray) -> np.ndarray:
    """Return the clip as (T·h, w·3): reductions over long rows are faster than over three channels."""
    return np.ascontiguousarray(pixels).reshape(-1, pixels.shape[2] * 3)


def _means(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of each channel over the clip, (3,)."""
    sums = _columns(pixels).sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.uint64)
    return sums / (pixels.size // 3)


def _saturating(factor: float) -> np.ndarray:
    """Return the matrix (3, 3) that blends a color with its gray by `factor`."""
    return factor * np.eye(3) + (1 - factor) * LUMA


def _recolor(pixels: np.ndarray, matrix: np.ndarray, offset: float) -> np.ndarray:
    """Compute `matrix @ rgb + offset` for each pixel, rounded and clipped."""
    if np.array_equal(matrix, np.eye(3) * matrix[0, 0]):
        return _look_up(pixels, np.arange(256) * matrix[0, 0] + offset)
    flat = np.ascontiguousarray(pixels).reshape(-1, 3)
    result, transposed = np.empty_like(flat), matrix.T.astype(np.float32)
    for first in range(0, len(flat), BLOCK):
        block = flat[first : first + BLOCK].astype(np.float32) @ transposed
        block += offset + 0.5
        result[first : first + BLOCK] = np.clip(block, 0, 255, out=block)
    return result.reshape(pixels.shape)


def _auto_contrast(pixels: np.ndarray) -> np.ndarray:
    """Stretch each channel to the full range."""
    columns, tables = _columns(pixels), []
    lowest, highest = columns.min(0).reshape(-1, 3).min(0), columns.max(0).reshape(-1, 3).max(0)
    for low, high in zip(lowest.tolist(), highest.tolist(), strict=True):
        levels = np.arange(256)
        tables.append((levels - low) * (255 / (high - low)) if high > low else levels)
    return _look_up_channels(pixels, tables)


def _equalize(pixels: np.ndarray) -> np.ndarray:
    """Equalize the histogram of each channel by Pillow's rule."""
    import torch

    tables = []
    for channel in range(3):
        values = torch.from_numpy(np.ascontiguousarray(pixels[..., channel])).flatten()
        counts = torch.bincount(values, minlength=256).numpy()
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.cumsum(counts) - counts
        tables.append((below + step // 2) // step if step else np.arange(256))
    return _look_up_channels(pixels, tables)


def _sharpen(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Blend the frames with a copy smoothed by ((1, 1, 1), (1, 5, 1), (1, 1, 1)) / 13, except at borders."""
    result = pixels.copy()
    for frame, sharpened in zip(pixels, result, strict=True):  # frame by frame, for the cache
        values = frame.astype(np.float32)
        rows = values[:-2] + values[1:-1] + values[2:]
        center = values[1:-1, 1:-1]
        smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * center) / 13
        smooth += factor * (center - smooth) + 0.5
        sharpened[1:-1, 1:-1] = np.clip(smooth, 0, 255, out=smooth)
    return result


def _shift(pixels: np.ndarray, axis: int, distance: int) -> np.ndarray:
    """Shift the frames by `distance` pixels toward the start of `axis`; toward the end if negative."""
    result = np.full_like(pixels, GRAY, order="C")
    target, origin = np.moveaxis(result, axis, 0), np.moveaxis(pixels, axis, 0)
    kept = len(origin) - abs(distance)
    if kept > 0:
        target[max(0, -distance) :][:kept] = origin[max(0, distance) :][:kept]
    return result


def _warp(pixels: np.ndarray, matrix: list[list[float]], interpolation: Interpolation) -> np.ndarray:
    """Sample the pixel at (x, y) from `matrix @ (x, y, 1)`; pixel centers are at n + ½."""
    import torch
    from torch.nn import functional

    height, width = pixels.shape[1:3]
    (a, b, c), (d, e, f) = matrix
    b, d = b * height / width, d * width / height  # to coordinates from -1 to 1
    c, f = a + b + 2 * c / width - 1, d + e + 2 * f / height - 1
    grid = functional.affine_grid(torch.tensor([[[a, b, c], [d, e, f]]]), [1, 3, height, width], False)
    result = np.empty_like(pixels, order="C")
    for frame, warped in zip(pixels, result, strict=True):  # frame by frame, for the cache
        # `grid_sample` reads 0 outside of the frame; subtract gray, so that 0 means gray.
        values = torch.from_numpy(frame.astype(np.float32) - GRAY).permute(2, 0, 1)[None]
        moved = functional.grid_sample(values, grid, mode=interpolation, align_corners=False)[0]
        warped[:] = moved.permute(1, 2, 0).add(GRAY + 0.5).clamp_(0, 255).numpy()
    return result

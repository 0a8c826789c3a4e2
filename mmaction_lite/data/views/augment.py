"""What happens to the pixels of a training clip after its geometry: colour, RandAugment, erasing.

A transform maps uint8 (T, h, w, 3) RGB to the same shape, draws from the generator it is handed, and treats
all frames of the clip alike: what it measures of the pixels (mean, range, histogram) is measured over the
whole clip, so that nothing flickers. The array that it is given is never changed.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.nn import functional

from mmaction_lite.errors import UserError

# ITU-R 601-2 luma, as Pillow and torchvision use it.
LUMA = np.array([0.299, 0.587, 0.114])
# RGB to luma and two axes of colour (NTSC's YIQ); turning the plane of the two changes the hue alone.
YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
GREY = 128  # stands where a moved frame left nothing
# Pixels per matrix product: few enough for the cache, and for BLAS to stay on the caller's thread.
BLOCK = 16384


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Random brightness, contrast, saturation and hue, the first three as in torchvision.

    All four are linear and done at once: values are clipped only at the end, so that their order is of no
    account. Contrast is about the mean grey of the clip; the hue is turned in YIQ, which keeps the luma.

    Args:
        brightness: the factor is drawn from 1 ± `brightness`, not below 0.
        contrast: likewise.
        saturation: likewise.
        hue: the angle is drawn from ± `hue`, as a share of a full turn; at most 0.5.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= (0.5 if field.name == "hue" else math.inf):
                expected = "0 to 0.5" if field.name == "hue" else "0 or more"
                value = getattr(self, field.name)
                raise UserError(f"ColorJitter: {field.name} is {value}; expected {expected}")

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (T, h, w, 3) to the same."""
        spreads = (self.brightness, self.contrast, self.saturation)
        bright, contrast, color = (rng.uniform(max(0.0, 1 - spread), 1 + spread) for spread in spreads)
        angle = 2 * math.pi * rng.uniform(-self.hue, self.hue)
        turn = np.eye(3)
        turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        turned = np.linalg.inv(YIQ) @ turn @ YIQ if self.hue > 0 else np.eye(3)
        matrix = bright * contrast * _saturating(color) @ turned
        grey = float(_means(pixels) @ LUMA) if self.contrast > 0 else 0.0
        return _recolor(pixels, matrix, bright * (1 - contrast) * grey)


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """A few random operations at one strength (Cubuk et al. 2020, arXiv:1909.13719, §3), as on videos.

    Operations, their ranges and the defaults are those with which MViT and VideoMAE were trained
    ("rand-m7-n4-mstd0.5-inc1"): to the paper's thirteen come inverting and adding to dark pixels, every
    operation is left out half of the time, which stands for the paper's identity, and the magnitude has
    noise. Differences: it acts on the crop, not on the frame before; shifts are by whole pixels;
    interpolation is bilinear; contrast, range and histogram are those of the clip. Rotating and shearing
    resample the frames once more.

    Args:
        num_ops: operations in a row, drawn independently.
        magnitude: strength, 0 to 10.
        magnitude_std: of the normal noise on the strength.
        probability: of each drawn operation being carried out.
    """

    num_ops: int = 4
    magnitude: float = 7.0
    magnitude_std: float = 0.5
    probability: float = 0.5

    def __post_init__(self):
        if self.num_ops < 1:
            raise UserError(f"RandAugment: num_ops is {self.num_ops}; it must be at least 1")
        if not 0 <= self.magnitude <= 10:
            raise UserError(f"RandAugment: magnitude is {self.magnitude}; expected 0 to 10")
        if self.magnitude_std < 0:
            raise UserError(f"RandAugment: magnitude_std is {self.magnitude_std}; expected 0 or more")
        if not 0 <= self.probability <= 1:
            raise UserError(f"RandAugment: probability is {self.probability}; expected a probability")

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (T, h, w, 3) to the same."""
        for op in rng.integers(len(OPERATIONS), size=self.num_ops):
            strength = min(max(rng.normal(self.magnitude, self.magnitude_std), 0.0), 10.0) / 10
            sign = 1 if rng.random() < 0.5 else -1
            if rng.random() < self.probability:
                pixels = apply(OPERATIONS[op], pixels, sign * strength)
        return pixels


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """Noise in the place of a random box, the same in all frames (Zhong et al. 2020, arXiv:1708.04896).

    Args:
        probability: of erasing anything.
        area: smallest and largest share of the frame's area.
        ratio: smallest and largest height / width, drawn log-uniformly.
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.4)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self):
        if not 0 <= self.probability <= 1:
            raise UserError(f"RandomErasing: probability is {self.probability}; expected a probability")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"RandomErasing: area is {self.area}; expected two shares, smallest first")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"RandomErasing: ratio is {self.ratio}; expected smallest, largest")

    def __call__(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 (T, h, w, 3) to the same; as it is, when none of ten boxes fits."""
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


PixelTransform = ColorJitter | RandAugment | RandomErasing

OPERATIONS = (
    *("auto_contrast", "equalize", "invert", "posterize", "solarize", "solarize_add"),
    *("color", "contrast", "brightness", "sharpness"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)


def apply(operation: str, pixels: np.ndarray, strength: float) -> np.ndarray:
    """One operation of RandAugment on a clip, uint8 (T, h, w, 3).

    Args:
        operation: one of `OPERATIONS`, named as in Pillow.
        pixels: the clip.
        strength: -1 to 1; the sign matters to the operations that have two directions.
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
        case "posterize":  # to 4 bits, and down to 1
            return pixels & np.uint8(256 - (1 << (8 - max(1, 4 - int(most * 4)))))
        case "solarize":
            return _look_up(pixels, np.where(levels < 256 - int(most * 256), levels, 255 - levels))
        case "solarize_add":
            return _look_up(pixels, np.where(levels < 128, levels + int(most * 110), levels))
        case "color":
            return _recolor(pixels, _saturating(1 + 0.9 * strength), 0.0)
        case "contrast":
            grey = float(_means(pixels) @ LUMA)
            return _recolor(pixels, np.eye(3) * (1 + 0.9 * strength), -0.9 * strength * grey)
        case "brightness":
            return _recolor(pixels, np.eye(3) * (1 + 0.9 * strength), 0.0)
        case "sharpness":
            return _sharpen(pixels, 1 + 0.9 * strength)
        case "rotate":  # about the centre, positive counterclockwise
            angle = math.radians(30 * strength)
            cos, sin = math.cos(angle), math.sin(angle)
            x, y = width / 2, height / 2
            return _warp(pixels, [[cos, -sin, x - cos * x + sin * y], [sin, cos, y - sin * x - cos * y]])
        case "shear_x":
            return _warp(pixels, [[1, 0.3 * strength, 0], [0, 1, 0]])
        case "shear_y":
            return _warp(pixels, [[1, 0, 0], [0.3 * strength, 1, 0]])
        case "translate_x":
            return _shift(pixels, 2, round(0.45 * strength * width))
        case "translate_y":
            return _shift(pixels, 1, round(0.45 * strength * height))
    raise ValueError(f"{operation!r} is none of {OPERATIONS}")


def _look_up(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Every value replaced by that of the table (256,), rounded and clipped; quicker than indexing."""
    table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    changed = bytearray(np.ascontiguousarray(pixels).data).translate(table.tobytes())
    return np.frombuffer(changed, np.uint8).reshape(pixels.shape)


def _look_up_channels(pixels: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """`_look_up` with one table for each channel."""
    planes = [_look_up(pixels[..., channel], table) for channel, table in enumerate(tables)]
    return torch.from_numpy(np.stack(planes)).permute(1, 2, 3, 0).contiguous().numpy()


def _columns(pixels: np.ndarray) -> np.ndarray:
    """The clip as (T·h, w·3): reductions over long rows are fast, over three channels they are not."""
    return np.ascontiguousarray(pixels).reshape(-1, pixels.shape[2] * 3)


def _means(pixels: np.ndarray) -> np.ndarray:
    """The mean of each channel over the clip, (3,)."""
    sums = _columns(pixels).sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.uint64)
    return sums / (pixels.size // 3)


def _saturating(factor: float) -> np.ndarray:
    """The matrix (3, 3) that blends a colour with its grey."""
    return factor * np.eye(3) + (1 - factor) * LUMA


def _recolor(pixels: np.ndarray, matrix: np.ndarray, offset: float) -> np.ndarray:
    """`matrix @ rgb + offset`, rounded and clipped."""
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
    """Each channel stretched to the full range."""
    columns, tables = _columns(pixels), []
    lowest, highest = columns.min(0).reshape(-1, 3).min(0), columns.max(0).reshape(-1, 3).max(0)
    for low, high in zip(lowest.tolist(), highest.tolist(), strict=True):
        levels = np.arange(256)
        tables.append((levels - low) * (255 / (high - low)) if high > low else levels)
    return _look_up_channels(pixels, tables)


def _equalize(pixels: np.ndarray) -> np.ndarray:
    """Each channel's histogram made flat, by Pillow's rule."""
    tables = []
    for channel in range(3):
        values = torch.from_numpy(np.ascontiguousarray(pixels[..., channel])).flatten()
        counts = torch.bincount(values, minlength=256).numpy()
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.cumsum(counts) - counts
        tables.append((below + step // 2) // step if step else np.arange(256))
    return _look_up_channels(pixels, tables)


def _sharpen(pixels: np.ndarray, factor: float) -> np.ndarray:
    """A blend with the frames smoothed by ((1, 1, 1), (1, 5, 1), (1, 1, 1)) / 13; borders stay."""
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
    """The picture moved by `distance` pixels towards the beginning of `axis`, negative towards the end."""
    result = np.full_like(pixels, GREY, order="C")
    into, come = np.moveaxis(result, axis, 0), np.moveaxis(pixels, axis, 0)
    kept = len(come) - abs(distance)
    if kept > 0:
        into[max(0, -distance) :][:kept] = come[max(0, distance) :][:kept]
    return result


def _warp(pixels: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """Bilinear: the pixel at (x, y) comes from `matrix @ (x, y, 1)`; the middle of the first is (½, ½)."""
    height, width = pixels.shape[1:3]
    (a, b, c), (d, e, f) = matrix
    b, d = b * height / width, d * width / height  # to coordinates that run from -1 to 1
    c, f = a + b + 2 * c / width - 1, d + e + 2 * f / height - 1
    grid = functional.affine_grid(torch.tensor([[[a, b, c], [d, e, f]]]), [1, 3, height, width], False)
    result = np.empty_like(pixels, order="C")
    for frame, warped in zip(pixels, result, strict=True):  # frame by frame, for the cache
        # What lies outside reads 0, and that is grey.
        values = torch.from_numpy(frame.astype(np.float32) - GREY).permute(2, 0, 1)[None]
        moved = functional.grid_sample(values, grid, mode="bilinear", align_corners=False)[0]
        warped[:] = moved.permute(1, 2, 0).add(GREY + 0.5).clamp_(0, 255).numpy()
    return result

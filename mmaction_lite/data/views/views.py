"""Views of a video: the clips and crops that a model sees, random in training and fixed in testing."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from mmaction_lite.data.sources.resample import Box, Interpolation, Size, crop_and_resize, short_side_size
from mmaction_lite.data.sources.source import Source, read_frames
from mmaction_lite.data.sources.video import Video
from mmaction_lite.data.views.augment import PixelTransform
from mmaction_lite.data.views.crops import FixedPlan, Placement, RandomPlan
from mmaction_lite.data.views.samplers import ClipSampler, TimedSampler
from mmaction_lite.errors import UserError
from mmaction_lite.settings import PositiveInt, Probability, check_fields

if TYPE_CHECKING:
    from torch import Tensor


class Drawn(NamedTuple):
    """Training views of one video.

    Args:
        pixels: uint8 (V, T, h, w, C).
        flips: bool (V,), whether each view is mirrored.
        reversals: bool (V,), whether each view is played backwards.
    """

    pixels: np.ndarray
    flips: np.ndarray
    reversals: np.ndarray


@dataclass(frozen=True, kw_only=True)
class TrainViews:
    """Random views of one video for training: `clips.num_clips` random clips, `repeats` random crops of each.

    Args:
        clips: frame sampler.
        crop: random crop.
        short_side: if given, resize whole frames to this short side (pixels) and crop the result. None:
            crop the original frame and resample once.
        flip: probability of mirroring a view horizontally.
        antialias, interpolation: see `crop_and_resize`.
        reverse: probability of reversing the frames of a view; see `label_flips.reversed_classes`.
        augment: transforms of the pixels, applied in this order after crop and flip. All frames of a view
            get the same transform.
        repeats: views of each clip, each with its own crop, flip and augmentation (repeated augmentation:
            Hoffer et al. 2020, arXiv:1901.09335). The clip is decoded once.

    Raises:
        UserError: a fixed crop, or a value out of range.
    """

    clips: ClipSampler
    crop: RandomPlan
    short_side: PositiveInt | None = None
    flip: Probability = 0.0
    antialias: bool = True
    interpolation: Interpolation = "bilinear"
    reverse: Probability = 0.0
    augment: tuple[PixelTransform, ...] = ()
    repeats: PositiveInt = 1

    def __post_init__(self):
        if not isinstance(self.crop, RandomPlan):
            raise UserError(
                f"TrainViews: crop is {self.crop}; expected a random crop ({_names(RandomPlan)}). "
                "Use TestViews for fixed crops"
            )
        check_fields(self)

    def draw_views(self, source: Source, clip_rng: np.random.Generator, rng: np.random.Generator) -> Drawn:
        """Draw random views of `source`; V = `clips.num_clips` × `repeats`, ordered by clip.

        Args:
            source: the video.
            clip_rng: draws the frames.
            rng: draws crop, flip, reversal and augmentation.
        """
        altered = [
            self.alter(pixels, rng)
            for indices in self.indices(source, clip_rng)
            for pixels in self.cut(source, indices, self.placements(source, rng))
        ]
        views, flips, reversals = zip(*altered, strict=True)
        return Drawn(np.stack(views), np.array(flips), np.array(reversals))

    def indices(self, source: Source, rng: np.random.Generator) -> np.ndarray:
        """Draw the frame indices of every clip, int64 (num_clips, T)."""
        return _frame_indices(self.clips, source, rng)

    def placements(self, source: Source, rng: np.random.Generator) -> list[Placement]:
        """Draw one crop placement for each of the `repeats` views of a clip."""
        frame_size = _resized(source, self.short_side) or source.size
        return [self.crop.plan(*frame_size, rng)[0] for _ in range(self.repeats)]

    def cut(self, source: Source, indices: np.ndarray, placements: list[Placement]) -> list[np.ndarray]:
        """Read the frames `indices` once and cut one clip per placement, each uint8 (T, h, w, C)."""
        resized = _resized(source, self.short_side)
        if resized is not None:
            whole, left, top = _read(self, source, indices, None, resized), 0, 0
        elif len(placements) == 1:
            return [_read(self, source, indices, placements[0].box, placements[0].size)]
        else:
            top, left, height, width = around = _bounding_box([placement.box for placement in placements])
            whole = source.frames(indices, None if (height, width) == source.size else around)
        return [_resize(self, whole, (y - top, x - left, h, w), size) for (y, x, h, w), size, _ in placements]

    def alter(self, pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, bool, bool]:
        """Flip, reverse and augment one view at random.

        Args:
            pixels: uint8 (T, h, w, C).
            rng: draws what is applied.

        Returns:
            the pixels, uint8 (T, h, w, C); whether they are mirrored; whether they are reversed.
        """
        import torch

        is_mirrored = rng.random() < self.flip
        # Do not draw for settings that are off, so that adding a setting leaves the other draws unchanged.
        is_reversed = self.reverse > 0 and rng.random() < self.reverse
        # A mirrored view of a NumPy array would later be copied byte by byte, ten times slower than this.
        pixels = torch.from_numpy(pixels).flip(2).numpy() if is_mirrored else pixels
        pixels = pixels[::-1] if is_reversed else pixels
        for transform in self.augment:
            pixels = transform(pixels, rng)
        return pixels, is_mirrored, is_reversed

    @property
    def view_shape(self) -> tuple[int, int, int, int]:
        """Shape (T, h, w, C) of one view."""
        return (self.clips.clip_len, *self.crop.size, 3)


@dataclass(frozen=True, kw_only=True)
class TestViews:
    """Fixed views of one video for testing: `clips.num_clips` clips times the crops of `crop`.

    Args:
        clips: frame sampler.
        crop: fixed crop or crops.
        short_side: resize whole frames to this short side (pixels) before cropping, as published test
            protocols do. None: crop the original frame.
        antialias, interpolation: see `crop_and_resize`.

    Raises:
        UserError: a random crop, or a value out of range.
    """

    clips: ClipSampler
    crop: FixedPlan
    short_side: PositiveInt | None = None
    antialias: bool = True
    interpolation: Interpolation = "bilinear"

    def __post_init__(self):
        if not isinstance(self.crop, FixedPlan):
            raise UserError(
                f"TestViews: crop is {self.crop}; expected a fixed crop ({_names(FixedPlan)}). "
                "Use TrainViews for random crops"
            )
        check_fields(self)

    def read(self, source: Source) -> np.ndarray:
        """Read the clips of `source` before cropping, uint8 (num_clips, T, H, W, C).

        Crops overlap, so whole frames are fewer bytes than their crops. `crops` therefore cuts them after
        the transfer to the device.
        """
        return self.resize(*self.read_small(source, 0))

    def read_small(self, source: Source, most_bytes: int) -> tuple[np.ndarray, Size | None]:
        """Read the clips of `source`, and leave out the resizing if they are small without it.

        A process that only decodes such clips does not import PyTorch, which resizes.

        Args:
            source: the video.
            most_bytes: clips of at most this size keep the size of the video.

        Returns:
            the clips, uint8 (num_clips, T, h, w, C), and the arguments of `resize` that complete them.
        """
        indices = self.indices(source)
        size = _resized(source, self.short_side)
        # JPEG frames are decoded at the scale that their size requires.
        is_small = isinstance(source, Video) and 3 * indices.size * math.prod(source.size) <= most_bytes
        pixels = _read(self, source, indices.reshape(-1), None, None if is_small else size)
        return pixels.reshape(*indices.shape, *pixels.shape[1:]), size

    def resize(self, pixels: np.ndarray, size: Size | None) -> np.ndarray:
        """Complete the clips that `read_small` returned, uint8 (num_clips, T, H, W, C)."""
        resized = _resize(self, pixels.reshape(-1, *pixels.shape[2:]), None, size)
        return resized.reshape(*pixels.shape[:2], *resized.shape[1:])

    def indices(self, source: Source) -> np.ndarray:
        """Return the frame indices of every clip, int64 (num_clips, T)."""
        return _frame_indices(self.clips, source, None)

    def crops(self, pixels: "Tensor") -> "Tensor":
        """Cut the views from the clips of one video.

        Args:
            pixels: uint8 (num_clips, T, H, W, C), as `read` returns them, on any device. Frames smaller
                than the crop are enlarged.

        Returns:
            uint8 (V, T, h, w, C) on the same device, ordered by clip, then by crop.
        """
        import torch

        views = []
        for (top, left, height, width), size, flip in self.crop.plan(*pixels.shape[2:4]):
            view = pixels[:, :, top : top + height, left : left + width]
            if (height, width) != size:
                # Bicubic kernels differ with `antialias` also where they enlarge, bilinear ones do not.
                antialias = self.antialias or self.interpolation == "bilinear"
                enlarged = [
                    crop_and_resize(clip, None, size, antialias=antialias, interpolation=self.interpolation)
                    for clip in view.cpu().numpy()
                ]
                view = torch.from_numpy(np.stack(enlarged)).to(pixels.device)
            views.append(view.flip(3) if flip else view)
        return torch.stack(views, 1).flatten(0, 1)

    @property
    def num_views(self) -> int:
        """Number of views of one video: clips × crops."""
        return self.clips.num_clips * self.crop.num_crops

    @property
    def view_shape(self) -> tuple[int, int, int, int]:
        """Shape (T, h, w, C) of one view."""
        return (self.clips.clip_len, *self.crop.size, 3)

    @property
    def video_bytes(self) -> int:
        """Size in bytes of the clips that `read` returns for a video in 16:9."""
        side = self.short_side or min(self.crop.size)
        return self.clips.num_clips * self.clips.clip_len * side * (side * 16 // 9) * 3

    def __str__(self) -> str:
        """Describe the views: clips × crops, size, filter and the sampler's rule; bilinear is not named."""
        (height, width), crops = self.crop.size, self.crop.num_crops
        clips = self.clips.num_clips
        return (
            f"{self.clips} frames: {clips} clip{'s' * (clips > 1)} × {crops} crop{'s' * (crops > 1)} "
            f"({type(self.crop).__name__} {height}x{width}"
            f"{'' if self.short_side is None else f' of short side {self.short_side}'}, "
            f"{'' if self.interpolation == 'bilinear' else f'{self.interpolation}, '}"
            f"antialias {'on' if self.antialias else 'off'}){self.clips.rule}"
        )


Views = TrainViews | TestViews


def _names(types: object) -> str:
    return ", ".join(kind.__name__ for kind in get_args(types))


def _frame_indices(clips: ClipSampler, source: Source, rng: np.random.Generator | None) -> np.ndarray:
    """Return the frame indices of every clip, int64 (num_clips, T)."""
    if isinstance(clips, TimedSampler):
        return clips(len(source), rng, fps=source.fps)
    return clips(len(source), rng)


def _read(
    views: Views, source: Source, indices: np.ndarray, box: Box | None, size: Size | None
) -> np.ndarray:
    """Read frames, cropped and resized with the filter of `views`."""
    return read_frames(
        source, indices, box, size, antialias=views.antialias, interpolation=views.interpolation
    )


def _resize(views: Views, frames: np.ndarray, box: Box | None, size: Size | None) -> np.ndarray:
    """Crop and resize frames with the filter of `views`."""
    return crop_and_resize(frames, box, size, antialias=views.antialias, interpolation=views.interpolation)


def _resized(source: Source, short_side: int | None) -> Size | None:
    """Return the size that whole frames are resized to, or None if they are not resized."""
    return None if short_side is None else short_side_size(source.size, short_side)


def _bounding_box(boxes: list[Box]) -> Box:
    """Return the smallest box that contains all of `boxes`."""
    tops, lefts, heights, widths = np.array(boxes).T
    top, left = int(tops.min()), int(lefts.min())
    return top, left, int((tops + heights).max()) - top, int((lefts + widths).max()) - left

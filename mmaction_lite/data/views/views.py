"""Views: which clips and which crops of a video a model sees, in training and in every test protocol."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.data.sources.resample import Box, Size, crop_and_resize, short_side_size
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.augment import PixelTransform
from mmaction_lite.data.views.crops import FixedPlan, Placement, RandomPlan
from mmaction_lite.data.views.samplers import ClipSampler, TimedSampler
from mmaction_lite.errors import UserError


class Drawn(NamedTuple):
    """Training views of one video.

    Args:
        pixels: uint8 (V, T, h, w, C).
        flips: bool (V,), which are mirrored.
        reversals: bool (V,), which are played backwards.
    """

    pixels: np.ndarray
    flips: np.ndarray
    reversals: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Views:
    """The views of one video: `clips.num_clips` clips times the crops of `crop`.

    Args:
        clips: which frames.
        crop: which boxes; random in training, fixed in testing.
        short_side: resize whole frames to this short side first, then crop, as published test protocols
            do. None, for training: cut the box from the source's own frame and resample once.
        flip: probability of mirroring a training view.
        antialias: see `crop_and_resize`.
        average: what is averaged over the views of a video, "probability" (after softmax) or "score"
            (logits).
        reverse: probability of playing a training view backwards; see `label_flips.reversed_classes`.
        augment: what happens to the pixels of a training view, in this order, after crop and flip; the
            same for all its frames.
        repeats: training views of each drawn clip, each with its own box, flip and augmentation (repeated
            augmentation: Hoffer et al. 2020, arXiv:1901.09335). The clip is decoded once.
    """

    clips: ClipSampler
    crop: RandomPlan | FixedPlan
    short_side: int | None = None
    flip: float = 0.0
    antialias: bool = True
    average: Literal["probability", "score"] = "probability"
    reverse: float = 0.0
    augment: tuple[PixelTransform, ...] = ()
    repeats: int = 1

    def __post_init__(self):
        if min(self.crop.size) < 1:
            raise UserError(f"{type(self.crop).__name__}: size is {self.crop.size}; expected at least (1, 1)")
        if self.short_side is not None and self.short_side < 1:
            raise UserError(f"Views: short_side is {self.short_side}; it must be at least 1, or none")
        for name in ("flip", "reverse"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"Views: {name} is {getattr(self, name)}; expected a probability")
        if self.repeats < 1:
            raise UserError(f"Views: repeats is {self.repeats}; it must be at least 1")

    def draw_views(self, source: Source, clip_rng: np.random.Generator, rng: np.random.Generator) -> Drawn:
        """Random training views of a video; V = `clips.num_clips` × `repeats`, clip by clip.

        `clip_rng` chooses the frames, `rng` everything else.
        """
        altered = [
            self.alter(pixels, rng)
            for indices in self.indices(source, clip_rng)
            for pixels in self.cut(source, indices, self.placements(source, rng))
        ]
        views, flips, reversals = zip(*altered, strict=True)
        return Drawn(np.stack(views), np.array(flips), np.array(reversals))

    def placements(self, source: Source, rng: np.random.Generator) -> list[Placement]:
        """Random places of the views of one training clip, one for each of `repeats`."""
        frame_size = self._resized(source) or source.size
        return [self.crop.plan(*frame_size, rng)[0] for _ in range(self.repeats)]

    def alter(self, pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, bool, bool]:
        """A cut training view, uint8 (T, h, w, C), altered; whether it is mirrored, whether reversed."""
        is_mirrored = rng.random() < self.flip
        # Nothing is drawn for what is switched off: other draws stay what they were without it.
        is_reversed = self.reverse > 0 and rng.random() < self.reverse
        # Ten times faster than a reversed view of NumPy, whose pixels are copied byte by byte.
        pixels = torch.from_numpy(pixels).flip(2).numpy() if is_mirrored else pixels
        pixels = pixels[::-1] if is_reversed else pixels
        for transform in self.augment:
            pixels = transform(pixels, rng)
        return pixels, is_mirrored, is_reversed

    def read(self, source: Source) -> np.ndarray:
        """Test clips before cropping, uint8 (num_clips, T, H, W, C).

        Crops overlap: whole frames are fewer bytes than their crops, so `crops` cuts them after the
        transfer to the device.
        """
        indices = self.indices(source)
        pixels = source.frames(indices.reshape(-1), None, self._resized(source), self.antialias)
        return pixels.reshape(*indices.shape, *pixels.shape[1:])

    def crops(self, pixels: Tensor) -> Tensor:
        """Clips of one video to its test views: uint8 (num_clips, T, H, W, C) to (V, T, h, w, C).

        V runs over clips first, then crops. A frame smaller than the crop is enlarged.
        """
        if not isinstance(self.crop, FixedPlan):
            raise TypeError(f"{self.crop} draws boxes at random; test views need a fixed crop")
        views = []
        for (top, left, height, width), size, flip in self.crop.plan(*pixels.shape[2:4]):
            view = pixels[:, :, top : top + height, left : left + width]
            if (height, width) != size:
                enlarged = [crop_and_resize(clip, None, size) for clip in view.cpu().numpy()]
                view = torch.from_numpy(np.stack(enlarged)).to(pixels.device)
            views.append(view.flip(3) if flip else view)
        return torch.stack(views, 1).flatten(0, 1)

    @property
    def num_views(self) -> int:
        """Test views of one video: clips × crops."""
        return self.clips.num_clips * self.crop.num_crops

    @property
    def view_shape(self) -> tuple[int, int, int, int]:
        """(T, h, w, C) of one view."""
        return (self.clips.clip_len, *self.crop.size, 3)

    @property
    def video_bytes(self) -> int:
        """Size of what `read` gives for a video whose frames are 16:9."""
        side = self.short_side or min(self.crop.size)
        return self.clips.num_clips * self.clips.clip_len * side * (side * 16 // 9) * 3

    def __str__(self) -> str:
        """The protocol in words, as it stands beside every number."""
        (height, width), crops = self.crop.size, self.crop.num_crops
        clips = self.clips.num_clips
        averaged = {"probability": "probabilities averaged", "score": "scores averaged"}[self.average]
        return (
            f"{self.clips} frames: {clips} clip{'s' * (clips > 1)} × {crops} crop{'s' * (crops > 1)} "
            f"({type(self.crop).__name__} {height}x{width}"
            f"{'' if self.short_side is None else f' of short side {self.short_side}'}, "
            f"antialias {'on' if self.antialias else 'off'}){self.clips.rule}, {averaged}"
        )

    def indices(self, source: Source, rng: np.random.Generator | None = None) -> np.ndarray:
        """Frames of every clip, int64 (num_clips, T); random ones if a generator is given."""
        if isinstance(self.clips, TimedSampler):
            return self.clips(len(source), rng, fps=source.fps)
        return self.clips(len(source), rng)

    def cut(self, source: Source, indices: np.ndarray, placements: list[Placement]) -> list[np.ndarray]:
        """One clip at each of `placements`, uint8 (T, h, w, C) each; decoded once, each resampled once."""
        resized = self._resized(source)
        if resized is not None:
            whole, left, top = source.frames(indices, None, resized, self.antialias), 0, 0
        elif len(placements) == 1:
            return [source.frames(indices, placements[0].box, placements[0].size, self.antialias)]
        else:
            top, left, height, width = around = _around([placement.box for placement in placements])
            whole = source.frames(indices, None if (height, width) == source.size else around)
        return [
            crop_and_resize(whole, (y - top, x - left, h, w), size, antialias=self.antialias)
            for (y, x, h, w), size, _ in placements
        ]

    def _resized(self, source: Source) -> Size | None:
        return None if self.short_side is None else short_side_size(source.size, self.short_side)


def _around(boxes: list[Box]) -> Box:
    """The smallest box that holds all of `boxes`."""
    tops, lefts, heights, widths = np.array(boxes).T
    top, left = int(tops.min()), int(lefts.min())
    return top, left, int((tops + heights).max()) - top, int((lefts + widths).max()) - left

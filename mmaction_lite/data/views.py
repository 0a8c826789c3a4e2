"""Views: which clips and which crops of a video a model sees, in training and in every test protocol."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.data.clips import ClipSampler
from mmaction_lite.data.sources import Source
from mmaction_lite.data.transforms import (
    FixedPlan,
    RandomPlan,
    Size,
    crop_and_resize,
    short_side_size,
)
from mmaction_lite.errors import UserError


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
    """

    clips: ClipSampler
    crop: RandomPlan | FixedPlan
    short_side: int | None = None
    flip: float = 0.0
    antialias: bool = True
    average: Literal["probability", "score"] = "probability"

    def __post_init__(self):
        if min(self.crop.size) < 1:
            raise UserError(f"{type(self.crop).__name__}: size is {self.crop.size}; expected at least (1, 1)")
        if self.short_side is not None and self.short_side < 1:
            raise UserError(f"Views: short_side is {self.short_side}; it must be at least 1, or none")
        if not 0 <= self.flip <= 1:
            raise UserError(f"Views: flip is {self.flip}; expected a probability")

    def draw(
        self, source: Source, clip_rng: np.random.Generator, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Random training views: uint8 (V, T, h, w, C) with V = `clips.num_clips`, and which are mirrored.

        `clip_rng` chooses the frames, `rng` everything else.
        """
        views, flips = [], []
        resized = self._resized(source)
        for indices in self.clips(len(source), clip_rng):
            placement = self.crop.plan(*(resized or source.size), rng)[0]
            if resized is None:
                pixels = source.frames(indices, placement.box, placement.size, self.antialias)
            else:
                pixels = source.frames(indices, None, resized, self.antialias)
                pixels = crop_and_resize(pixels, placement.box, placement.size, antialias=self.antialias)
            flips.append(rng.random() < self.flip)
            views.append(pixels[:, :, ::-1] if flips[-1] else pixels)
        return np.stack(views), np.array(flips)

    def read(self, source: Source) -> np.ndarray:
        """Test clips before cropping, uint8 (num_clips, T, H, W, C).

        Crops overlap: whole frames are fewer bytes than their crops, so `crops` cuts them after the
        transfer to the device.
        """
        indices = self.clips(len(source))
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
        """Views of one video: clips × crops."""
        return self.clips.num_clips * self.crop.num_crops

    @property
    def view_shape(self) -> tuple[int, int, int, int]:
        """(T, h, w, C) of one view."""
        return (self.clips.clip_len, *self.crop.size, 3)

    def __str__(self) -> str:
        """The protocol in words, as it stands beside every number."""
        (height, width), crops = self.crop.size, self.crop.num_crops
        clips = self.clips.num_clips
        averaged = {"probability": "probabilities averaged", "score": "scores averaged"}[self.average]
        return (
            f"{self.clips} frames: {clips} clip{'s' * (clips > 1)} × {crops} crop{'s' * (crops > 1)} "
            f"({type(self.crop).__name__} {height}x{width}"
            f"{'' if self.short_side is None else f' of short side {self.short_side}'}, "
            f"antialias {'on' if self.antialias else 'off'}), {averaged}"
        )

    def _resized(self, source: Source) -> Size | None:
        return None if self.short_side is None else short_side_size(source.size, self.short_side)

"""The protocol of a test: which views of a video are classified and how their results are averaged."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.views.crops import CenterCrop, TenCrop, ThreeCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import SegmentFrames, SegmentWindows
from mmaction_lite.data.views.temperature import Temperature
from mmaction_lite.data.views.views import TestViews
from mmaction_lite.errors import UserError
from mmaction_lite.settings import PositiveInt, check_fields

Average = Literal["probability", "score"]
# Names of the fixed crops for `Protocol.with_views`.
CROPS = {
    name: crop
    for crop in (CenterCrop, ThreeCrop, TenCrop)
    for name in (crop.__name__, crop.__name__.removesuffix("Crop").lower(), str(crop.num_crops))
}

_AVERAGED: dict[Average, str] = {"probability": "probabilities averaged", "score": "scores averaged"}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything besides the model that determines its scores for a video.

    `str(protocol)` is the protocol line: clips × crops, size, antialias, window, averaging, temperature.
    Print and store it with every number.

    Args:
        views: clips and crops of a video.
        normalize: conversion of pixels to inputs.
        average: what is averaged over the views of a video, "probability" or "score" (logits).
        window: side of a window in the last feature map. The model then classifies every window of this side
            (stride 1) separately, and the windows count as further views. PySlowFast tests networks trained
            on 224 pixels this way on 256 pixels: 7, of features 8x8. None: one result for each view.
        temperature: calibrates the averaged probabilities; None: they stay as they are.

    Raises:
        UserError: a value of another type or out of range.
    """

    views: TestViews
    normalize: Normalize = field(default_factory=Normalize)
    average: Average = "probability"
    window: PositiveInt | None = None
    temperature: Temperature | None = None

    def __post_init__(self):
        check_fields(self)

    def with_views(self, num_clips: int | None = None, crop: str | None = None) -> "Protocol":
        """Return this protocol with another number of clips, or other crops of the same size.

        Args:
            num_clips: clips of a video; None keeps the number.
            crop: "CenterCrop", "ThreeCrop" or "TenCrop"; also "center", "three", "ten", or the number of
                crops, "1", "3" or "10". None keeps the crops.

        Raises:
            UserError: no crop has this name, or the sampler takes one clip of a video only.
        """
        clips, crops = self.views.clips, self.views.crop
        if num_clips is not None and num_clips != clips.num_clips:
            if isinstance(clips, SegmentFrames | SegmentWindows):
                frames = "a frame" if isinstance(clips, SegmentFrames) else f"{clips.window_len} frames"
                raise UserError(
                    f"clips is {num_clips}; expected 1, because the protocol takes one clip with {frames} of "
                    f"each of {clips.num_segments} parts of the video ({self})"
                )
            clips = replace(clips, num_clips=num_clips)
        if crop is not None:
            if crop not in CROPS:
                raise UserError(f"crops is {crop!r:.40}; expected center, three or ten (or 1, 3, 10)")
            crops = CROPS[crop](size=crops.size)
        return replace(self, views=replace(self.views, clips=clips, crop=crops))

    def read(self, source: Source) -> np.ndarray:
        """Read the clips of a video before cropping, uint8 (num_clips, T, H, W, C)."""
        return self.views.read(source)

    def prepare(self, pixels: Tensor) -> Tensor:
        """Convert the clips of one video to model inputs.

        Args:
            pixels: uint8 (num_clips, T, H, W, C), as `read` returns them.

        Returns:
            float32 (V, C, T, h, w) on the device of `pixels`, ordered by clip, then by crop.
        """
        return self.normalize(self.views.crops(pixels))

    def prepare_in_chunks(self, videos: Iterable[Tensor], chunk_views: int) -> Iterator[Tensor]:
        """Convert the clips of several videos to model inputs, at most `chunk_views` views at a time.

        Joined, the chunks equal `prepare` of all videos; only one chunk is in memory as floats.

        Args:
            videos: uint8 (num_clips, T, H, W, C) each, on one device.
            chunk_views: largest number of views in a chunk.

        Yields:
            float32 (at most `chunk_views`, C, T, h, w).
        """
        pixels = torch.cat([self.views.crops(clips) for clips in videos])
        yield from map(self.normalize, pixels.split(chunk_views))

    def average_logits(self, logits: Tensor, probabilities: Callable[[Tensor], Tensor]) -> Tensor:
        """Average the results of the views of each video. No other function averages views.

        Args:
            logits: (B, V, K) for B videos.
            probabilities: maps logits (..., K) to probabilities of the same shape.

        Returns:
            float32 (B, K): the mean of the views' probabilities, or, if `average` is "score", the
            probabilities of their mean logits. Both are probabilities, so that scores of different
            protocols can be compared. `temperature` is applied last.
        """
        logits = logits.float()
        by_probability = self.average == "probability"
        scores = probabilities(logits).mean(1) if by_probability else probabilities(logits.mean(1))
        return scores if self.temperature is None else self.temperature.apply(scores, probabilities)

    @property
    def num_views(self) -> int:
        """Number of views of one video: clips × crops."""
        return self.views.num_views

    def __str__(self) -> str:
        """Return the protocol line."""
        window = f", every {self.window}x{self.window} window of the features" if self.window else ""
        temperature = f", {self.temperature}" if self.temperature else ""
        return f"{self.views}{window}, {_AVERAGED[self.average]}{temperature}"

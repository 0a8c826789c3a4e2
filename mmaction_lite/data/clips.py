"""Which frames of a video form the clips: pure functions of the video's length and a generator.

Two families of samplers exist in the field:

* `DenseClips`: frames at a fixed interval, as 3-D networks take them (I3D, SlowOnly, SlowFast, R(2+1)D);
* `SegmentFrames`: one frame from each of n equal parts of the video (TSN, TSM).

Both are random if and only if a generator is given. Without one they return the published test positions
of MMAction2. Training positions differ from MMAction2's in two points: its bins have whole-number
widths, so that up to n - 1 last frames are never drawn, while ours are exact, so that every frame can be;
and it lets a training clip span clip_len * frame_interval frames, where ours ends with its last frame.
"""

from dataclasses import dataclass

import numpy as np

from mmaction_lite.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DenseClips:
    """`num_clips` clips of `clip_len` frames, `frame_interval` apart (1 = consecutive).

    One clip spans `(clip_len - 1) * frame_interval + 1` frames. A video shorter than that is looped.
    """

    clip_len: int
    frame_interval: int = 1
    num_clips: int = 1

    def __post_init__(self):
        for name in ("clip_len", "frame_interval", "num_clips"):
            _check_positive(type(self).__name__, name, getattr(self, name))

    def __call__(self, video_len: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Frame indices, int64 (num_clips, clip_len), all in [0, video_len).

        With `rng`: the possible starts are cut into `num_clips` equal bins, one start is drawn from each.
        Without: starts are spread evenly from the first possible to the last (one clip: the middle), as
        MMAction2 1.x and PySlowFast do.
        """
        span = (self.clip_len - 1) * self.frame_interval + 1
        last_start = max(video_len - span, 0)
        if rng is not None:
            bins = np.arange(self.num_clips) + rng.random(self.num_clips)
            starts = np.floor(bins * ((last_start + 1) / self.num_clips))
        elif self.num_clips > 1:
            starts = np.round(np.arange(self.num_clips) * (last_start / (self.num_clips - 1)))
        else:
            starts = np.array([last_start // 2])
        offsets = np.arange(self.clip_len) * self.frame_interval
        return (starts.astype(np.int64)[:, None] + offsets) % video_len

    def __str__(self) -> str:
        return f"{self.clip_len}x{self.frame_interval}x{self.num_clips}"


@dataclass(frozen=True, kw_only=True)
class SegmentFrames:
    """One clip made of one frame from each of `num_segments` equal parts (TSN: Wang et al. 2016, §3.1)."""

    num_segments: int

    def __post_init__(self):
        _check_positive(type(self).__name__, "num_segments", self.num_segments)

    @property
    def num_clips(self) -> int:
        """Always 1: the segments enter the model together."""
        return 1

    @property
    def clip_len(self) -> int:
        """Frames that enter the model together: the number of segments."""
        return self.num_segments

    def __call__(self, video_len: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Frame indices, int64 (1, num_segments), ascending, all in [0, video_len).

        With `rng` a random frame of each segment, without it the centre: floor(i * n + n / 2) for
        segments of n frames, n a fraction. Videos with fewer frames than segments repeat frames.
        """
        part = video_len / self.num_segments
        inside = part / 2 if rng is None else rng.random(self.num_segments) * part
        frames = np.floor(np.arange(self.num_segments) * part + inside).astype(np.int64)
        return np.minimum(frames, video_len - 1)[None]

    def __str__(self) -> str:
        return f"1x1x{self.num_segments}"


ClipSampler = DenseClips | SegmentFrames


def _check_positive(sampler: str, name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{sampler}: {name} is {value}; it must be at least 1")

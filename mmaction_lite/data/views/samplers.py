"""Frame samplers: functions of the length of a video that return the frame indices of its clips.

* `DenseClips`: frames at a fixed interval, for 3-D networks (I3D, SlowOnly, SlowFast, R(2+1)D).
* `TimedClips`: the same at a fixed distance in time.
* `PySlowFastClips`: the spacing of PySlowFast.
* `SegmentFrames`: one frame from each of n equal parts of the video (TSN, TSM).
* `SegmentClips`: several such clips, for the test of VideoMAE on Something-Something.
* `SegmentWindows`: several frames from each of n equal parts of the video, in one clip (V-JEPA).

Samplers are random if and only if they receive a generator. Without one, they return the published test
positions: those of MMAction2, and in `PySlowFastClips` those of PySlowFast. Training positions differ from
MMAction2's in two points. Bins of MMAction2 have integer widths, so up to n - 1 last frames are never drawn;
here the widths are exact, and every frame can be drawn. A training clip of MMAction2 spans clip_len *
frame_interval frames; here it ends with its last frame.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmaction_lite.errors import UserError
from mmaction_lite.settings import PositiveFloat, PositiveInt, check_fields

Short = Literal["loop", "hold", "stretch"]


@dataclass(frozen=True, kw_only=True)
class DenseClips:
    """Sample `num_clips` clips of `clip_len` frames, `frame_interval` apart (1 = consecutive).

    A clip spans `(clip_len - 1) * frame_interval + 1` frames.

    Args:
        clip_len: frames of a clip.
        frame_interval: distance between the frames of a clip.
        num_clips: clips of a video.
        short: for videos shorter than a clip: "loop" repeats the video, "hold" repeats its last frame,
            "stretch" spreads its frames evenly over the clip.
    """

    clip_len: PositiveInt
    frame_interval: PositiveInt = 1
    num_clips: PositiveInt = 1
    short: Short = "loop"

    def __post_init__(self):
        check_fields(self)

    def __call__(self, video_len: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return frame indices, int64 (num_clips, clip_len), all in [0, video_len).

        With `rng`, divide the possible starts into `num_clips` equal bins and draw one start from each.
        Without, spread the starts evenly from the first possible one to the last (one clip: the middle), as
        in MMAction2 1.x and PySlowFast.
        """
        offsets = np.arange(self.clip_len) * self.frame_interval
        return _spread(offsets, self.num_clips, self.short, video_len, rng)

    @property
    def rule(self) -> str:
        """Suffix of the protocol line: settings that `str` does not show."""
        return _SHORT_RULES[self.short]

    def __str__(self) -> str:
        return f"{self.clip_len}x{self.frame_interval}x{self.num_clips}"


@dataclass(frozen=True, kw_only=True)
class TimedClips:
    """Sample `num_clips` clips of `clip_len` frames at `target_fps`, for any frame rate of the video.

    A clip lasts `clip_len / target_fps` seconds and has the frames visible at multiples of 1 / target_fps
    seconds after its start; a slower video repeats frames. For a frame rate of `n * target_fps`, this equals
    `DenseClips` with `frame_interval=n`.

    Args:
        clip_len: frames of a clip.
        target_fps: frames per second of a clip.
        num_clips: clips of a video.
        short: see `DenseClips`.
    """

    clip_len: PositiveInt
    target_fps: PositiveFloat
    num_clips: PositiveInt = 1
    short: Short = "loop"

    def __post_init__(self):
        check_fields(self)

    def __call__(
        self, video_len: int, rng: np.random.Generator | None = None, *, fps: float = math.nan
    ) -> np.ndarray:
        """Return frame indices, int64 (num_clips, clip_len), all in [0, video_len).

        Starts are those of `DenseClips`.

        Args:
            video_len: frames of the video.
            rng: draws the starts.
            fps: frames per second of the video.

        Raises:
            UserError: the frame rate of the video is unknown.
        """
        step = _known_rate(self, fps) / self.target_fps
        # Rounding errors in the quotient of two rates must not select the previous frame.
        offsets = np.floor(np.arange(self.clip_len) * step + 1e-6).astype(np.int64)
        return _spread(offsets, self.num_clips, self.short, video_len, rng)

    @property
    def rule(self) -> str:
        """Suffix of the protocol line: settings that `str` does not show."""
        return _SHORT_RULES[self.short]

    def __str__(self) -> str:
        return f"{self.clip_len}x{self.num_clips} at {self.target_fps:g} fps"


@dataclass(frozen=True, kw_only=True)
class PySlowFastClips:
    """Sample clips as PySlowFast does, to evaluate weights trained and tested with PySlowFast.

    A clip spans `clip_len * frame_interval` frames of a video at `target_fps`, and its frames are spread
    evenly from the first frame of the span to the last: at 30 fps, 8x8 takes every ninth frame, 4x16 every
    21st. Videos shorter than a clip repeat their last frame (slowfast/datasets/decoder.py,
    `get_start_end_idx` and `temporal_sampling`). Decoders of PySlowFast that seek count from the first frame
    after the start; their frames may be one later than here.

    Args:
        clip_len: frames of a clip.
        frame_interval: nominal distance between the frames of a clip.
        num_clips: clips of a video.
        target_fps: frame rate to which `frame_interval` refers.
        starts: starts of test clips. "parts": clip k of n starts at k / n of the possible starts, so no clip
            reaches the end of the video. "even": the starts are evenly spaced from the first possible one to
            the last, by whole frames, and a single clip is the middle one (`DATA.USE_OFFSET_SAMPLING`).
    """

    clip_len: PositiveInt
    frame_interval: PositiveInt
    num_clips: PositiveInt = 1
    target_fps: PositiveFloat = 30.0
    starts: Literal["parts", "even"] = "parts"

    def __post_init__(self):
        check_fields(self)

    def __call__(
        self, video_len: int, rng: np.random.Generator | None = None, *, fps: float = math.nan
    ) -> np.ndarray:
        """Return frame indices, int64 (num_clips, clip_len), all in [0, video_len).

        With `rng`, draw the start of each clip independently. Arguments and errors as in `TimedClips`.
        """
        span = self.clip_len * self.frame_interval * _known_rate(self, fps) / self.target_fps
        room = max(video_len - span, 0)
        if rng is not None:
            starts = rng.uniform(0, room, self.num_clips)
        elif self.starts == "parts":
            starts = np.arange(self.num_clips) * room / self.num_clips
        elif self.num_clips == 1:
            starts = np.array([room // 2])
        else:
            starts = np.arange(self.num_clips) * (room // (self.num_clips - 1))
        frames = np.linspace(starts, starts + span - 1, self.clip_len, axis=1)
        return np.clip(frames, 0, video_len - 1).astype(np.int64)

    @property
    def rule(self) -> str:
        """Suffix of the protocol line: settings that `str` does not show."""
        even = ", clips up to the end" if self.starts == "even" else ""
        return f", spaced as PySlowFast does at {self.target_fps:g} fps{even}"

    def __str__(self) -> str:
        return f"{self.clip_len}x{self.frame_interval}x{self.num_clips}"


@dataclass(frozen=True, kw_only=True)
class SegmentFrames:
    """Sample one frame from each of `num_segments` equal parts as one clip (TSN: Wang et al. 2016, §3.1)."""

    num_segments: PositiveInt

    def __post_init__(self):
        check_fields(self)

    @property
    def num_clips(self) -> int:
        """Always 1: the frames of all segments form one clip."""
        return 1

    @property
    def clip_len(self) -> int:
        """Frames of the clip: the number of segments."""
        return self.num_segments

    def __call__(self, video_len: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return frame indices, int64 (1, num_segments), ascending, all in [0, video_len).

        With `rng`, draw one frame of each segment. Without, take the center: floor(i * n + n / 2) for
        segments of n frames, where n may be a fraction. Videos with fewer frames than segments repeat frames.
        """
        part = video_len / self.num_segments
        inside = part / 2 if rng is None else rng.random(self.num_segments) * part
        frames = np.floor(np.arange(self.num_segments) * part + inside).astype(np.int64)
        return np.minimum(frames, video_len - 1)[None]

    @property
    def rule(self) -> str:
        """Empty: `str` shows all settings."""
        return ""

    def __str__(self) -> str:
        return f"1x1x{self.num_segments}"


@dataclass(frozen=True, kw_only=True)
class SegmentClips:
    """Sample several clips, each with one frame from each of `num_segments` equal parts.

    Args:
        num_segments: frames of a clip.
        num_clips: clips of a video.
        margin: without `rng`, keep a distance from both ends of a segment (UniFormerV2: datasets/sth.py).
    """

    num_segments: PositiveInt
    num_clips: PositiveInt = 1
    margin: bool = False

    def __post_init__(self):
        check_fields(self)

    @property
    def clip_len(self) -> int:
        """Frames of a clip: the number of segments."""
        return self.num_segments

    def __call__(self, video_len: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return frame indices, int64 (num_clips, num_segments), ascending, all in [0, video_len).

        With `rng`, draw every frame inside of its segment. Without, clip k of n takes the frame at k / n of
        each segment, and a single clip the center (VideoMAE: datasets/ssv2.py). With `margin`, clip k takes
        the frame at (k + 1) / (n + 1) of segments between the first and the last frame.
        """
        if self.margin and rng is None:
            part = (video_len - 1) / self.num_segments
            begins = np.rint(np.arange(self.num_segments) * part)
            steps = np.floor((np.arange(self.num_clips)[:, None] + 1) * (part / (self.num_clips + 1)))
            return (begins + steps).astype(np.int64)
        part = video_len / self.num_segments
        if rng is not None:
            inside = rng.random((self.num_clips, self.num_segments))
        else:
            inside = np.arange(self.num_clips)[:, None] / self.num_clips if self.num_clips > 1 else 0.5
        frames = np.floor((np.arange(self.num_segments) + inside) * part).astype(np.int64)
        return np.minimum(np.atleast_2d(frames), video_len - 1)

    @property
    def rule(self) -> str:
        """Suffix of the protocol line: settings that `str` does not show."""
        if self.margin:
            return f", clip k at (k+1)/{self.num_clips + 1} of each segment"
        return f", clip k at k/{self.num_clips} of each segment" if self.num_clips > 1 else ""

    def __str__(self) -> str:
        return f"1x1x{self.num_segments}"


@dataclass(frozen=True, kw_only=True)
class SegmentWindows:
    """Sample a window of frames from each of `num_segments` equal parts; all windows form one clip.

    A window spans `window_len * frame_interval` frames, and its frames are spread evenly over the span, from
    the first frame to the last. Windows that are longer than a part overlap. If the video is shorter than a
    window, the last frame is repeated. The rule is that of the published V-JEPA 2 evaluations
    (src/datasets/video_dataset.py of facebookresearch/vjepa2, `loadvideo_decord`).

    Args:
        window_len: frames of a window.
        frame_interval: nominal distance between the frames of a window.
        num_segments: parts of the video.
    """

    window_len: PositiveInt
    frame_interval: PositiveInt = 1
    num_segments: PositiveInt = 1

    def __post_init__(self):
        check_fields(self)

    @property
    def num_clips(self) -> int:
        """Always 1: the windows of all segments form one clip."""
        return 1

    @property
    def clip_len(self) -> int:
        """Frames of the clip: those of all windows."""
        return self.num_segments * self.window_len

    def __call__(self, video_len: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return frame indices, int64 (1, clip_len), all in [0, video_len).

        With `rng`, draw the start of each window within its part. Without, take the middle of the part; the
        published evaluations draw it in tests, too. Windows that are longer than a part have fixed starts.
        """
        span = self.window_len * self.frame_interval
        part = video_len // self.num_segments
        numbers = np.arange(self.num_segments)[:, None]
        if part > span:
            room = part - span
            starts = (
                np.full_like(numbers, room // 2) if rng is None else rng.integers(room, size=numbers.shape)
            )
            window = np.minimum(np.linspace(0, span, self.window_len), span - 1)
            # The published code truncates the sum of start and offset, both positive.
            frames = (starts + window).astype(np.int64) + numbers * part
        else:
            last = min(span, video_len) - 1
            moving = last // self.frame_interval
            window = np.full(self.window_len, float(last))
            window[:moving] = np.linspace(0, last, moving)
            window = np.clip(window, 0, max(last - 1, 0)).astype(np.int64)
            step = max(video_len - span, 0) // max(self.num_segments - 1, 1)
            frames = window + numbers * step
        return frames.reshape(1, -1)

    @property
    def rule(self) -> str:
        """Suffix of the protocol line: settings that `str` does not show."""
        return f", a window of {self.window_len} frames from each of {self.num_segments} parts of the video"

    def __str__(self) -> str:
        return f"{self.window_len}x{self.frame_interval}x{self.num_segments}"


TimedSampler = TimedClips | PySlowFastClips
ClipSampler = DenseClips | TimedSampler | SegmentFrames | SegmentClips | SegmentWindows

_SHORT_RULES: dict[Short, str] = {
    "loop": "",
    "hold": ", short videos held at their last frame",
    "stretch": ", short videos stretched",
}


def _spread(
    offsets: np.ndarray, num_clips: int, short: Short, video_len: int, rng: np.random.Generator | None
) -> np.ndarray:
    """Return clips with the frames `offsets` after their starts, which are drawn or spread over the video."""
    last_start = max(video_len - 1 - int(offsets[-1]), 0)
    if rng is not None:
        starts = np.floor((np.arange(num_clips) + rng.random(num_clips)) * ((last_start + 1) / num_clips))
    elif num_clips > 1:
        starts = np.round(np.arange(num_clips) * (last_start / (num_clips - 1)))
    else:
        starts = np.array([last_start // 2])
    if short == "stretch" and offsets[-1] >= video_len:
        offsets = np.round(np.linspace(0, video_len - 1, len(offsets))).astype(np.int64)
    frames = starts.astype(np.int64)[:, None] + offsets
    return frames % video_len if short == "loop" else np.minimum(frames, video_len - 1)


def _known_rate(sampler: TimedSampler, fps: float) -> float:
    if not 0 < fps < math.inf:
        raise UserError(
            f"{type(sampler).__name__}: the video's frame rate is {fps}; clips at {sampler.target_fps:g} fps "
            "need it. Use video files, or DenseClips for folders of frames, which have no frame rate"
        )
    return fps

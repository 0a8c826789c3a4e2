"""Read the frames of long videos piece by piece, and write annotated ones; runs in the decoding processes.

Imports no PyTorch and no web framework.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmaction_lite.data.sources.resample import Interpolation, Size
from mmaction_lite.data.sources.sequential import frame_times, read_in_order
from mmaction_lite.data.sources.source import Source
from mmaction_lite.serve.readers import Described, VideoLimits, describe_video

NO_PIXELS = np.empty(0, np.uint8)


class TimesReader(NamedTuple):
    """Read the times of all frames, and decode none.

    Args:
        limits: limits of the video.

    `details` holds `describe_video`, `times` (seconds after frame 0, float64) and `note` (what is unusual
    about the video).
    """

    limits: VideoLimits

    def read_described(self, source: Source) -> Described:
        """See `Reader`."""
        self.limits.check(source)
        found = {"times": frame_times(source), "note": getattr(source, "note", "")}
        return Described(NO_PIXELS, None, describe_video(source) | found)


class FramesReader(NamedTuple):
    """Read frames, each once and in order. Frames that cannot be read are left out.

    Args:
        indices: ascending numbers of the frames, int64 (n,).
        size: (height, width) to resize them to; None keeps their size.
        antialias, interpolation: see `crop_and_resize`.

    The pixels are uint8 (m, h, w, 3). `details` holds `indices`, the m frames that were read, and `faults`:
    first frame, frame after the last one, and reason of each part that cannot be read.
    """

    indices: np.ndarray
    size: Size | None
    antialias: bool
    interpolation: Interpolation = "bilinear"

    def read_described(self, source: Source) -> Described:
        """See `Reader`."""
        faults: list[tuple[int, int, str]] = []
        frames = read_in_order(
            source,
            self.indices,
            self.size,
            antialias=self.antialias,
            interpolation=self.interpolation,
            on_fault=lambda error, first, end: faults.append((first, end, str(error))),
        )
        found = {index: pixels for index, pixels in frames if pixels is not None}
        pixels = np.stack(list(found.values())) if found else NO_PIXELS
        return Described(pixels, None, {"indices": list(found), "faults": faults})


class Caption(NamedTuple):
    """A line of text that is drawn on the frames from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


class AnnotationWriter(NamedTuple):
    """Write a copy of a video with captions. There are no pixels and no details.

    Args:
        out: the file to write, which ends in .mp4.
        captions: lines of text; empty: the video is only converted.
    """

    out: Path
    captions: tuple[Caption, ...] = ()

    def read_described(self, source: Source) -> Described:
        """See `Reader`."""
        from mmaction_lite.inference.annotated_video import annotate_video

        annotate_video(source, self.out, self._text_at)
        return Described(NO_PIXELS, None, {})

    def _text_at(self, seconds: float) -> list[str]:
        return [text for start, end, text in self.captions if start <= seconds < end]

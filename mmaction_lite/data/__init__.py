"""Annotation files and videos to uint8 pixels: sources, samplers, views and data loading."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmaction_lite.data.sources.video import Video
    from mmaction_lite.data.views.samplers import DenseClips, SegmentFrames

__all__ = ["DenseClips", "SegmentFrames", "Video"]

_HOMES = {
    "DenseClips": "mmaction_lite.data.views.samplers",
    "SegmentFrames": "mmaction_lite.data.views.samplers",
    "Video": "mmaction_lite.data.sources.video",
}


def __getattr__(name: str) -> Any:
    # Import on first use: a process that reads annotation files needs neither PyTorch nor a video decoder.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Settings of the pixels, clips and network in a folder of the Hugging Face Hub.

The functions read `preprocessor_config.json` or `video_preprocessor_config.json`, and `config.json`. Values
of an unexpected kind count as absent.
"""

from collections.abc import Mapping
from typing import Any

from mmaction_lite.data.sources.resample import Interpolation
from mmaction_lite.errors import printable

LARGEST = 1 << 14  # frames or pixels
FILTERS: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}  # numbers of Pillow's filters


def statistics(preprocessor: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return mean and standard deviation for pixels in [0, 1] as text; empty lists if they are unknown."""
    mean, std = preprocessor.get("image_mean"), preprocessor.get("image_std")
    if preprocessor.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    if preprocessor.get("do_rescale") is False or not isinstance(mean, list) or not isinstance(std, list):
        return [], []
    return [str(value) for value in mean], [str(value) for value in std]


def short_side(preprocessor: Mapping[str, Any]) -> int | None:
    """Return the short side to which frames are resized; None: unknown, or another kind of resizing."""
    size = preprocessor.get("size")
    if preprocessor.get("do_resize") is False:
        return None
    return _length(size.get("shortest_edge") if isinstance(size, Mapping) else size)


def crop_size(preprocessor: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return (height, width) of the central crop; None if it is unknown or disabled."""
    size = preprocessor.get("crop_size")
    if preprocessor.get("do_center_crop") is False:
        return None
    sides = (size.get("height"), size.get("width")) if isinstance(size, Mapping) else (size, size)
    height, width = map(_length, sides)
    return None if height is None or width is None else (height, width)


def interpolation(preprocessor: Mapping[str, Any]) -> Interpolation | None:
    """Return the filter that resizes frames; None if it is unknown, or another one."""
    number = _resample(preprocessor)
    return FILTERS.get(number) if type(number) is int else None


def other_filter(preprocessor: Mapping[str, Any]) -> str | None:
    """Return a filter that views do not have, as the file writes it; None if there is none."""
    number = _resample(preprocessor)
    return None if number is None or interpolation(preprocessor) is not None else printable(repr(number), 40)


def _resample(preprocessor: Mapping[str, Any]) -> Any:
    return None if preprocessor.get("do_resize") is False else preprocessor.get("resample")


def clip_len(config: Mapping[str, Any]) -> int | None:
    """Return the number of frames of a clip in `config.json`; None if it is unknown."""
    return _length(config.get("num_frames", config.get("frames_per_clip")))


def heads(config: Mapping[str, Any]) -> int | None:
    """Return the number of attention heads in `config.json`; None if it is unknown."""
    return _length(config.get("num_attention_heads"))


def activation(config: Mapping[str, Any]) -> str | None:
    """Return the name of the activation in `config.json`; None if it is unknown."""
    name = config.get("hidden_act")
    return printable(name, 40) if isinstance(name, str) else None


def norm_eps(config: Mapping[str, Any]) -> float | None:
    """Return the epsilon of the normalizations in `config.json`; None if it is unknown."""
    eps = config.get("layer_norm_eps")
    return eps if isinstance(eps, float) else None


def _length(value: Any) -> int | None:
    """Return a number of frames or pixels; None for anything else."""
    return value if type(value) is int and 0 < value <= LARGEST else None

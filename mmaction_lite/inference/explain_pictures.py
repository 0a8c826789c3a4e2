"""Draw explanations: a strip of frames with their maps and curves over time, and a video with the maps."""

import json
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import BinaryIO

import av
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from mmaction_lite.data.sources.encoding import x264_options
from mmaction_lite.data.sources.resample import Size, crop_and_resize, short_side_size
from mmaction_lite.data.sources.sequential import frame_seconds
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.sources.video import DEFAULT_FPS
from mmaction_lite.errors import printable
from mmaction_lite.files import rewriting, write_atomically
from mmaction_lite.inference.explain import Explanation

MOST_FRAMES = 8  # in a strip
THUMBNAIL = 120  # short side of a frame in a strip, in pixels
STRONGEST = 0.7  # opacity of the map where it is 1
TICK = Fraction(1, 90_000)  # of the time stamps in a video, in seconds
CHUNK_FRAMES = 16  # of a video that are in memory
COLUMN, GAP = 1.3, 0.06  # width of a frame in a strip, and the space between two, in inches
MAP, MASS, DROP = "inferno", "#e8772e", "#3f7df0"


def write_files(
    out: Path,
    stem: str,
    explained: Sequence[Explanation],
    source: Source,
    name: str,
    *,
    has_video: bool = False,
    has_maps: bool = False,
) -> list[list[Path]]:
    """Write the files of one video: `STEM.CLASS.png`, and `.mp4` and `.npz` on request.

    Args:
        out: an existing folder. Files of an earlier call in it are replaced.
        stem: beginning of the file names.
        explained: the explanations of the video.
        source: the video.
        name: of the video, for the titles.
        has_video: write a video with the maps; see `write_overlay_video`.
        has_maps: write the maps as numbers; see `write_maps`.

    Returns:
        the files of every explanation.

    Raises:
        UserError: a file exists that this function did not write or that was changed, or cannot be written.
        VideoError: the video cannot be read.
    """
    suffixes = ["png", *["mp4"] * has_video, *["npz"] * has_maps]
    files = [
        [out / f"{stem}.{file_name_part(explanation.label)}.{suffix}" for suffix in suffixes]
        for explanation in explained
    ]
    with rewriting(out, [path.name for paths in files for path in paths]):
        for explanation, paths in zip(explained, files, strict=True):
            for path in paths:
                if path.suffix == ".png":
                    write_strip(path, explanation, source, name)
                elif path.suffix == ".mp4":
                    write_overlay_video(path, explanation, source)
                else:
                    write_maps(path, explanation)
    return files


def file_name_part(label: str) -> str:
    """Return a class name as a part of a file name: letters, digits, hyphens and underscores."""
    return re.sub(r"[^\w-]+", "_", label).strip("_")[:60] or "class"


def write_maps(path: Path, explanation: Explanation) -> None:
    """Write the numbers of an explanation to an `.npz` file.

    The file has the arrays of `Explanation`, and everything else as JSON in `about`; see `to_dict`.

    Raises:
        UserError: the file cannot be written.
    """
    arrays = {"maps": explanation.maps, "frames": explanation.frames, "seconds": explanation.seconds}
    if explanation.drops is not None:
        arrays["drops"] = explanation.drops
    arrays["box"] = np.array(explanation.box)
    arrays["frame_size"] = np.array(explanation.frame_size)
    rest = {key: value for key, value in explanation.to_dict().items() if key not in arrays}
    about = np.array(json.dumps(rest))
    write_atomically(path, lambda file: np.savez_compressed(file, allow_pickle=False, about=about, **arrays))


def write_strip(path: Path, explanation: Explanation, source: Source, name: str) -> None:
    """Write a PNG image: frames, the same frames with their maps, and curves over time.

    Up to eight of the seen frames are shown, evenly spaced. The curves are the share of each frame in the sum
    of all maps, and the drop of the logit when the frame is hidden. The rectangle is the border of the view.

    Args:
        path: the file to write.
        explanation: what to draw.
        source: the video.
        name: of the video, for the title.

    Raises:
        UserError: the file cannot be written.
        VideoError: the video cannot be read.
    """
    shown = np.linspace(0, len(explanation.frames) - 1, min(len(explanation.frames), MOST_FRAMES))
    shown = np.unique(shown.round().astype(int))
    size = short_side_size(explanation.frame_size, min(THUMBNAIL, *explanation.frame_size))
    frames = source.frames(explanation.frames[shown], None, size)
    # In inches: pictures of a fixed width in two rows, and the curves below them.
    columns = max(len(shown), 4)
    height = COLUMN * size[0] / size[1]
    figure = Figure(figsize=(columns * (COLUMN + GAP) + GAP, 2 * (height + GAP) + 2.15), dpi=72)
    place = partial(_add_axes, figure)
    for column, (position, frame) in enumerate(zip(shown.tolist(), frames, strict=True)):
        left = GAP + column * (COLUMN + GAP)
        above, below = (place(left, bottom, COLUMN, height) for bottom in (1.65 + height + GAP, 1.65))
        above.imshow(frame, aspect="auto")
        below.imshow(blend(frame, _resized_map(explanation, position, size)), aspect="auto")
        above.set_title(_time_label(explanation, position), fontsize=8, pad=3)
        _draw_border(below, explanation, size)
        for axes in (above, below):
            axes.set_axis_off()
    _draw_curves(place(0.6, 0.45, figure.get_figwidth() - 1.35, 1.05), explanation)
    title = _letters(f"{explanation.label}  {explanation.score:.3f}   {name}")
    figure.text(
        0.5, 1 - 0.1 / figure.get_figheight(), title, ha="center", va="top", fontsize=9, parse_math=False
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    write_atomically(path, lambda file: picture.save(file, "PNG", optimize=True))


def write_overlay_video(path: Path, explanation: Explanation, source: Source) -> None:
    """Write an MP4 video without sound: the part of the video that was seen, with the maps.

    The part begins with the first seen frame and ends with the last one. Between seen frames, maps are
    interpolated in time. Times are those of the video. Frames have an even height and width, as H.264
    requires.

    Args:
        path: the file to write.
        explanation: what to draw.
        source: the video.

    Raises:
        UserError: the file cannot be written.
        VideoError: the video cannot be read.
    """
    write_atomically(path, lambda file: _encode(file, explanation, source))


def blend(frame: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """Blend a frame with the colors of its map.

    Args:
        frame: uint8 (h, w, 3).
        map_: float (h, w) in [0, 1]; the opacity is proportional to it.

    Returns:
        uint8 (h, w, 3).
    """
    colors = matplotlib.colormaps[MAP](0.35 + 0.65 * map_)[..., :3] * 255
    opacity = STRONGEST * map_[..., None]
    return (frame * (1 - opacity) + colors * opacity + 0.5).astype(np.uint8)


def map_at(explanation: Explanation, frame: int) -> np.ndarray:
    """Return the map of any frame of the video, interpolated between seen frames: float32 (height, width)."""
    place = np.interp(frame, explanation.frames, np.arange(len(explanation.frames)))
    first = int(place)
    map_ = explanation.map_in_frame(first)
    share = place - first
    return map_ if not share else (1 - share) * map_ + share * explanation.map_in_frame(first + 1)


def _encode(file: BinaryIO, explanation: Explanation, source: Source) -> None:
    height, width = (max(2, side // 2 * 2) for side in explanation.frame_size)
    fps = source.fps if source.fps > 0 else DEFAULT_FPS
    first, last = explanation.frames[[0, -1]].tolist()
    times = frame_seconds(source, np.arange(first, last + 1))
    if np.isnan(times).any():
        times = np.arange(first, last + 1) / DEFAULT_FPS
    with av.open(file, "w", format="mp4") as container:
        options = x264_options(crf="20", bf="0")
        stream = container.add_stream("libx264", Fraction(fps).limit_denominator(1001), options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1
        stream.codec_context.time_base = TICK
        for number, pixels in _frames_between(source, first, last):
            picture = blend(pixels, map_at(explanation, number))
            if picture.shape[:2] != (height, width):
                picture = crop_and_resize(picture[None], None, (height, width))[0]
            encoded = av.VideoFrame.from_ndarray(picture, "rgb24")
            seconds = times[number - first]
            encoded.pts, encoded.time_base = round((seconds - times[0]) / TICK), TICK
            container.mux(stream.encode(encoded))
        container.mux(stream.encode())


def _frames_between(source: Source, first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(first, last + 1, CHUNK_FRAMES):
        numbers = range(start, min(start + CHUNK_FRAMES, last + 1))
        yield from zip(numbers, source.frames(numbers), strict=True)


def _resized_map(explanation: Explanation, position: int, size: Size) -> np.ndarray:
    map_ = explanation.map_in_frame(position)
    levels = (map_ * 255 + 0.5).astype(np.uint8)[None, :, :, None]
    return crop_and_resize(levels, None, size)[0, :, :, 0] / 255


def _draw_border(axes: Axes, explanation: Explanation, size: Size) -> None:
    down, across = (shown / whole for shown, whole in zip(size, explanation.frame_size, strict=True))
    top, left, height, width = explanation.box
    corner = left * across - 0.5, top * down - 0.5
    axes.add_patch(Rectangle(corner, width * across, height * down, fill=False, color="white", lw=0.8))


def _add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / down, width / across, height / down))


def _draw_curves(axes: Axes, explanation: Explanation) -> None:
    has_times = np.isfinite(explanation.seconds).all()
    at = explanation.seconds if has_times else explanation.frames
    axes.plot(at, 100 * explanation.frame_mass, color=MASS, marker="o", markersize=3)
    axes.set_ylabel("map (%)", color=MASS, fontsize=8)
    axes.set_xlabel("seconds" if has_times else "frame", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    if explanation.drops is not None:
        other = axes.twinx()
        other.axhline(0, color=DROP, lw=0.5)
        other.plot(at, explanation.drops, color=DROP, marker="s", markersize=3, linestyle="--")
        other.set_ylabel("drop of the logit\nif hidden", color=DROP, fontsize=8)
        other.tick_params(labelsize=8)


def _time_label(explanation: Explanation, position: int) -> str:
    seconds = float(explanation.seconds[position])
    return f"{seconds:.2f} s" if np.isfinite(seconds) else f"frame {explanation.frames[position]}"


def _letters(text: str) -> str:
    """Return a text with escape sequences in place of characters that the font of matplotlib may not have."""
    return "".join(c if ord(c) < 0x250 else c.encode("unicode_escape").decode() for c in printable(text, 200))

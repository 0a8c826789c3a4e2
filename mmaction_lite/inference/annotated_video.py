"""Write a video with text drawn on its frames: upright, at the times of its frames, with its sound."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.error import FFmpegError
from av.stream import Stream
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, ImageDraw, ImageFont

from mmaction_lite.data.sources.container import Opened, open_stream
from mmaction_lite.data.sources.encoding import x264_options
from mmaction_lite.data.sources.faults import MispredictedError
from mmaction_lite.data.sources.resample import Size
from mmaction_lite.data.sources.source import Source
from mmaction_lite.data.sources.video import DEFAULT_FPS, Video
from mmaction_lite.errors import UserError, describe, printable
from mmaction_lite.files import check_output_folder, check_replaceable, write_atomically

SUFFIXES = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
MARK = "annotated by mmaction-lite"  # the comment in the metadata of the file
MIN_SIDE = 240  # pixels; smaller frames are enlarged by an integer, so that the text is legible
# Seconds by which sound may start before frame 0; encoders put 20 to 50 ms of silence before a sound.
MOST_PRIMING = 0.1
TIME_BASE = Fraction(1, 90_000)  # of sources without a time base
LATIN = 0x250  # the font of Pillow has the letters before this one
COLOR_SPACES = {1: 1, 5: 5, 6: 5, 7: 7, 9: 9}  # of a stream (ITU-T H.273), to those of the scaler of FFmpeg

TextAt = Callable[[float], Sequence[str]]


def check_annotated_out(out: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Check that an annotated video can be written to `out`; an earlier annotated video is replaced.

    Args:
        out: the file.
        inputs: the videos that are read.

    Raises:
        UserError: the suffix is not one of `SUFFIXES`, or see `check_replaceable`.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"{printable(str(out))}: expected a file name ending in {', '.join(SUFFIXES)}")
    check_replaceable(out, "a video annotated by mmaction-lite", _is_annotated, inputs)


def annotated_paths(out: Path, names: Sequence[str]) -> list[Path]:
    """Return the path of the annotated video of each input, and check that all can be written.

    Args:
        out: a file, for one input; otherwise a folder, which is created.
        names: paths or names of the inputs. In a folder, the annotated video of `a/clip.avi` is `clip.mp4`;
            further ones of the same name are `clip-2.mp4`, `clip-3.mp4`, and so on.

    Raises:
        UserError: `out` is a file name and there are several inputs, or a file cannot be written.
    """
    is_file = out.suffix.lower() in SUFFIXES and not out.is_dir()
    if is_file and len(names) > 1:
        raise UserError(
            f"{printable(str(out))}: is one file, and there are {len(names)} videos; expected a folder"
        )
    if is_file:
        check_annotated_out(out, names)
        return [out]
    check_output_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[Path, None] = {}
    for name in names:
        stem = Path(name.replace("*", "")).stem or "video"
        number, path = 1, out / f"{stem}.mp4"
        while path in paths:
            number += 1
            path = out / f"{stem}-{number}.mp4"
        check_annotated_out(path, names)
        paths[path] = None
    return list(paths)


def annotate_video(source: Source, out: Path, text_at: TextAt) -> str:
    """Write a copy of a video with lines of text in the top left corner of its frames.

    Frames are upright and keep their times, also at a variable frame rate. Audio streams are copied without
    re-encoding. Memory holds a few frames, whatever the length. Frames with a short side below `MIN_SIDE` are
    enlarged; an odd side is extended by one pixel, as H.264 requires.

    Args:
        source: the video.
        out: file to write, of a suffix in `SUFFIXES`.
        text_at: returns the lines of text at a time in seconds.

    Returns:
        A note about sound that could not be copied, or an empty string.

    Raises:
        VideoError: a frame cannot be read.
        UserError: `out` cannot be written.
    """
    check_annotated_out(out)
    for is_last in (False, True):
        try:
            notes: list[str] = []
            write_atomically(out, lambda file: notes.append(_encode(source, file, out, text_at)))  # noqa: B023
            return notes[0]
        except MispredictedError:  # the order of the frames is known now
            if is_last:
                raise
        except FFmpegError as error:
            raise UserError(f"{printable(str(out))}: could not be written ({describe(error)})") from None
    raise AssertionError


def _encode(source: Source, file: BinaryIO, out: Path, text_at: TextAt) -> str:
    """Write the annotated video to `file`; see `annotate_video`."""
    opened = source.reopen() if isinstance(source, Video) else None
    container = av.open(cast(Any, file), "w", format=SUFFIXES[out.suffix.lower()])
    try:
        with container:
            container.metadata["comment"] = MARK
            return _encode_streams(source, opened, container, text_at)
    finally:
        if opened is not None:
            opened.close()


def _encode_streams(
    source: Source, opened: Opened | None, container: OutputContainer, text_at: TextAt
) -> str:
    scale = math.ceil(MIN_SIDE / min(source.size))
    height, width = (side * scale for side in source.size)
    video, space = _video_stream(container, source, opened, (height + height % 2, width + width % 2))
    sound = _Sound(opened, container)
    delay = sound.delay
    time_base = cast(Fraction, video.codec_context.time_base)
    draw, reformatter, last = _Captions((height, width)), VideoReformatter(), -1
    for seconds, pixels in _frames(source):
        pixels = pixels.repeat(scale, 0).repeat(scale, 1) if scale > 1 else pixels.copy()
        draw(pixels, tuple(text_at(seconds)))
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = reformatter.reformat(frame, format="yuv420p", dst_colorspace=space, threads=1)
        last = max(last + 1, round((seconds + delay) / time_base))
        frame.pts, frame.time_base = last, time_base
        container.mux(video.encode(frame))
        sound.copy(seconds)
    container.mux(video.encode(None))
    sound.copy(math.inf)
    return sound.note


def _video_stream(
    container: OutputContainer, source: Source, opened: Opened | None, size: Size
) -> tuple[VideoStream, int | None]:
    """Return a new H.264 stream with rate, time base, aspect ratio and colors of the source.

    Returns:
        The stream, and the color space to convert to; None: the default of FFmpeg.
    """
    rate = Fraction(DEFAULT_FPS if math.isnan(source.fps) else source.fps).limit_denominator(1001)
    options = x264_options(crf="20", preset="veryfast")
    stream = container.add_stream("libx264", rate=max(rate, Fraction(1, 1000)), options=options)
    assert isinstance(stream, VideoStream)
    encoder = stream.codec_context
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    encoder.time_base = TIME_BASE
    if opened is None:
        return stream, None
    decoder = opened.stream.codec_context
    if opened.stream.time_base:
        encoder.time_base = max(opened.stream.time_base, Fraction(1, 1_000_000))
    if aspect := opened.stream.sample_aspect_ratio or decoder.sample_aspect_ratio:
        is_turned = (decoder.height, decoder.width) == source.size[::-1] != source.size
        encoder.sample_aspect_ratio = 1 / aspect if is_turned else aspect
    space = COLOR_SPACES.get(decoder.colorspace)
    if space is not None:
        encoder.colorspace, encoder.color_primaries = decoder.colorspace, decoder.color_primaries
        encoder.color_trc = decoder.color_trc
    return stream, space


def _frames(source: Source) -> Iterator[tuple[float, np.ndarray]]:
    """Yield the time in seconds of every frame and its pixels, uint8 (H, W, 3), which the next overwrite."""
    if isinstance(source, Video):
        times = source.presentation_times() if source.times() is None else None
        for index, seconds, pixels in source.walk():
            yield seconds if times is None else float(times[index]), pixels
        return
    rate = DEFAULT_FPS if math.isnan(source.fps) else source.fps
    for index in range(len(source)):
        yield index / rate, source.frames([index])[0]


class _Sound:
    """Copies the audio packets of a file, in step with the frames, so that memory stays small.

    Args:
        opened: the file; None: there is no sound.
        container: the container to write to.

    Attributes:
        delay: seconds from the start of the sound to frame 0, if the sound starts more than `MOST_PRIMING`
            earlier; otherwise 0.
        note: why an audio stream is not copied; empty if all are.
    """

    def __init__(self, opened: Opened | None, container: OutputContainer):
        self.note, self.delay = "", 0.0
        self._origin = Fraction(0)
        self._container = container
        self._streams: dict[int, AudioStream] = {}
        self._last: dict[int, int] = {}
        self._next: av.Packet | None = None
        self._packets: Iterator[av.Packet] = iter(())
        if opened is None:
            return
        for stream in opened.container.streams.audio:
            codec = None if stream.codec_context is None else stream.codec_context.codec.canonical_name
            try:
                if codec not in container.supported_codecs:
                    raise ValueError
                copied = container.add_stream_from_template(stream)
            except (ValueError, FFmpegError):
                self.note = (
                    f"sound of codec {codec or 'unknown'} is not copied; use a file name ending in .mkv"
                )
                continue
            self._streams[stream.index] = cast(AudioStream, copied)
        if self._streams:
            chosen = [s for s in opened.container.streams.audio if s.index in self._streams]
            starts = [_start(stream) for stream in [opened.stream, *chosen]]
            self._origin = starts[0] if starts[0] - min(starts) <= MOST_PRIMING else min(starts)
            self.delay = float(starts[0] - self._origin)
            self._packets = opened.container.demux(chosen)
            self._advance()

    def copy(self, until: float) -> None:
        """Copy the packets that begin up to a time in seconds after frame 0."""
        until += self.delay
        while self._next is not None:
            packet = self._next
            assert packet.pts is not None
            assert packet.dts is not None
            assert packet.time_base is not None
            if float(packet.pts * packet.time_base - self._origin) > until:
                return
            index, shift = packet.stream.index, round(self._origin / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.dts > self._last.get(index, packet.dts - 1):  # times of damaged files may go back
                self._last[index] = packet.dts
                packet.stream = self._streams[index]
                self._container.mux(packet)
            self._advance()

    def _advance(self) -> None:
        self._next = None
        try:
            for packet in self._packets:
                if packet.size and packet.pts is not None and packet.dts is not None and packet.time_base:
                    self._next = packet
                    return
        except FFmpegError:  # the end of a truncated file
            return


def _start(stream: Stream) -> Fraction:
    """Return the time of the first packet of a stream, in seconds."""
    return (stream.start_time or 0) * (stream.time_base or Fraction(0))


class _Captions:
    """Draws lines of text on frames of one size, white on a darker ground."""

    def __init__(self, size: Size):
        self._width = size[1]
        self._height = size[0]
        pixels = max(12, min(size) // 16)
        self._font = ImageFont.load_default(pixels)
        self._line = round(pixels * 1.3)
        self._margin = pixels // 2
        self._mask = lru_cache(64)(self._draw)

    def __call__(self, pixels: np.ndarray, lines: tuple[str, ...]) -> None:
        """Draw the lines on a frame, uint8 (H, W, 3), in place."""
        if not lines:
            return
        mask = self._mask(lines)
        area = pixels[: mask.shape[0], : mask.shape[1]]
        dark = area.astype(np.uint16) * 2 // 5
        area[:] = (dark + (255 - dark) * mask[..., None] // 255).astype(np.uint8)

    def _draw(self, lines: tuple[str, ...]) -> np.ndarray:
        """Return the opacity of the letters, uint16 (h, w)."""
        most = max(1, (self._height - 2 * self._margin) // self._line)
        shown = [self._fit(line) for line in lines[:most]]
        width = min(self._width, max(map(self._length, shown)) + 2 * self._margin)
        height = min(self._height, len(shown) * self._line + self._margin)
        image = Image.new("L", (width, height))
        for number, line in enumerate(shown):
            place = (self._margin, self._margin // 2 + number * self._line)
            ImageDraw.Draw(image).text(place, line, fill=255, font=self._font)
        return np.asarray(image).astype(np.uint16)

    def _length(self, line: str) -> int:
        return math.ceil(self._font.getlength(line))

    def _fit(self, line: str) -> str:
        """Return a line in letters of the font, shortened to the width of a frame."""
        letters = [c if ord(c) < LATIN else c.encode("unicode_escape").decode() for c in printable(line, 200)]
        line = "".join(letters)
        if self._length(line) + 2 * self._margin <= self._width:
            return line
        while line and self._length(f"{line}...") + 2 * self._margin > self._width:
            line = line[:-1]
        return f"{line}..."


def _is_annotated(path: Path) -> bool:
    with open_stream(str(path)) as opened:
        return MARK in opened.container.metadata.get("comment", opened.container.metadata.get("COMMENT", ""))

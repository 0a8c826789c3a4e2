"""Frame-accurate reading of video files that decodes only the packets that the requested frames need.

A frame is identified by its packet, never by time × fps. The packets of a file are scanned once; their
presentation order gives `order[index] = packet`. For example:

    packets     I b P b P b │ I b P b P b │ I b P b P b │ I …     I is a keyframe: decoding can begin there
    requested       ▲ ▲                         ▲
    decoded     █   █ █                     █   █

Decoding begins at the keyframe before a requested frame and ends at the frame's own packet. Non-reference
pictures in between that are not requested are skipped.

The decoder copies the pts of a packet to its frame. The pts of every packet is therefore set to the packet's
number, which identifies each decoded frame. If frames do not arrive as predicted (field pairs, packets
wrongly marked as keyframes, missing pts), the whole file is decoded once to learn the order, and later reads
always decode from its beginning.
"""

import math
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from os import PathLike
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import VideoReformatter

from mmaction_lite.data.sources import packets as packet_index
from mmaction_lite.data.sources.packets import PacketIndex, demux, mark, open_stream
from mmaction_lite.data.sources.resample import Box, Size, crop_and_resize
from mmaction_lite.errors import VideoError

# Demuxing this many packets without decoding them takes about as long as a seek.
SEEK_PACKETS = 8
# Tolerance for times written with few digits: a frame up to this much earlier still matches.
EARLY_SECONDS = 5e-4
# Frames are resized in groups, in a third of the time; the groups are small enough for the processor's cache.
GROUP_BYTES = 2**20


class MispredictedError(Exception):
    """The decoder returned other frames than the packet index predicts."""


class Video:
    """A video file opened for frame-accurate reading; close it, or use it in a `with` statement.

    Reads the stream that FFmpeg selects as the best video stream, and rotates frames upright as the file's
    metadata specifies. Do not share it between threads. Unpickling a `Video` opens its file again.

    Args:
        path: a local file.
        data: the file's bytes, if they are in memory already; `path` is then used in messages only.

    Raises:
        VideoError: the file is missing, is not a video, or has no video stream.
    """

    def __init__(self, path: str | PathLike[str], data: bytes | None = None) -> None:
        self.path = str(path)
        self._data = data
        self._container, self._stream = open_stream(self.path, data)
        self._packets: Iterator[av.Packet] = demux(self._container, self._stream)
        self._position = 0  # number of the next packet of `_packets`
        self._reformatter = VideoReformatter()
        try:
            if data is None:
                status = Path(path).stat()
                self._key = str(Path(path).absolute()), status.st_mtime_ns, status.st_size
            else:
                self._key = self.path, zlib.crc32(data), len(data)
            self._index = packet_index.index_cache.get(self._key) or self._make_index()
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> tuple:
        return Video, (self.path, self._data)

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder. A container left open in a parent process hangs its forked children."""
        self._container.close()

    def __len__(self) -> int:
        """Number of frames that decode; headers may state another number, and edit lists hide some frames."""
        return len(self._index.order)

    def index_at(self, seconds: float) -> int:
        """Return the first frame presented `seconds` after frame 0 or later; the length if there is none."""
        times = self._index.times
        if times is None:
            return first_at(seconds, self.fps, len(self))
        return min(int(np.searchsorted(times, seconds - EARLY_SECONDS)), len(self))

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._stream.codec_context.codec.canonical_name

    @property
    def fps(self) -> float:
        """Average frames per second of the file."""
        return self._index.fps

    @property
    def size(self) -> Size:
        """(height, width) of the frames, upright."""
        if self._index.size is None:
            height, width = self.frames([0]).shape[1:3]
            self._remember(replace(self._index, size=(height, width)))
            return height, width
        return self._index.size

    def frames(
        self, indices: Iterable[int], box: Box | None = None, size: Size | None = None, antialias: bool = True
    ) -> np.ndarray:
        """Decode exactly the requested frames. Memory holds the result and one whole frame.

        Args:
            indices: frame numbers in [0, len), at least one, in any order; repeats are allowed.
            box: (top, left, height, width) of the crop in the upright frame; None for the whole frame.
            size: (height, width) to resize to; None keeps the size of the box.
            antialias: see `crop_and_resize`.

        Returns:
            uint8 (n, height, width, 3) RGB, in the order of `indices`.

        Raises:
            IndexError: an index is outside [0, len).
            VideoError: a frame does not decode, or lies in the missing part of a truncated file.
        """
        wanted = np.asarray(list(indices), dtype=np.int64)
        try:
            return collect(self._decode(wanted), wanted, box, size, antialias)
        except MispredictedError:
            self._learn()
        try:
            return collect(self._decode(wanted), wanted, box, size, antialias)
        except MispredictedError as error:
            raise VideoError(f"{self.path}: {error}, also after decoding the whole file") from None

    def walk(self) -> Iterator[tuple[int, float, np.ndarray]]:
        """Decode every frame once, in order.

        Yields:
            The number of the frame, its time in seconds, and its upright pixels, uint8 (H, W, 3), as a view
            into memory that the next frame overwrites.

        Raises:
            VideoError: a frame does not decode.
            MispredictedError: the order of frames differs from the file's metadata. The order is known from
                then on; call `walk` again.
        """
        times = self._index.times
        try:
            for index, pixels in self._decode(np.arange(len(self))):
                yield index, index / self.fps if times is None else float(times[index]), pixels
        except MispredictedError:
            self._learn()
            raise

    def _check(self, index: int) -> None:
        if 0 <= index < len(self):
            return
        if 0 <= index < self._index.promised:
            raise VideoError(
                f"{self.path}: frame {index} cannot be read: the file lists {self._index.promised} frames, "
                f"but contains only the first {len(self)}; the file may be truncated"
            )
        raise IndexError(f"{self.path}: frame {index} is out of range; expected 0 to {len(self) - 1}")

    def _decode(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each distinct index in `wanted` once, with its upright RGB frame, in decoding order."""
        distinct = np.unique(wanted)
        self._check(int(distinct[0]))
        self._check(int(distinct[-1]))
        for first, after in self._index.unread(distinct):
            following = self._packets_from(first, len(self._index.order) - 1)
            if not self._index.read_run(first, after, following):
                self._scan()
                self._check(int(distinct[-1]))
                break
        packets = self._index.order[distinct]
        index_of = dict(zip(packets.tolist(), distinct.tolist(), strict=True))
        packets = np.sort(packets)
        # A later packet may need an earlier start. Each pass begins early enough for all packets that follow.
        starts = np.minimum.accumulate(self._index.starts(packets)[::-1])[::-1]
        cuts = np.flatnonzero(starts[1:] > packets[:-1]) + 1
        for part, start in zip(np.split(packets, cuts), starts[[0, *cuts]].tolist(), strict=True):
            missing = set(part.tolist())
            rank, damaged = -1, {}
            for packet, picture in self._pictures(start, int(part[-1]), missing.copy()):
                if isinstance(picture, str):
                    damaged[packet] = picture
                    continue
                if packet == start > 0 and not picture.key_frame:
                    raise MispredictedError(f"packet {packet} is marked as a keyframe but is not one")
                if self._index.rank[packet] <= rank:
                    raise MispredictedError("the decoder returns frames in another order than listed")
                rank = self._index.rank[packet]
                if packet in missing and not self._spoiling(packet, damaged):
                    missing.remove(packet)
                    yield index_of[packet], self._rgb(picture)
            for packet in sorted(missing):
                if spoiling := self._spoiling(packet, damaged):
                    raise VideoError(f"{self.path}: frame {index_of[packet]} does not decode: {spoiling[0]}")
                raise MispredictedError(f"the decoder does not return frame {index_of[packet]}")

    def _spoiling(self, packet: int, damaged: dict[int, str]) -> list[str]:
        """Return the faults of damaged packets from the start of decoding to `packet`.

        After a damaged packet, decoders silently fill the lost area with pixels of older frames.
        """
        if not damaged:
            return []
        start = self._index.starts(np.array([packet]))[0]
        return [reason for bad, reason in damaged.items() if start <= bad <= packet]

    def _pictures(
        self, start: int, last: int, wanted: set[int] | None = None
    ) -> Iterator[tuple[int, av.VideoFrame | str]]:
        """Decode packets `start` to `last`; yield each packet's number with its picture or its fault.

        Non-reference pictures outside `wanted` may be missing. With None, all pictures are decoded.
        """
        decoder = self._stream.codec_context
        decoder.flush_buffers()
        # The None at the end flushes the frames that the decoder holds back for reordering.
        for number, packet in chain(self._packets_from(start, last), [(last, None)]):
            needed = wanted is None or number in wanted or not self._index.skippable
            decoder.skip_frame = "DEFAULT" if needed else "NONREF"
            if packet is not None:
                packet.pts = number
                if packet.is_corrupt:
                    yield number, "its data is truncated"
                    continue
            try:
                frames = decoder.decode(packet)
            except FFmpegError as error:
                yield number, error.strerror or "its data is invalid"
                continue
            for frame in frames:
                if frame.pts is None or not start <= frame.pts <= last:
                    raise MispredictedError("the decoder returns a frame that belongs to no packet")
                yield frame.pts, "its data is damaged" if frame.is_corrupt else frame

    def _packets_from(self, start: int, last: int) -> Iterator[tuple[int, av.Packet]]:
        """Yield packets `start` to `last` with their numbers; demux up to `start`, or seek to it."""
        if not self._position <= start <= self._position + SEEK_PACKETS:
            self._seek(start)
        for packet in self._packets:
            number, self._position = self._position, self._position + 1
            if number >= start:
                yield number, packet
            if number >= last:
                return

    def _seek(self, packet: int) -> None:
        """Move `_packets` to `packet`, a keyframe of the index, or to a packet before it."""
        key = int(np.searchsorted(self._index.keys, packet))
        for stamp in self._index.stamps[key]:
            try:
                self._container.seek(stamp, stream=self._stream)
            except FFmpegError:
                continue
            packets = demux(self._container, self._stream)
            first = next(packets, None)
            if first is None:
                continue
            here = mark(np.array(-1 if first.pos is None else first.pos), np.array(first.size))
            landed = np.flatnonzero(self._index.marks == here)
            if len(landed) == 1 and landed[0] <= packet:
                self._packets, self._position = chain((first,), packets), int(landed[0])
                return
        self._reopen()

    def _reopen(self) -> None:
        self._container.close()
        self._container, self._stream = open_stream(self.path, self._data)
        self._packets, self._position = demux(self._container, self._stream), 0

    def _make_index(self) -> PacketIndex:
        listed = packet_index.listed_index(self.path, self._stream, self._data)
        return self._remember(listed) if listed else self._scan()

    def _remember(self, index: PacketIndex) -> PacketIndex:
        packet_index.index_cache.put(self._key, index)
        self._index = index
        return index

    def _scan(self) -> PacketIndex:
        if self._position:
            self._reopen()
        scanned = packet_index.scanned_index(self._packets, self._stream)
        if scanned is None:
            raise VideoError(f"{self.path}: the video stream is empty or cannot be read")
        self._index, order_known = scanned
        self._position = len(self._index.rank)
        return self._remember(self._index) if order_known else self._learn()

    def _learn(self) -> PacketIndex:
        """Decode the whole file, without color conversion, to learn the packet of every frame."""
        self._index = replace(
            self._index, keys=self._index.keys[:1], stamps=self._index.stamps[:1], skippable=False
        )
        pictures = self._pictures(0, len(self._index.rank) - 1)
        index = packet_index.learned_index(self._index, pictures)
        if not len(index.order):
            raise VideoError(f"{self.path}: no frame decodes")
        if len(np.unique(index.order)) < len(index.order):
            raise VideoError(f"{self.path}: some packets hold several frames; re-encode the file")
        return self._remember(index)

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the upright RGB pixels of `frame`, uint8 (H, W, 3), a view into the reformatter's memory."""
        plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
        pixels = rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def first_at(seconds: float, fps: float, length: int) -> int:
    """Return `index_at(seconds)` of a video of `length` frames with a constant frame rate."""
    return length if math.isinf(seconds) else min(math.ceil((seconds - EARLY_SECONDS) * fps), length)


def collect(
    decoded: Iterable[tuple[int, np.ndarray]],
    indices: np.ndarray,
    box: Box | None,
    size: Size | None,
    antialias: bool,
) -> np.ndarray:
    """Crop and resize decoded frames one after the other, and copy each to its places in `indices`.

    Args:
        decoded: pairs of every distinct index and its uint8 (H, W, 3) frame, in any order.
        indices: int (n,).
        box, size, antialias: see `crop_and_resize`.

    Returns:
        uint8 (n, h, w, 3).
    """
    if not len(indices):
        raise ValueError("indices: no frame requested; expected at least one index")
    result = group = None
    waiting: list[int] = []

    def resize_group() -> None:
        nonlocal result
        if group is None or not waiting:
            return
        resized = crop_and_resize(group[: len(waiting)], None, size, antialias=antialias)
        if result is None:
            result = np.empty((len(indices), *resized.shape[1:]), np.uint8)
        for index, pixels in zip(waiting, resized, strict=True):
            result[indices == index] = pixels
        waiting.clear()

    for index, frame in decoded:
        height, width = frame.shape[:2]
        top, left, h, w = box or (0, 0, height, width)
        if not (0 <= top < top + h <= height and 0 <= left < left + w <= width):
            raise ValueError(f"box (top, left, height, width) {box} is outside the {height}x{width} frame")
        cut = frame[top : top + h, left : left + w]
        if size is None or size == (h, w):
            if result is None:
                result = np.empty((len(indices), h, w, cut.shape[2]), np.uint8)
            result[indices == index] = cut
            continue
        if group is None:
            group = np.empty((max(1, GROUP_BYTES // cut.nbytes), *cut.shape), np.uint8)
        group[len(waiting)] = cut
        waiting.append(index)
        if len(waiting) == len(group):
            resize_group()
    resize_group()
    assert result is not None
    return result

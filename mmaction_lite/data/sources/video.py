"""Frame-accurate reading of video files: plan first, then decode only what the wanted frames need.

A frame is known by the packet it comes from, never by time × fps. A file's packets are scanned once; their
order of presentation gives `order[index] = packet`. To read some frames:

    packets     I b P b P b │ I b P b P b │ I b P b P b │ I …     I is a keyframe: decoding can begin there
    wanted          ▲ ▲                         ▲
    decoded     █   █ █                     █   █ ▒               the rest is skipped: what comes before its
                                                                  keyframe, after it, or is no reference

The decoder hands a packet's pts on to the frame it makes, so every packet is given its own number there and
every frame tells which one it is. Where frames do not come as predicted (field pairs, lying keyframes,
missing pts), the file is decoded once to learn the order, and from then on always from its beginning.
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

# Reading on over this many packets without decoding them takes about as long as a seek.
SEEK_PACKETS = 8
# Times are written with few digits: a frame this little early counts as shown at the time asked for.
EARLY_SECONDS = 5e-4
# Frames are resized together, which takes a third of the time, but few, so that they stay in the cache.
GROUP_BYTES = 2**20


class MispredictedError(Exception):
    """Frames did not come out of the decoder as the packet index says."""


class Video:
    """A video file, opened for reading exact frames; close it, or use it in a `with` statement.

    The stream is FFmpeg's best video stream; frames are turned upright as the file asks. Not to be shared
    between threads. A pickled `Video` opens its file again where it is unpickled.

    Args:
        path: a local file.
        data: its bytes, where they are in memory already; `path` is then a name only.

    Raises:
        VideoError: the file is missing, is no video, or holds no video stream.
    """

    def __init__(self, path: str | PathLike[str], data: bytes | None = None) -> None:
        self.path = str(path)
        self._data = data
        self._container, self._stream = open_stream(self.path, data)
        self._packets: Iterator[av.Packet] = demux(self._container, self._stream)
        self._position = 0  # the number of the packet that `_packets` gives next
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
        """Free the decoder: a container left open in a parent process hangs its forked children."""
        self._container.close()

    def __len__(self) -> int:
        """The number of frames that decode; headers may say otherwise, and edit lists hide some."""
        return len(self._index.order)

    def index_at(self, seconds: float) -> int:
        """The first frame shown at this time or later, counted from the first frame's; len where none is."""
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
        """Frames per second, on average over the file."""
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
        """Decode exactly the frames asked for, in memory for those and one whole frame.

        Args:
            indices: frame numbers in [0, len), at least one, in any order, repeats allowed.
            box: (top, left, height, width) of the upright frame to cut out; None for all of it.
            size: (height, width) to resize to; None keeps the box's own.
            antialias: see `crop_and_resize`.

        Returns:
            uint8 (n, height, width, 3) RGB, in the order of `indices`.

        Raises:
            IndexError: an index outside [0, len).
            VideoError: a frame does not decode, or is cut off from a truncated file.
        """
        wanted = np.asarray(list(indices), dtype=np.int64)
        try:
            return collect(self._decode(wanted), wanted, box, size, antialias)
        except MispredictedError:
            self._learn()
        try:
            return collect(self._decode(wanted), wanted, box, size, antialias)
        except MispredictedError as error:
            raise VideoError(f"{self.path}: {error}, on every reading anew") from None

    def walk(self) -> Iterator[tuple[int, float, np.ndarray]]:
        """Every frame once and in order: its number, its seconds, its upright pixels, uint8 (H, W, 3).

        The pixels are a view into memory that the next frame overwrites.

        Raises:
            VideoError: a frame does not decode.
            MispredictedError: frames do not come as the file says; start again, their order is known now.
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
                f"of which the first {len(self)} are there (is it cut short?)"
            )
        raise IndexError(
            f"{self.path}: frame {index} was asked for; the video has frames 0 to {len(self) - 1}"
        )

    def _decode(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Each of the distinct indices in `wanted` once, with its upright RGB frame, in order of decoding."""
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
        # A later packet may need an earlier start; a pass begins where all that follow can do with it.
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
                    raise MispredictedError(f"packet {packet} is marked as a keyframe and is none")
                if self._index.rank[packet] <= rank:
                    raise MispredictedError("frames come out of the decoder in another order than listed")
                rank = self._index.rank[packet]
                if packet in missing and not self._spoiling(packet, damaged):
                    missing.remove(packet)
                    yield index_of[packet], self._rgb(picture)
            for packet in sorted(missing):
                if spoiling := self._spoiling(packet, damaged):
                    raise VideoError(f"{self.path}: frame {index_of[packet]} does not decode: {spoiling[0]}")
                raise MispredictedError(f"frame {index_of[packet]} does not come out of the decoder")

    def _spoiling(self, packet: int, damaged: dict[int, str]) -> list[str]:
        """Why the picture of `packet` is not to be trusted: a damaged packet lies between its start and it.

        Decoders then show older pixels in place of what is lost, which nobody would notice.
        """
        if not damaged:
            return []
        start = self._index.starts(np.array([packet]))[0]
        return [reason for bad, reason in damaged.items() if start <= bad <= packet]

    def _pictures(
        self, start: int, last: int, wanted: set[int] | None = None
    ) -> Iterator[tuple[int, av.VideoFrame | str]]:
        """Decode the packets `start` to `last`: each number with its picture, or with the fault.

        Non-reference pictures outside `wanted` may be missing; None wants all.
        """
        decoder = self._stream.codec_context
        decoder.flush_buffers()
        # The None at the end drains the frames held back for reordering, without decoding any further.
        for number, packet in chain(self._packets_from(start, last), [(last, None)]):
            needed = wanted is None or number in wanted or not self._index.skippable
            decoder.skip_frame = "DEFAULT" if needed else "NONREF"
            if packet is not None:
                packet.pts = number
                if packet.is_corrupt:
                    yield number, "its data is cut short"
                    continue
            try:
                frames = decoder.decode(packet)
            except FFmpegError as error:
                yield number, error.strerror or "its data is invalid"
                continue
            for frame in frames:
                if frame.pts is None or not start <= frame.pts <= last:
                    raise MispredictedError("a frame comes out of the decoder that belongs to no packet")
                yield frame.pts, "its data is damaged" if frame.is_corrupt else frame

    def _packets_from(self, start: int, last: int) -> Iterator[tuple[int, av.Packet]]:
        """The packets `start` to `last` with their numbers, read on to or sought."""
        if not self._position <= start <= self._position + SEEK_PACKETS:
            self._seek(start)
        for packet in self._packets:
            number, self._position = self._position, self._position + 1
            if number >= start:
                yield number, packet
            if number >= last:
                return

    def _seek(self, packet: int) -> None:
        """Place `_packets` at `packet`, a keyframe of the index, or before it."""
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
        """Decode the whole file, without converting, for the packets its frames really come from."""
        self._index = replace(
            self._index, keys=self._index.keys[:1], stamps=self._index.stamps[:1], skippable=False
        )
        pictures = self._pictures(0, len(self._index.rank) - 1)
        index = packet_index.learnt_index(self._index, pictures)
        if not len(index.order):
            raise VideoError(f"{self.path}: not one frame decodes")
        if len(np.unique(index.order)) < len(index.order):
            raise VideoError(f"{self.path}: has packets of several frames each; re-encode it")
        return self._remember(index)

    def _rgb(self, frame: av.VideoFrame) -> np.ndarray:
        """The upright RGB pixels of `frame`, uint8 (H, W, 3); a view into memory of the decoder's."""
        plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
        pixels = rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        turns = round(frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def first_at(seconds: float, fps: float, length: int) -> int:
    """`index_at` of a video of `length` frames at a constant rate."""
    return length if math.isinf(seconds) else min(math.ceil((seconds - EARLY_SECONDS) * fps), length)


def collect(
    decoded: Iterable[tuple[int, np.ndarray]],
    indices: np.ndarray,
    box: Box | None,
    size: Size | None,
    antialias: bool,
) -> np.ndarray:
    """Cut and resize each decoded frame as it comes and put it wherever `indices` asks for it.

    Args:
        decoded: every distinct index with its uint8 (H, W, 3) frame, in any order.
        indices: int (n,).
        box, size, antialias: see `crop_and_resize`.

    Returns:
        uint8 (n, h, w, 3).
    """
    if not len(indices):
        raise ValueError("no frame was asked for")
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

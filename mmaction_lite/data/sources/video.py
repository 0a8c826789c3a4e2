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
always decode from its beginning. If another number of frames decodes than the packets promise, reading
frames is an error, because indices drawn for one length mean other frames in the other.

All frames have the size of frame 0. Frames of another size, which joined files have, are resized to it.
"""

import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.error import FFmpegError

from mmaction_lite.data.sources import index_cache, packets
from mmaction_lite.data.sources.container import Opened, demux, open_stream
from mmaction_lite.data.sources.faults import (
    MispredictedError,
    StaleIndexError,
    UnknownSizeError,
    reading_video,
)
from mmaction_lite.data.sources.orientation import UprightPixels, upright_size
from mmaction_lite.data.sources.packets import EARLY_SECONDS, NO_TIME, PacketIndex, first_at, mark
from mmaction_lite.data.sources.resample import Box, Interpolation, Size, check_box, collect, crop_and_resize
from mmaction_lite.errors import VideoError, printable

T = TypeVar("T")

# Demuxing this many packets without decoding them takes about as long as a seek.
SEEK_PACKETS = 8
# Of files that state no frame rate; `walk` needs times.
DEFAULT_FPS = 25.0


class Video:
    """A video file opened for frame-accurate reading; close it, or use it in a `with` statement.

    Reads the stream that FFmpeg selects as the best video stream. Frames are rotated and mirrored upright as
    the file's metadata specifies, and have the size of frame 0. Do not share a `Video` between threads.
    Unpickling it opens its file again.

    Args:
        path: a local file.
        data: the file's bytes, if they are in memory already; `path` is then used in messages only.

    Raises:
        VideoError: the file is missing, is not a video, is damaged, or has no video stream. All methods raise
            this error, and no other, for any problem of the file.
    """

    def __init__(self, path: str | PathLike[str], data: bytes | None = None) -> None:
        self.path = str(path)
        self.name = printable(self.path)  # for messages
        self._data = data
        self._upright = UprightPixels(self.name)
        self._given_size: Size | None = None  # what `size` returned: boxes are planned in it
        self._assumed_size: Size | None = None
        with self._reading():
            self._opened = open_stream(self.path, data)
            try:
                decoder = self._opened.stream.codec_context
                self._header_size = decoder.height, decoder.width
                self._packets = demux(self._opened.container, self._opened.stream)
                self._position = 0  # number of the next packet of `_packets`
                self._key = self._make_key(path)
                self._index = self._load_index() or self._make_index()
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
        self._opened.close()

    def reopen(self) -> Opened:
        """Open the file again, for its other streams and for properties of its container."""
        return open_stream(self.path, self._data)

    def __len__(self) -> int:
        """Number of frames that decode; headers may state another number, and edit lists hide some frames."""
        return len(self._index.order)

    def index_at(self, seconds: float) -> int:
        """Return the first frame presented `seconds` after frame 0 or later; the length if there is none.

        Raises:
            VideoError: the file does not state a frame rate.
        """
        times = self.times()
        if times is None:
            if math.isnan(self.fps):
                raise VideoError(f"{self.name}: states no frame rate; give segments in frames, not seconds")
            return first_at(seconds, self.fps, len(self))
        return min(int(np.searchsorted(times, seconds - EARLY_SECONDS)), len(self))

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return self._opened.stream.codec_context.codec.canonical_name

    @property
    def note(self) -> str:
        """What is unusual about a readable file; empty if nothing is."""
        if len(self) < self._index.promised:
            return f"lists {self._index.promised} frames, but contains only the first {len(self)}"
        return ""

    @property
    def fps(self) -> float:
        """Average frames per second of the file; NaN if unknown."""
        return self._index.fps

    @property
    def size(self) -> Size:
        """(height, width) of frame 0, upright; all frames have this size.

        Raises:
            VideoError: frame 0 does not decode.
        """
        if self._given_size is None:
            with self._reading():
                if self._index.size is None:
                    self._retry(self._measure)
            self._given_size = self._index.size
        assert self._given_size is not None
        return self._given_size

    def frames(
        self,
        indices: Iterable[int],
        box: Box | None = None,
        size: Size | None = None,
        antialias: bool = True,
        interpolation: Interpolation = "bilinear",
    ) -> np.ndarray:
        """Decode exactly the requested frames. Memory holds the result and one whole frame.

        Args:
            indices: frame numbers in [0, len), at least one, in any order; repeats are allowed.
            box: (top, left, height, width) of the crop in a frame of `Video.size`; None for the whole frame.
            size: (height, width) to resize to; None keeps the size of the box.
            antialias, interpolation: see `crop_and_resize`.

        Returns:
            uint8 (n, height, width, 3) RGB, in the order of `indices`.

        Raises:
            IndexError: an index is outside [0, len).
            ValueError: no index is given, the box is outside the frame, or `size` is not positive.
            VideoError: a frame does not decode, lies in the missing part of a truncated file, or another
                number of frames decodes than the file lists.
        """
        wanted = np.asarray(list(indices), dtype=np.int64)
        if not len(wanted):
            raise ValueError("indices: no frame requested; expected at least one index")
        if size is not None and min(size) < 1:
            raise ValueError(f"size (height, width) {size}: expected positive numbers")
        self._check(int(wanted.min()))
        self._check(int(wanted.max()))
        if box is not None:
            check_box(box, self.size)
        with self._reading():
            if self._index.fault:
                raise VideoError(f"{self.name}: {self._index.fault}")
            filtered = partial(collect, antialias=antialias, interpolation=interpolation)
            return self._retry(
                lambda: filtered(self._fitted(self._decode(wanted), antialias), wanted, box, size)
            )

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
        with self._reading():
            if self._index.size is None:
                self._measure()
            times = self.times()
            try:
                for index, pixels in self._fitted(self._decode(np.arange(len(self)))):
                    yield index, self._seconds(index) if times is None else float(times[index]), pixels
            except MispredictedError as error:
                self._scan() if isinstance(error, StaleIndexError) else self._learn()
                raise

    def times(self) -> np.ndarray | None:
        """Return the times of all frames in seconds after frame 0, float64 (len,); None at a constant rate.

        The packets of an MP4 file with B-frames are read once for them.
        """
        if self._index.times is not None and not self._index.has_exact_times:
            exact = self.presentation_times()
            times = self._index.times if exact is None else exact
            self._remember(replace(self._index, times=times, has_exact_times=True))
        return self._index.times

    def presentation_times(self) -> np.ndarray | None:
        """Read the times of all frames from their packets; see `packets.presentation_times`."""
        with self._reading(), self.reopen() as opened:
            times = packets.presentation_times(opened)
        return times if times is not None and len(times) == len(self) else None

    def _seconds(self, index: int) -> float:
        return index / (DEFAULT_FPS if math.isnan(self.fps) else self.fps)

    def _reading(self) -> AbstractContextManager[None]:
        """Convert any exception that the file causes to a VideoError; see `errors.reading`."""
        return reading_video(self.name)

    def _retry(self, read: Callable[[], T]) -> T:
        """Return the result of `read`; learn what it needs to know about the file, and call it again."""
        for _ in range(3):
            try:
                return read()
            except (UnknownSizeError, MispredictedError) as error:
                self.learn_from(error)
        raise self._unsteady()

    def learn_from(self, error: VideoError) -> None:
        """Learn what reading the file again requires, after it raised `error`.

        Raises:
            VideoError: reading again cannot succeed.
        """
        if isinstance(error, UnknownSizeError):
            self._measure()
        elif isinstance(error, StaleIndexError):
            self._renew()
        elif self._index.is_learned:
            raise self._unsteady()
        else:
            self._relearn()

    def _unsteady(self) -> VideoError:
        return VideoError(f"{self.name}: the decoder returns other frames each time; re-encode the file")

    def _renew(self) -> None:
        """Make the index again.

        Raises:
            VideoError: the file has another length now.
        """
        listed = len(self)
        self._scan()
        if len(self) != listed:
            raise VideoError(f"{self.name}: its packets are not as listed, or it has changed; open it again")

    def _relearn(self) -> None:
        """Learn the order of frames by decoding the file, after `_decode` found that it was not as listed.

        Raises:
            VideoError: another number of frames decodes. Callers have drawn indices for the listed number.
        """
        listed = len(self)
        index = self._learn()
        if len(index.order) != listed:
            fault = (
                f"lists {listed} frames, but {len(index.order)} decode; "
                "re-encode the file, for example with mmaction-lite data prepare"
            )
            self._remember(replace(index, fault=fault))
            raise VideoError(f"{self.name}: {fault}")

    def _measure(self) -> None:
        """Decode frame 0 to find the size of all frames."""
        for _, frame in self._decode(np.zeros(1, np.int64)):
            self._remember(replace(self._index, size=upright_size(frame), is_measured=True))

    def _fitted(
        self, decoded: Iterable[tuple[int, av.VideoFrame]], antialias: bool = True
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each index with the upright RGB pixels of its frame, resized to the size of frame 0."""
        for index, frame in decoded:
            pixels = self._upright(frame)
            shape = pixels.shape[:2]
            size = self._given_size or self._index.size
            if size is None and (frame.height, frame.width) == self._header_size:
                # Frame 0 is not needed while all frames are as the header states.
                self._assumed_size = size = self._assumed_size or shape
            if size is None or (shape != size and not self._given_size and not self._index.is_measured):
                raise UnknownSizeError(f"{self.name}: the size of frame 0 is not known")
            if shape != size:
                pixels = crop_and_resize(pixels[None], None, size, antialias=antialias)[0]
            yield index, pixels

    def _check(self, index: int) -> None:
        if 0 <= index < len(self):
            return
        if 0 <= index < self._index.promised:
            raise VideoError(
                f"{self.name}: frame {index} cannot be read: the file lists {self._index.promised} frames, "
                f"but contains only the first {len(self)}; the file may be truncated"
            )
        raise IndexError(f"{self.name}: frame {index} is out of range; expected 0 to {len(self) - 1}")

    def _decode(self, wanted: np.ndarray) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yield each distinct index in `wanted` once, with its frame, in decoding order."""
        distinct = np.unique(wanted)
        for first, after in self._index.unread(distinct):
            following = self._packets_from(first, len(self._index.order) - 1)
            if not self._index.read_run(first, after, following):
                listed = len(self)
                if len(self._scan().order) != listed:
                    raise MispredictedError(f"{self.name}: its packets are not as the file lists them")
                break
        chosen = self._index.order[distinct]
        index_of = dict(zip(chosen.tolist(), distinct.tolist(), strict=True))
        chosen = np.sort(chosen)
        # A later packet may need an earlier start. Each pass begins early enough for all packets that follow.
        starts = np.minimum.accumulate(self._index.decode_starts(chosen)[::-1])[::-1]
        cuts = np.flatnonzero(starts[1:] > chosen[:-1]) + 1
        for part, start in zip(np.split(chosen, cuts), starts[[0, *cuts]].tolist(), strict=True):
            missing = set(part.tolist())
            rank, damaged = -1, {}
            for packet, picture in self._pictures(start, int(part[-1]), missing.copy()):
                if isinstance(picture, str):
                    damaged[packet] = picture
                    continue
                if packet == start > 0 and not picture.key_frame:
                    raise MispredictedError(f"{self.name}: packet {packet} is wrongly marked as a keyframe")
                if self._index.rank[packet] <= rank:
                    raise MispredictedError(f"{self.name}: frames decode in another order than listed")
                rank = self._index.rank[packet]
                if packet in missing and not self._spoiling(packet, damaged):
                    missing.remove(packet)
                    yield index_of[packet], picture
            for packet in sorted(missing):
                if spoiling := self._spoiling(packet, damaged):
                    raise VideoError(f"{self.name}: frame {index_of[packet]} does not decode: {spoiling[0]}")
                raise MispredictedError(f"{self.name}: frame {index_of[packet]} does not decode")

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
        following = self._packets_from(start, last)
        first = next(following)
        decoder = self._opened.stream.codec_context
        decoder.flush_buffers()
        self._upright.forget()
        joins, final = set(self._index.joins.tolist()), len(self._index.rank) - 1
        # The None at the end flushes the frames that the decoder holds back for reordering.
        for number, packet in chain([first], following, [(last, None)]):
            needed = wanted is None or number in wanted or not self._index.skippable
            decoder.skip_frame = "DEFAULT" if needed else "NONREF"
            if packet is not None:
                packet.pts = number
                # An incomplete last packet is decoded: the file is truncated, and there is no frame to spoil.
                if packet.is_corrupt and number not in joins and number < final:
                    yield number, "its data is truncated"
                    continue
            try:
                frames = decoder.decode(packet)
            except FFmpegError as error:
                yield number, error.strerror or "its data is invalid"
                continue
            for frame in frames:
                if frame.pts is None or not start <= frame.pts <= last:
                    raise MispredictedError(f"{self.name}: a decoded frame belongs to no packet")
                is_damaged = frame.is_corrupt and frame.pts < final
                yield frame.pts, "its data is damaged" if is_damaged else frame

    def _packets_from(self, start: int, last: int) -> Iterator[tuple[int, av.Packet]]:
        """Yield packets `start` to `last` with their numbers; demux up to `start`, or seek to it."""
        if self._index.is_learned and self._position > start:
            # After a seek, some demuxers stop where joined files meet, and decoders keep older pictures.
            self._reopen()
        elif not self._position <= start <= self._position + SEEK_PACKETS:
            self._seek(start)
        first = self._position
        marks = self._index.marks[first : last + 1].tolist()
        for packet in self._packets:
            number, self._position = self._position, self._position + 1
            if marks[number - first] != mark(packet.pos, packet.size):
                raise StaleIndexError(f"{self.name}: packet {number} is not as listed")
            if number >= start:
                yield number, packet
            if number >= last:
                return
        raise MispredictedError(f"{self.name}: the file ends before packet {last}, which it lists")

    def _seek(self, packet: int) -> None:
        """Move `_packets` to `packet`, a keyframe of the index, or to a packet before it."""
        key = int(np.searchsorted(self._index.keys, packet))
        container, stream = self._opened.container, self._opened.stream
        for stamp in self._index.stamps[key].tolist():
            if stamp == NO_TIME:
                continue
            try:
                container.seek(stamp, stream=stream)
            except FFmpegError:
                continue
            following = demux(container, stream)
            first = next(following, None)
            if first is None:
                continue
            landed = np.flatnonzero(self._index.marks == mark(first.pos, first.size))
            if len(landed) == 1 and landed[0] <= packet:
                self._packets, self._position = chain((first,), following), int(landed[0])
                return
        self._reopen()

    def _reopen(self) -> None:
        self._opened.close()
        self._opened = open_stream(self.path, self._data)
        self._packets, self._position = demux(self._opened.container, self._opened.stream), 0

    def _make_key(self, path: str | PathLike[str]) -> index_cache.Key:
        if self._data is not None:
            return self.path, zlib.crc32(self._data), len(self._data)
        status = Path(path).stat()
        return str(Path(path).absolute()), status.st_mtime_ns, status.st_size

    def _load_index(self) -> PacketIndex | None:
        index = index_cache.index_cache.get(self._key)
        if index is None and self._data is None and (index := index_cache.load_index(self._key)):
            index_cache.index_cache.put(self._key, index)
        return index

    def _make_index(self) -> PacketIndex:
        listed = packets.listed_index(self._opened)
        return self._remember(listed) if listed else self._scan()

    def _remember(self, index: PacketIndex) -> PacketIndex:
        index_cache.index_cache.put(self._key, index)
        if self._data is None:
            index_cache.store_index(self._key, index)
        self._index = index
        return index

    def _scan(self) -> PacketIndex:
        if self._position:
            self._reopen()
        scanned = packets.scanned_index(self._packets, self._opened)
        if scanned is None:
            raise VideoError(f"{self.name}: the video stream is empty or cannot be read")
        self._index, order_known = scanned
        self._position = len(self._index.rank)
        return self._remember(self._index) if order_known else self._learn()

    def _learn(self) -> PacketIndex:
        """Decode the whole file, without color conversion, to learn the packet of every frame."""
        self._index = replace(self._index, skippable=False, is_learned=True)
        pictures = self._pictures(0, len(self._index.rank) - 1)
        try:
            return self._remember(packets.learned_index(self._index, pictures))
        except ValueError as error:
            raise VideoError(f"{self.name}: {error}") from None

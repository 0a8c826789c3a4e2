"""Packet index of a video file: the packet of each frame.

MP4 files list their packets with decoding times, but without presentation times. Their frame order is read
from the packets of a GOP when a frame of that GOP is first requested. Other files are demuxed once, without
decoding. If the packets do not determine the order, `Video` learns it by decoding the whole file.
"""

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from mmaction_lite.data.sources.resample import Size
from mmaction_lite.errors import VideoError

# Codecs with one frame per packet, unless interlaced; the order of any other codec is learned by decoding.
ONE_FRAME_PER_PACKET = {"ffv1", "gif", "h264", "hevc", "libdav1d", "mjpeg", "mpeg2video", "mpeg4", "vp9"}
PROGRESSIVE = 1  # AVFieldOrder; 0 is unknown
# Codecs in which no picture refers to a non-reference picture. In HEVC, a higher temporal layer may refer to
# one. dav1d reads the setting only when it opens.
SKIPPABLE = {"h264", "mpeg2video", "mpeg4"}
INDEX_CACHE_BYTES = 16 * 2**20
INDEX_KEYFRAME, INDEX_DISCARD = 1, 2  # AVIndexEntry.flags
MPEG4_VOP = b"\x00\x00\x01\xb6"
MPEG4_I, MPEG4_B = 0, 2
MPEG4_EMPTY_BYTES = 19  # a picture of at most this size may be "not coded", and then gives no frame
UPRIGHT = b"".join(value.to_bytes(4) for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))


@dataclass(frozen=True)
class PacketIndex:
    """Packets, frames and times of a file.

    Attributes:
        order: int32 (frames,), packet of each frame in presentation order; -1 if not read yet.
        rank: int32 (packets,), place of each packet's picture in presentation order, including hidden ones.
        keys: int32 (keyframes,), packets at which decoding may begin; the first is 0.
        stamps: for each key, the times to seek to in units of the stream's time base, the most likely first.
        marks: int64 (packets,), `mark` of each packet, which identifies the packet that a seek has reached.
        skippable: whether the decoder may skip non-reference pictures that are not requested.
        fps: average frames per second.
        promised: number of frames that the container lists; in a truncated file, `order` is shorter.
        size: (height, width) of the upright frames; None if unknown.
        times: float64 (frames,), presentation times in seconds after frame 0; None for a constant rate.
    """

    order: np.ndarray
    rank: np.ndarray
    keys: np.ndarray
    stamps: list[tuple[int, ...]]
    marks: np.ndarray
    skippable: bool
    fps: float
    promised: int
    size: Size | None = None
    times: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Approximate memory in bytes; the stamps of a key take 120 bytes."""
        arrays = [self.order, self.rank, self.keys, self.marks]
        arrays += [] if self.times is None else [self.times]
        return sum(array.nbytes for array in arrays) + 120 * len(self.stamps)

    def starts(self, packets: np.ndarray) -> np.ndarray:
        """Return the packet at which decoding must begin for each of `packets`."""
        key = np.searchsorted(self.keys, packets, side="right") - 1
        # A packet presented before its own keyframe (open GOP) also refers to the preceding GOP.
        leading = self.rank[packets] < self.rank[self.keys[key]]
        return self.keys[np.maximum(key - leading, 0)]

    def unread(self, frames: np.ndarray) -> list[tuple[int, int]]:
        """Return the runs of GOPs to read for the order of `frames`: first packet, packet after the last."""
        gops = np.unique(np.searchsorted(self.keys, frames[self.order[frames] < 0], side="right") - 1)
        runs = np.split(gops, np.flatnonzero(np.diff(gops) > 1) + 1) if len(gops) else []
        ends = [*self.keys.tolist(), len(self.order)]
        return [(ends[run[0]], ends[run[-1] + 1]) for run in runs]

    def read_run(self, first: int, after: int, packets: Iterable[tuple[int, av.Packet]]) -> bool:
        """Read the order of a run of GOPs from its packets and a few packets after it.

        The order is certain if the run is closed at both ends: no picture of the run is presented before its
        first keyframe or after the keyframe that follows the run, and no picture after that keyframe is
        presented before it. The decoding time of a packet is a lower bound of its presentation time, so few
        packets after the run suffice.

        Returns:
            Whether the order is certain; if not, the index is unchanged.
        """
        times: list[int] = []
        for number, packet in packets:
            if packet.pts is None or packet.dts is None or packet.is_discard or packet.is_corrupt:
                return False
            if number > after and packet.dts >= times[after - first]:
                break
            times.append(packet.pts)
        inside, behind = times[: after - first], times[after - first :]
        complete = len(inside) == after - first and (after == len(self.order) or behind)
        if not complete or len(set(times)) < len(times) or min(inside) < inside[0]:
            return False
        if behind and (max(inside) > behind[0] or min(behind) < behind[0]):
            return False
        self.order[first:after] = first + np.argsort(inside)
        self.rank[self.order[first:after]] = np.arange(first, after)
        return True


class IndexCache:
    """Packet indexes of the files that this process read last, up to a limit in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._indexes: OrderedDict[tuple, PacketIndex] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple) -> PacketIndex | None:
        """Return the index of `key` and mark it as most recently used; None if it is not in the cache."""
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
            return self._indexes.get(key)

    def put(self, key: tuple, index: PacketIndex) -> None:
        """Store `index`, and evict the least recently used ones until all fit."""
        with self._lock:
            if key in self._indexes:
                self._nbytes -= self._indexes.pop(key).nbytes
            self._indexes[key] = index
            self._nbytes += index.nbytes
            while self._nbytes > self.limit:
                self._nbytes -= self._indexes.popitem(last=False)[1].nbytes


index_cache = IndexCache(INDEX_CACHE_BYTES)


def open_stream(path: str, data: bytes | None = None) -> tuple[InputContainer, VideoStream]:
    """Open a file, or its bytes `data`, and its best video stream with one decoding thread.

    Raises:
        VideoError: the file is missing, cannot be read, is not a video, or has no video stream.
    """
    try:
        if data is None and Path(path).is_dir():
            raise VideoError(f"{path}: is a directory, not a video file")
        if not (Path(path).stat().st_size if data is None else len(data)):
            raise VideoError(f"{path}: the file is empty (0 bytes)")
        container = av.open(path if data is None else io.BytesIO(data), "r")
    except OSError as error:  # includes PyAV's errors of the operating system
        raise unreadable(path, error) from None
    except FFmpegError as error:
        raise VideoError(
            f"{path}: cannot be opened as a video ({error.strerror}); it is not a video or is truncated"
        ) from None
    except ValueError as error:  # the name is not a valid file name
        raise VideoError(f"{path!r}: no such file ({error})") from None
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        container.close()
        raise VideoError(f"{path}: has no video stream")
    # Several decoding threads per worker take 1.6 times the CPU time for the same frames.
    stream.codec_context.thread_count = 1
    return container, stream


def unreadable(path: str, error: OSError) -> VideoError:
    """Return the error for a file that the operating system cannot read.

    A file may be deleted, or its disk may fail, at any moment of a run.
    """
    reason = error.strerror or error
    what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({reason})"
    return VideoError(f"{path}: {what}")


def demux(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Yield the packets of the stream from the container's position on, one picture each."""
    # XviD and DivX store a B-frame in the packet of the preceding frame.
    unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream) if is_mpeg4_avi(stream) else None
    try:
        for packet in container.demux(stream):
            # An empty packet marks the end of the file or, in AVI, a dropped picture.
            if packet.size:
                yield from cast(list[av.Packet], unpack.filter(packet)) if unpack else (packet,)
    except FFmpegError:
        return  # the end of a truncated file; callers that need more packets report it


def listed_index(path: str, stream: VideoStream, data: bytes | None = None) -> PacketIndex | None:
    """Return an index from the packet list of an MP4 file, with its order not read yet.

    Returns:
        The index; None if the file is not an MP4 file with one frame per packet, hides frames, is truncated,
        or contradicts its list.
    """
    count = len(stream.index_entries)
    if "mp4" not in stream.container.format.name or not one_frame_per_packet(stream) or not count:
        return None
    entries = [(entry.pos, entry.size, entry.timestamp, entry.flags) for entry in stream.index_entries]
    positions, sizes, times, flags = np.array(entries).T
    if count != stream.frames or (flags & INDEX_DISCARD).any():
        return None
    begin, end = int(positions.min()), int((positions + sizes).max())
    with Path(path).open("rb") if data is None else io.BytesIO(data) as file:
        boxes = file.read(begin)
        if file.seek(0, 2) < end:
            return None
        file.seek(end)
        boxes += file.read()
    # If all matrices of the movie and its tracks are the identity, the rotation is known without decoding.
    upright = boxes.count(UPRIGHT) == boxes.count(b"mvhd") + boxes.count(b"tkhd") > 0
    keys = np.union1d([0], np.flatnonzero(flags & INDEX_KEYFRAME)).astype(np.int32)
    return PacketIndex(
        order=np.full(count, -1, np.int32),
        rank=np.full(count, -1, np.int32),
        keys=keys,
        # One tick before the next keyframe is decoded, this keyframe is presented and the next is not.
        stamps=[(time,) for time in [*(times[keys[1:]] - 1).tolist(), int(times[-1])]],
        marks=mark(positions, sizes),
        skippable=stream.codec_context.name in SKIPPABLE,
        fps=frame_rate(times, stream),
        promised=count,
        size=(stream.codec_context.height, stream.codec_context.width) if upright else None,
        times=_uneven(_shown(times, stream), stream),
    )


def scanned_index(packets: Iterable[av.Packet], stream: VideoStream) -> tuple[PacketIndex, bool] | None:
    """Return the index of all packets of a file and whether its order is known; None without packets."""
    facts, kinds = [], []
    for packet in packets:
        hidden = packet.is_discard or packet.is_corrupt
        place = -1 if packet.pos is None else packet.pos, packet.size
        facts.append((packet.pts, packet.dts, place, packet.is_keyframe, hidden, packet.is_discard))
        if is_mpeg4_avi(stream):
            kinds.append(mpeg4_picture(packet))
    if not facts:
        return None
    pts, dts, places, keyframe, hidden, discard = zip(*facts, strict=True)
    timed = None not in pts and len(set(pts)) == len(pts)
    guessed = stream.container.format.name == "avi" and stream.codec_context.has_b_frames  # AVI holds no pts
    if is_mpeg4_avi(stream):
        order, keyframe = mpeg4_order(kinds), [kind == MPEG4_I for kind in kinds]
    else:
        order = np.argsort(pts) if timed and one_frame_per_packet(stream) and not guessed else None
    numbers = np.arange(len(facts)) if order is None else order
    shown = numbers[~np.array(hidden)[numbers]].astype(np.int32)
    keys = np.union1d([0], np.flatnonzero(keyframe)).astype(np.int32)
    sorted_pts = np.sort(np.array(pts)[shown]) if timed and not guessed else np.empty(0)
    index = PacketIndex(
        order=shown,
        rank=np.argsort(numbers).astype(np.int32),
        keys=keys,
        # Containers seek by either pts or dts.
        stamps=[tuple(time for time in (pts[key], dts[key]) if time is not None) for key in keys.tolist()],
        marks=mark(*np.array(places).T),
        skippable=stream.codec_context.name in SKIPPABLE,
        fps=frame_rate(sorted_pts, stream),
        times=_uneven(sorted_pts, stream),
        promised=max(len(facts), len(stream.index_entries)) - sum(discard),
    )
    return index, order is not None


def learned_index(index: PacketIndex, pictures: Iterable[tuple[int, av.VideoFrame | str]]) -> PacketIndex:
    """Return `index` with the order in which the decoder returned all `pictures` of the file.

    The packets of such a file are not reliable, so it is always decoded from its start and in full. Pictures
    from the first damaged packet on are left out.
    """
    order, end = [], len(index.rank)
    for packet, picture in pictures:
        if isinstance(picture, str):
            end = min(end, packet)
        elif packet < end:
            order.append(packet)
    rank = np.full(len(index.rank), -1, np.int32)
    rank[order] = np.arange(len(order))
    return replace(
        index,
        order=np.array(order, np.int32),
        rank=rank,
        promised=len(order) if end == len(index.rank) else index.promised,
    )


def one_frame_per_packet(stream: VideoStream) -> bool:
    """Whether each packet is known to contain exactly one frame."""
    decoder = stream.codec_context
    return decoder.name in ONE_FRAME_PER_PACKET and decoder.field_order <= PROGRESSIVE


def is_mpeg4_avi(stream: VideoStream) -> bool:
    """Whether the stream may be XviD or DivX, as in UCF101 and HMDB51: no pts, and packed B-frames."""
    return stream.codec_context.name == "mpeg4" and stream.container.format.name == "avi"


def mark(positions: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return int64 keys that identify packets of one file by position (-1: unknown) and size in bytes."""
    return positions << 24 ^ sizes


def frame_rate(times: np.ndarray, stream: VideoStream) -> float:
    """Return the frame rate of the header, unless the times of the frames differ from it by 1 % or more."""
    header = float(stream.average_rate or stream.guessed_rate or math.nan)
    if len(times) < 2:
        return header
    measured = (len(times) - 1) / float((times[-1] - times[0]) * (stream.time_base or Fraction(1)))
    return header if abs(header - measured) < 0.01 * measured else measured


def _shown(decoded: np.ndarray, stream: VideoStream) -> np.ndarray:
    """Return presentation times, given the sorted decoding times of the packets.

    With reordering by n frames, the packet n places later is decoded when a frame is presented, and the first
    n packets are decoded before any frame is presented. The last n frames have no such packet; their
    intervals are taken to be the average one.
    """
    start = decoded[0] if stream.start_time is None else stream.start_time
    delay = min(int((decoded < start).sum()), len(decoded) - 1)
    step = (decoded[-1] - decoded[0]) / max(1, len(decoded) - 1)
    return np.concatenate([decoded[delay:], decoded[-1] + step * np.arange(1, delay + 1)])


def _uneven(times: np.ndarray, stream: VideoStream) -> np.ndarray | None:
    """Convert sorted `times` in time-base units to seconds after the first; None if evenly spaced."""
    if len(times) < 3:
        return None
    seconds = (times - times[0]) * float(stream.time_base or 1)
    step = seconds[-1] / (len(seconds) - 1)
    return None if np.abs(seconds - step * np.arange(len(seconds))).max() < 0.5 * step else seconds


def mpeg4_picture(packet: av.Packet) -> int | None:
    """Return the picture type of an MPEG-4 part 2 packet (I 0, P 1, B 2, S 3); None if uncertain."""
    data = bytes(packet)
    place = data.find(MPEG4_VOP)
    if place < 0 or len(data) <= MPEG4_EMPTY_BYTES:
        return None
    return data[place + 4] >> 6


def mpeg4_order(kinds: list[int | None]) -> np.ndarray | None:
    """Return the packets in presentation order, given their picture types; None if a type is unknown.

    B-frames are presented before the reference picture that precedes them in the file.
    """
    if None in kinds:
        return None
    order: list[int] = []
    held: list[int] = []
    for number, kind in enumerate(kinds):
        if kind == MPEG4_B:
            order.append(number)
        else:
            order += held
            held = [number]
    return np.array(order + held)

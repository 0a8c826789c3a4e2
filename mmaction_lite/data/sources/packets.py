"""Which packet of a video file holds which frame: the index that the planned reader decodes by.

MP4 files list their packets, with decoding times but without the times of presentation: there, the order of
the frames is read GOP by GOP when it is first needed, from the packets of that GOP. Other files are read
through once, without decoding. Where packets do not tell the order either, `Video` learns it by decoding all.
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

# A packet of these is one frame (interlaced ones apart); the order of any other codec is learnt by decoding.
ONE_FRAME_PER_PACKET = {"ffv1", "gif", "h264", "hevc", "libdav1d", "mjpeg", "mpeg2video", "mpeg4", "vp9"}
PROGRESSIVE = 1  # AVFieldOrder; 0 is unknown
# Nothing refers to a non-reference picture of these. In HEVC a higher temporal layer may, and dav1d reads the
# setting only when it opens.
SKIPPABLE = {"h264", "mpeg2video", "mpeg4"}
INDEX_CACHE_BYTES = 16 * 2**20
INDEX_KEYFRAME, INDEX_DISCARD = 1, 2  # AVIndexEntry.flags
MPEG4_VOP = b"\x00\x00\x01\xb6"
MPEG4_I, MPEG4_B = 0, 2
MPEG4_EMPTY_BYTES = 19  # a picture no larger may say "nothing coded", and then gives no frame
UPRIGHT = b"".join(value.to_bytes(4) for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))


@dataclass(frozen=True)
class PacketIndex:
    """Where the frames of a file are.

    Attributes:
        order: int32 (frames,), the packet of each frame in order of presentation; -1 where not read yet.
        rank: int32 (packets,), place of each packet's picture in presentation, hidden pictures included.
        keys: int32, the packets at which decoding may begin; the first is 0.
        stamps: for every key the times to seek to, the likelier to hit first.
        marks: int64 (packets,), `mark` of each packet, to know where in the file a seek has landed.
        skippable: whether unwanted non-reference pictures need not be decoded.
        fps: frames per second, on average.
        promised: frames that the container lists: more than `order` in a truncated file.
        size: (height, width) upright, where known.
        times: float64 (frames,), seconds from the first frame's to each frame's showing, if the rate varies.
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
        """Roughly; the stamps of a key take 120 bytes."""
        arrays = [self.order, self.rank, self.keys, self.marks]
        arrays += [] if self.times is None else [self.times]
        return sum(array.nbytes for array in arrays) + 120 * len(self.stamps)

    def starts(self, packets: np.ndarray) -> np.ndarray:
        """The packet at which decoding has to begin to get the frame of each of `packets`."""
        key = np.searchsorted(self.keys, packets, side="right") - 1
        # Shown before the keyframe that precedes it in the file (open GOP): refers to the GOP before as well.
        leading = self.rank[packets] < self.rank[self.keys[key]]
        return self.keys[np.maximum(key - leading, 0)]

    def unread(self, frames: np.ndarray) -> list[tuple[int, int]]:
        """The runs of GOPs whose order is still to be read to find `frames`: first packet, packet behind."""
        gops = np.unique(np.searchsorted(self.keys, frames[self.order[frames] < 0], side="right") - 1)
        runs = np.split(gops, np.flatnonzero(np.diff(gops) > 1) + 1) if len(gops) else []
        ends = [*self.keys.tolist(), len(self.order)]
        return [(ends[run[0]], ends[run[-1] + 1]) for run in runs]

    def read_run(self, first: int, after: int, packets: Iterable[tuple[int, av.Packet]]) -> bool:
        """Take the order of a run of GOPs from its packets and the few behind it; False if that is no proof.

        It is one if the run is closed at both ends: nothing in it is shown before its first keyframe or after
        the one behind it, and nothing that follows the latter is shown before it. A packet's decoding time
        is a lower bound of its time of presentation, so reading behind the run can stop.
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
    """The packet indexes of the files this process read last, limited in bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._indexes: OrderedDict[tuple, PacketIndex] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def get(self, key: tuple) -> PacketIndex | None:
        """The index of `key`, now the most recently used, or None."""
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
            return self._indexes.get(key)

    def put(self, key: tuple, index: PacketIndex) -> None:
        """Keep `index` and drop those not used for longest until all fit."""
        with self._lock:
            if key in self._indexes:
                self._nbytes -= self._indexes.pop(key).nbytes
            self._indexes[key] = index
            self._nbytes += index.nbytes
            while self._nbytes > self.limit:
                self._nbytes -= self._indexes.popitem(last=False)[1].nbytes


index_cache = IndexCache(INDEX_CACHE_BYTES)


def open_stream(path: str, data: bytes | None = None) -> tuple[InputContainer, VideoStream]:
    """Open `path`, or the file whose bytes are `data`, and its best video stream, with one decoding thread.

    Raises:
        VideoError: it is no video.
    """
    try:
        if data is None and Path(path).is_dir():
            raise VideoError(f"{path}: is a directory, not a video file")
        if not (Path(path).stat().st_size if data is None else len(data)):
            raise VideoError(f"{path}: the file is empty (0 bytes)")
        container = av.open(path if data is None else io.BytesIO(data), "r")
    except OSError as error:  # PyAV's are of this kind, too, where the system refuses
        raise unreadable(path, error) from None
    except FFmpegError as error:
        raise VideoError(
            f"{path}: cannot be opened as a video, it is none or is cut short ({error.strerror})"
        ) from None
    except ValueError as error:  # the name itself is none
        raise VideoError(f"{path!r}: no such file ({error})") from None
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        container.close()
        raise VideoError(f"{path}: has no video stream")
    # Several threads per worker cost more than they bring: 1.6 times the CPU time for the same frames.
    stream.codec_context.thread_count = 1
    return container, stream


def unreadable(path: str, error: OSError) -> VideoError:
    """For a file that the system does not give; one may vanish, or its disk fail, at any moment of a run."""
    reason = error.strerror or error
    what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({reason})"
    return VideoError(f"{path}: {what}")


def demux(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """The packets of the stream from where the container stands, one picture each."""
    # XviD and DivX pack a B-frame into the packet of the frame before it.
    unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream) if is_mpeg4_avi(stream) else None
    try:
        for packet in container.demux(stream):
            # An empty packet marks the end of the file, or in AVI a picture left out.
            if packet.size:
                yield from cast(list[av.Packet], unpack.filter(packet)) if unpack else (packet,)
    except FFmpegError:
        return  # as at the end of a truncated file; who needs more packets finds out


def listed_index(path: str, stream: VideoStream, data: bytes | None = None) -> PacketIndex | None:
    """The index that an MP4 file's own list of packets gives, its order still unread; None where in doubt."""
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
    # With every matrix of the movie and its tracks the identity, no frame has to be decoded for its rotation.
    upright = boxes.count(UPRIGHT) == boxes.count(b"mvhd") + boxes.count(b"tkhd") > 0
    keys = np.union1d([0], np.flatnonzero(flags & INDEX_KEYFRAME)).astype(np.int32)
    return PacketIndex(
        order=np.full(count, -1, np.int32),
        rank=np.full(count, -1, np.int32),
        keys=keys,
        # The last time before the next keyframe is decoded: by then this one is shown, and that one is not.
        stamps=[(time,) for time in [*(times[keys[1:]] - 1).tolist(), int(times[-1])]],
        marks=mark(positions, sizes),
        skippable=stream.codec_context.name in SKIPPABLE,
        fps=frame_rate(times, stream),
        promised=count,
        size=(stream.codec_context.height, stream.codec_context.width) if upright else None,
        times=_uneven(_shown(times, stream), stream),
    )


def scanned_index(packets: Iterable[av.Packet], stream: VideoStream) -> tuple[PacketIndex, bool] | None:
    """The index from all packets of a file, and whether its order is known; None if there are no packets."""
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
        # Which of the two a container looks for is its own choice.
        stamps=[tuple(time for time in (pts[key], dts[key]) if time is not None) for key in keys.tolist()],
        marks=mark(*np.array(places).T),
        skippable=stream.codec_context.name in SKIPPABLE,
        fps=frame_rate(sorted_pts, stream),
        times=_uneven(sorted_pts, stream),
        promised=max(len(facts), len(stream.index_entries)) - sum(discard),
    )
    return index, order is not None


def learnt_index(index: PacketIndex, pictures: Iterable[tuple[int, av.VideoFrame | str]]) -> PacketIndex:
    """`index` with the order in which all `pictures` (see `Video`) of the file really came.

    From then on it is read from its start and nothing is left out: its packets cannot be trusted. Pictures
    from the first damaged packet on do not count.
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
    """Whether each packet is known to give one frame."""
    decoder = stream.codec_context
    return decoder.name in ONE_FRAME_PER_PACKET and decoder.field_order <= PROGRESSIVE


def is_mpeg4_avi(stream: VideoStream) -> bool:
    """Whether the stream may be XviD or DivX, as in UCF101 and HMDB51: without times, pictures packed."""
    return stream.codec_context.name == "mpeg4" and stream.container.format.name == "avi"


def mark(positions: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """int64: what tells packets of one file apart, their places (-1: unknown) and sizes in bytes."""
    return positions << 24 ^ sizes


def frame_rate(times: np.ndarray, stream: VideoStream) -> float:
    """The header's frames per second, unless the frames' own times differ by more than rounding does."""
    header = float(stream.average_rate or stream.guessed_rate or math.nan)
    if len(times) < 2:
        return header
    measured = (len(times) - 1) / float((times[-1] - times[0]) * (stream.time_base or Fraction(1)))
    return header if abs(header - measured) < 0.01 * measured else measured


def _shown(decoded: np.ndarray, stream: VideoStream) -> np.ndarray:
    """The times at which frames are shown, from the sorted times at which their packets are decoded.

    An encoder that reorders lets each frame be decoded when the one so many places before it is shown, and
    the first ones before any is; of the last frames, which no packet follows, the distances are taken to be
    the average one.
    """
    start = decoded[0] if stream.start_time is None else stream.start_time
    delay = min(int((decoded < start).sum()), len(decoded) - 1)
    step = (decoded[-1] - decoded[0]) / max(1, len(decoded) - 1)
    return np.concatenate([decoded[delay:], decoded[-1] + step * np.arange(1, delay + 1)])


def _uneven(times: np.ndarray, stream: VideoStream) -> np.ndarray | None:
    """Seconds from the first of the sorted `times` (in time base) on; None where they are evenly spaced."""
    if len(times) < 3:
        return None
    seconds = (times - times[0]) * float(stream.time_base or 1)
    step = seconds[-1] / (len(seconds) - 1)
    return None if np.abs(seconds - step * np.arange(len(seconds))).max() < 0.5 * step else seconds


def mpeg4_picture(packet: av.Packet) -> int | None:
    """The type of the picture that an MPEG-4 part 2 packet holds (I 0, P 1, B 2, S 3), None when in doubt."""
    data = bytes(packet)
    place = data.find(MPEG4_VOP)
    if place < 0 or len(data) <= MPEG4_EMPTY_BYTES:
        return None
    return data[place + 4] >> 6


def mpeg4_order(kinds: list[int | None]) -> np.ndarray | None:
    """Packets in order of presentation from their picture types: a B before the reference it follows."""
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

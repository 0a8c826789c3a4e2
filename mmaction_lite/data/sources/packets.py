"""Packet index of a video file: the packet of each frame.

MP4 files list their packets with decoding times, but without presentation times. Their frame order is read
from the packets of a GOP when a frame of that GOP is first requested. Other files are demuxed once, without
decoding. If the packets do not determine the order, `Video` learns it by decoding the whole file.
"""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream

from mmaction_lite.data.sources.container import Opened, demux, is_mpeg4_avi
from mmaction_lite.data.sources.orientation import may_differ_from_header, upright_size
from mmaction_lite.data.sources.resample import Size

# Codecs with one frame per packet, unless interlaced; the order of any other codec is learned by decoding.
ONE_FRAME_PER_PACKET = {"ffv1", "gif", "h264", "hevc", "libdav1d", "mjpeg", "mpeg2video", "mpeg4", "vp9"}
PROGRESSIVE = 1  # AVFieldOrder; 0 is unknown
# Codecs in which no picture refers to a non-reference picture. In HEVC, a higher temporal layer may refer to
# one. dav1d reads the setting only when it opens.
SKIPPABLE = {"h264", "mpeg2video", "mpeg4"}
INDEX_KEYFRAME, INDEX_DISCARD = 1, 2  # AVIndexEntry.flags
MPEG4_VOP = b"\x00\x00\x01\xb6"
MPEG4_I, MPEG4_B = 0, 2
MPEG4_EMPTY_BYTES = 19  # a picture of at most this size may be "not coded", and then gives no frame
UPRIGHT = b"".join(value.to_bytes(4) for value in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
MAX_BOX_BYTES = 2**26  # outside of the video data of an MP4 file; more may be another stream or padding
JOIN_PACKETS = 3
NO_TIME = -(2**63)  # in place of a missing time, as in FFmpeg
# Decorates functions that compute with numbers of a header, which may be damaged. Generators must not use it:
# numpy keeps this state in a context variable, and Python 3.11 crashes if it collects a generator that was
# suspended with such a variable set while other code sets it.
any_number = np.errstate(all="ignore")
EARLY_SECONDS = 5e-4  # tolerance for times with few digits: a frame up to this much earlier still matches


@dataclass(frozen=True)
class PacketIndex:
    """Packets, frames and times of a file.

    Attributes:
        order: int32 (frames,), packet of each frame in presentation order; -1 if not read yet.
        rank: int32 (packets,), place of each packet's picture in presentation order, including hidden ones.
        keys: int32 (keyframes,), packets at which decoding may begin; the first is 0.
        stamps: int64 (keyframes, 2), the times to seek to in units of the stream's time base, the most likely
            first; `NO_TIME` if missing.
        marks: int64 (packets,), `mark` of each packet, which identifies the packet that a seek has reached.
        skippable: whether the decoder may skip non-reference pictures that are not requested.
        fps: average frames per second.
        promised: number of frames that the container lists; in a truncated file, `order` is shorter.
        size: (height, width) of frame 0, upright; None if unknown.
        times: float64 (frames,), presentation times in seconds after frame 0; None for a constant rate.
        has_exact_times: whether `times` are not an estimate; see `presentation_times`.
        is_measured: whether `size` is the size of the decoded frame 0, not that of the container's header.
        is_learned: whether the order was learned by decoding the file; it is then always decoded from its
            beginning.
        fault: why no frame can be read although the file was decoded; empty if frames can be read.
        joins: int32 (n,), complete packets that the demuxer calls damaged, because the file is two files
            joined together and the second one begins after them.
    """

    order: np.ndarray
    rank: np.ndarray
    keys: np.ndarray
    stamps: np.ndarray
    marks: np.ndarray
    skippable: bool
    fps: float
    promised: int
    size: Size | None = None
    times: np.ndarray | None = None
    has_exact_times: bool = False
    is_measured: bool = False
    is_learned: bool = False
    fault: str = ""
    joins: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays in bytes."""
        arrays = [self.order, self.rank, self.keys, self.stamps, self.marks, self.joins]
        return sum(array.nbytes for array in arrays) + (0 if self.times is None else self.times.nbytes)

    def decode_starts(self, packets: np.ndarray) -> np.ndarray:
        """Return the packet at which this file is decoded from for each of `packets`."""
        return np.zeros(len(packets), np.int32) if self.is_learned else self.starts(packets)

    def starts(self, packets: np.ndarray) -> np.ndarray:
        """Return the keyframe from which on each of `packets` can be decoded."""
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
        numbers = first + np.argsort(inside)
        # Threads that read the same file share the index. They use the ranks of frames whose order is known.
        self.rank[numbers] = np.arange(first, after)
        self.order[first:after] = numbers
        return True


@any_number
def listed_index(opened: Opened) -> PacketIndex | None:
    """Return an index from the packet list of an MP4 file, with its order not read yet.

    Returns:
        The index; None if the file is not an MP4 file with one frame per packet, hides frames, is truncated,
        does not begin with a keyframe, or contradicts its list.
    """
    stream = opened.stream
    count = len(stream.index_entries)
    if "mp4" not in stream.container.format.name or not one_frame_per_packet(stream) or not count:
        return None
    if count != stream.frames or count > opened.size_bytes:
        return None
    entries = [(entry.pos, entry.size, entry.timestamp, entry.flags) for entry in stream.index_entries]
    positions, sizes, times, flags = np.array(entries).T
    if (flags & INDEX_DISCARD).any() or not flags[0] & INDEX_KEYFRAME:
        return None
    begin, end = int(positions.min()), int((positions + sizes).max())
    if begin < 0 or end > opened.size_bytes:
        return None
    around = begin + opened.size_bytes - end
    boxes = opened.read(0, begin) + opened.read(end, around - begin) if around <= MAX_BOX_BYTES else b""
    # If all matrices of the movie and its tracks are the identity, the rotation is known without decoding.
    upright = boxes.count(UPRIGHT) == boxes.count(b"mvhd") + boxes.count(b"tkhd") > 0
    decoder = stream.codec_context
    first = opened.read(int(positions[0]), int(sizes[0])) if upright else b""
    known = upright and not may_differ_from_header(decoder.name, decoder.extradata or b"", first)
    keys = np.union1d([0], np.flatnonzero(flags & INDEX_KEYFRAME)).astype(np.int32)
    # One tick before the next keyframe is decoded, this keyframe is presented and the next is not.
    stamps = np.concatenate([times[keys[1:]] - 1, times[-1:]])
    shown, has_exact_times = _shown(times, stream)
    return PacketIndex(
        order=np.full(count, -1, np.int32),
        rank=np.full(count, -1, np.int32),
        keys=keys,
        stamps=np.stack([stamps, np.full(len(stamps), NO_TIME)], axis=1),
        marks=mark(positions, sizes),
        skippable=decoder.name in SKIPPABLE,
        fps=frame_rate(times, stream),
        promised=count,
        size=(decoder.height, decoder.width) if known else None,
        times=_uneven(shown, stream),
        has_exact_times=has_exact_times,
    )


@any_number
def scanned_index(packets: Iterable[av.Packet], opened: Opened) -> tuple[PacketIndex, bool] | None:
    """Return the index of all packets of a file and whether its order is known; None without packets."""
    stream, most = opened.stream, opened.size_bytes
    is_mpeg4 = is_mpeg4_avi(stream)
    facts, kinds = [], []
    for packet in packets:
        pts, dts, position = packet.pts, packet.dts, packet.pos
        pts, dts = NO_TIME if pts is None else pts, NO_TIME if dts is None else dts
        flags = packet.is_keyframe, packet.is_corrupt, packet.is_discard
        facts.append((pts, dts, -1 if position is None else position, packet.size, *flags))
        if is_mpeg4:
            kinds.append(mpeg4_picture(packet))
        if len(facts) > most:
            return None  # a damaged list that repeats the same bytes
    if not facts:
        return None
    pts, dts, positions, sizes, *flags = np.array(facts, np.int64).T
    keyframe, corrupt, discard = (flag.astype(bool) for flag in flags)
    joins = _joins(dts, keyframe, corrupt)
    corrupt[joins] = False
    guessed = stream.container.format.name == "avi" and bool(
        stream.codec_context.has_b_frames
    )  # holds no pts
    timed = bool((pts != NO_TIME).all()) and len(np.unique(pts)) == len(pts) and not guessed
    timed = timed and _follows_keyframes(pts, dts, keyframe, is_edited=bool(discard.any()))
    if is_mpeg4:
        order, keyframe = mpeg4_order(kinds), np.array([kind == MPEG4_I for kind in kinds])
    else:
        order = np.argsort(pts) if timed and one_frame_per_packet(stream) else None
    if corrupt.any() or not keyframe[0]:
        order = None
    numbers = np.arange(len(facts)) if order is None else order
    shown = numbers[~discard[numbers]].astype(np.int32)
    keys = np.union1d([0], np.flatnonzero(keyframe)).astype(np.int32)
    sorted_pts = np.sort(pts[shown]) if timed else np.empty(0)
    index = PacketIndex(
        order=shown,
        rank=np.argsort(numbers).astype(np.int32),
        keys=keys,
        # Containers seek by either pts or dts.
        stamps=np.stack([pts[keys], dts[keys]], axis=1),
        marks=mark(positions, sizes),
        skippable=stream.codec_context.name in SKIPPABLE,
        fps=frame_rate(sorted_pts, stream),
        times=_uneven(sorted_pts, stream),
        has_exact_times=True,
        promised=max(len(facts), len(stream.index_entries)) - int(discard.sum()),
        joins=joins,
    )
    return index, order is not None


def _joins(dts: np.ndarray, keyframe: np.ndarray, corrupt: np.ndarray) -> np.ndarray:
    """Return the packets before the joins of files, int32: a keyframe with an earlier time follows them.

    In a transport stream, the demuxer calls one of the last packets of a file damaged because the packet
    counter starts again.
    """
    joins = 1 + np.flatnonzero(keyframe[1:] & (dts[1:] < dts[:-1]) & (dts[1:] != NO_TIME))
    before = np.zeros(len(dts) + JOIN_PACKETS, bool)
    for distance in range(1, JOIN_PACKETS + 1):
        before[joins - distance] = True  # a negative place is after the end of the packets
    return np.flatnonzero(before[: len(dts)] & corrupt).astype(np.int32)


def _follows_keyframes(pts: np.ndarray, dts: np.ndarray, keyframe: np.ndarray, is_edited: bool) -> bool:
    """Whether a decoder returns the pictures of a sound file in the order of their pts.

    No picture is presented before the first keyframe, unless an edit list hides it. All packets before a
    keyframe are presented before those that follow it. Decoding times never decrease. These conditions fail
    if times start again in the middle of a file, or if its beginning was cut off.
    """
    if pts.min() < pts[0] and not is_edited:
        return False
    latest = np.maximum.accumulate(pts)
    earliest = np.minimum.accumulate(pts[::-1])[::-1]
    keys = np.flatnonzero(keyframe)
    keys = keys[keys > 0]
    known = dts[dts != NO_TIME]
    return bool((latest[keys - 1] < earliest[keys]).all() and (known[1:] >= known[:-1]).all())


def learned_index(index: PacketIndex, pictures: Iterable[tuple[int, av.VideoFrame | str]]) -> PacketIndex:
    """Return `index` with the order in which the decoder returned all `pictures` of the file.

    Damaged packets take the place of a frame each, so that reading them is an error. An exception is the last
    packet, which is incomplete in a truncated file.

    Raises:
        ValueError: no frame decodes, or a packet holds several frames.
    """
    order: list[int] = []
    faulty: set[int] = set()
    decoded: dict[int, bool] = {}  # whether the picture of a packet is a keyframe
    size = None
    for packet, picture in pictures:
        if isinstance(picture, str):
            faulty.add(packet)
            if packet not in decoded:
                order.append(packet)
            continue
        size = size or upright_size(picture)
        if packet in decoded:
            raise ValueError("some packets hold several frames; re-encode the file")
        decoded[packet] = picture.key_frame
        if packet not in faulty:
            order.append(packet)
    if not decoded:
        raise ValueError("no frame decodes")
    last = len(index.rank) - 1
    missing = int(last in faulty)
    if missing:
        order.remove(last)
    rank = np.full(len(index.rank), -1, np.int32)
    rank[order] = np.arange(len(order))
    is_key = [decoded.get(key, False) and key not in faulty for key in index.keys[1:].tolist()]
    keys = index.keys[np.concatenate([[True], is_key]).astype(bool)]
    return replace(
        index,
        order=np.array(order, np.int32),
        rank=rank,
        keys=keys,
        stamps=index.stamps[np.isin(index.keys, keys)],
        promised=max(len(order) + missing, index.promised if missing else 0),
        size=size,
        times=index.times if index.times is not None and len(index.times) == len(order) else None,
        skippable=False,
        is_measured=True,
        is_learned=True,
    )


def one_frame_per_packet(stream: VideoStream) -> bool:
    """Whether each packet is known to contain exactly one frame."""
    decoder = stream.codec_context
    return decoder.name in ONE_FRAME_PER_PACKET and decoder.field_order <= PROGRESSIVE


def mark(position: Any, size: Any) -> Any:
    """Return int64 keys that identify packets of one file by position and size in bytes.

    Args:
        position: of the packet in the file; None or -1 if unknown. A number, or an array of many packets.
        size: number of bytes, likewise.
    """
    return (-1 if position is None else position) << 24 ^ size


def frame_rate(times: np.ndarray, stream: VideoStream) -> float:
    """Return the frame rate of the header, unless the times of the frames differ from it by 1 % or more.

    Returns:
        Frames per second, positive and finite; NaN if unknown.
    """
    header = _positive(float(stream.average_rate or stream.guessed_rate or math.nan))
    if len(times) < 2:
        return header
    seconds = (float(times[-1]) - float(times[0])) * float(stream.time_base or Fraction(1))
    measured = _positive((len(times) - 1) / seconds) if seconds else math.nan
    return header if math.isnan(measured) or abs(header - measured) < 0.01 * measured else measured


def _positive(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else math.nan


def _shown(decoded: np.ndarray, stream: VideoStream) -> tuple[np.ndarray, bool]:
    """Return presentation times and whether they are exact, given the sorted decoding times of the packets.

    With reordering by n frames, the packet n places later is decoded when a frame is presented, and the first
    n packets are decoded before any frame is presented. The last n frames have no such packet; their
    intervals are taken to be the average one.
    """
    start = decoded[0] if stream.start_time is None else stream.start_time
    delay = min(int((decoded < start).sum()), len(decoded) - 1)
    step = (decoded[-1] - decoded[0]) / max(1, len(decoded) - 1)
    return np.concatenate([decoded[delay:], decoded[-1] + step * np.arange(1, delay + 1)]), not delay


@any_number
def presentation_times(opened: Opened) -> np.ndarray | None:
    """Read the times of all frames from the packets of a file that was just opened.

    The packet list of an MP4 file holds decoding times, from which `listed_index` estimates the times of
    files with B-frames; those of the last frames are not in it.

    Returns:
        seconds after frame 0, float64 (packets that an edit list does not hide,); None if a packet or the
        stream states no time.
    """
    stamps = array("q")
    for packet in demux(opened.container, opened.stream):
        if packet.pts is None:
            return None
        if not packet.is_discard:
            stamps.append(packet.pts)
    time_base = opened.stream.time_base
    if not stamps or not time_base:
        return None
    sorted_ = np.sort(np.frombuffer(stamps, np.int64))
    return (sorted_ - sorted_[0]) * float(time_base)


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


def first_at(seconds: float, fps: float, length: int) -> int:
    """Return the frame of a video of `length` frames at a constant rate that `Video.index_at` returns."""
    return length if math.isinf(seconds) else min(math.ceil((seconds - EARLY_SECONDS) * fps), length)

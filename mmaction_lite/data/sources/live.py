"""Open cameras and network streams with FFmpeg.

A camera or an address is opened by name, unlike a file (see `container`). Three measures limit what a server
can cause. Only formats of `NETWORK_FORMATS` are accepted. FFmpeg may use the protocols of the address only,
so that a playlist cannot name a local file. And every operation has a time limit, so that a server that
accepts a connection and sends nothing is an error.

Addresses may contain a password. No message contains the user name, the password or the query of an address.
"""

import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.device import enumerate_input_devices
from av.error import ExitError, FFmpegError, ProtocolNotFoundError
from av.video.stream import VideoStream

from mmaction_lite.data.sources.container import MAX_PIXELS, best_stream
from mmaction_lite.errors import UserError, VideoError, describe, printable
from mmaction_lite.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, check_fields

Kind = Literal["device", "network", "file"]

# FFmpeg's names of the accepted formats of network streams, and of the parts of HLS streams.
NETWORK_FORMATS = "rtsp,mpegts,mpjpeg,mjpeg,hls,flv,live_flv,mov,matroska,h264,hevc,ogg,nut,aac,mp3,ac3"
# Accepted schemes of addresses, with the protocols that FFmpeg may use for them.
PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsp,rtsps,rtp,udp,tcp,tls",
    "http": "http,https,tcp,tls,httpproxy,crypto",
    "https": "http,https,tcp,tls,httpproxy,crypto",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tcp,tls",
    "srt": "srt,udp",
    "tcp": "tcp",
    "udp": "udp",
}
# FFmpeg's format of camera devices, by `sys.platform`.
DEVICE_FORMATS = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}
# Schemes of servers that may send faster than real time: recordings, and playlists with long parts.
PACED = ("http", "https", "tcp")
# Formats whose time stamps are those of FFmpeg, not of the camera.
UNTIMED_FORMATS = ("mpjpeg", "mjpeg", "h264", "hevc")


@dataclass(frozen=True, kw_only=True)
class CaptureSettings:
    """How frames of a camera, a stream or a file are captured.

    Args:
        queue_frames: frames that wait for the model at most. A further frame replaces the oldest one.
        timeout: time limit in seconds for opening and for the next frame. Then the connection counts as lost.
        retries: attempts to reconnect after the connection is lost.
        speed: of a file or a recorded stream, relative to real time. 0: as fast as the frames are taken from
            the queue, and no frame is dropped.
        loop: start a file again at its end.
        fps: frame rate. Of a camera, it is requested. Of a stream, it replaces the stated one. None: the
            stated rate, or, of a stream without time stamps, the measured one.
        size: (width, height) in pixels that are requested of a camera; None: the camera's choice.
        transport: of RTSP. "udp" has less delay, and frames are damaged if packets are lost.
        max_gap: longest gap in seconds inside of a part of the stream. A shorter gap is filled with copies of
            the frame before it. Frames before and after a longer one are never in the same window.
    """

    queue_frames: PositiveInt = 64
    timeout: PositiveFloat = 10.0
    retries: NonNegativeInt = 10
    speed: NonNegativeFloat = 1.0
    loop: bool = False
    fps: PositiveFloat | None = None
    size: Annotated[tuple[PositiveInt, PositiveInt], "a tuple (width, height)"] | None = None
    transport: Literal["tcp", "udp"] = "tcp"
    max_gap: NonNegativeFloat = 0.5

    def __post_init__(self):
        check_fields(self)


@dataclass
class Address:
    """Where frames come from.

    Args:
        kind: a camera, an address of the network, or a local file.
        location: what FFmpeg opens. May contain a password: never print it.
        name: the location for messages, without user name, password and query.
    """

    kind: Kind
    location: str = field(repr=False)
    name: str

    @property
    def is_paced(self) -> bool:
        """Whether the source may send faster than real time."""
        return self.kind == "network" and self.location.partition("://")[0].lower() in PACED


def parse_address(source: str | int | Path) -> Address:
    """Return the address of a camera, a network stream or a file.

    Args:
        source: the number of a camera; `/dev/video...`; `video=...` (Windows); an address with one of the
            schemes of `PROTOCOLS`; or the path of a video. "0" is a camera, "./0" a file.

    Raises:
        UserError: the scheme is not accepted, or the address has no host.
    """
    text = str(source)
    if isinstance(source, Path):
        return Address("file", text, printable(text))
    if text.isascii() and text.isdigit():
        return _camera(int(text))
    if text.startswith(("/dev/", "video=")):
        return Address("device", text, printable(text))
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if found is None:
        return Address("file", text, printable(text))
    scheme = found[1].lower()
    if scheme not in PROTOCOLS:
        raise UserError(
            f"{printable(scheme)}://...: live does not read this kind of address; expected a camera, a file "
            f"or an address that begins with {', '.join(f'{name}://' for name in PROTOCOLS)}"
        )
    name = without_credentials(text)
    if scheme not in ("udp", "srt") and not _host(text):
        raise UserError(f"{name}: names no host; expected an address such as {scheme}://192.168.0.2/stream")
    return Address("network", text, name)


def without_credentials(address: str) -> str:
    """Return an address for messages, without user name, password, query and fragment."""
    scheme, _, rest = address.partition("://")
    # A password may contain any character, also "/" if the user has not escaped it.
    place = rest.rpartition("@")[2] if "@" in rest else rest
    kept = re.split(r"[?#;]", place, maxsplit=1)
    return printable(f"{scheme}://{kept[0]}" + ("?..." if len(kept) > 1 else ""))


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # such as an incomplete IPv6 address
        return None


def _camera(number: int) -> Address:
    if sys.platform == "win32":
        found = [device.name for device in enumerate_input_devices("dshow")]
        if number >= len(found):
            raise UserError(f"camera {number}: not found; {_listed(found)}")
        return Address("device", f"video={found[number]}", printable(found[number]))
    location = f"/dev/video{number}" if sys.platform.startswith("linux") else str(number)
    return Address("device", location, location if location.startswith("/") else f"camera {number}")


@dataclass
class OpenStream:
    """An open camera or network stream; use it in a `with` statement.

    Args:
        container: the container.
        stream: the best video stream.
        name: for messages.
    """

    container: InputContainer
    stream: VideoStream
    name: str

    def __enter__(self) -> "OpenStream":
        return self

    def __exit__(self, *exception: object) -> None:
        self.container.close()

    @property
    def is_timed(self) -> bool:
        """Whether the time stamps are those of the source."""
        return self.container.format.name not in UNTIMED_FORMATS

    @property
    def fps(self) -> float | None:
        """Stated frames per second; None if unknown or not plausible."""
        rate = self.stream.guessed_rate or self.stream.average_rate
        return float(rate) if self.is_timed and rate and 0.1 <= rate <= 1000 else None

    @property
    def is_recording(self) -> bool:
        """Whether a server offers a video that has an end; a live stream ends only if it is interrupted."""
        return (self.container.duration or 0) > 0 or self.container.size > 0

    def pictures(self) -> Iterator[av.VideoFrame | None]:
        """Yield the decoded frames; None for each packet that gives none, so that the caller can check time.

        Damaged packets are left out.

        Raises:
            FFmpegError: the connection is lost.
        """
        decoder = self.stream.codec_context
        for packet in self.container.demux():
            if packet.stream is not self.stream and packet.stream_index != self.stream.index:
                yield None
                continue
            try:
                frames = decoder.decode(packet if packet.size else None)
            except FFmpegError:
                frames = []
            yield from (frame for frame in frames if not frame.is_corrupt)
            if not frames:
                yield None


def open_live(address: Address, settings: CaptureSettings) -> OpenStream:
    """Open a camera or a network stream.

    Raises:
        VideoError: it cannot be opened within the time limit, or has no video.
    """
    options = {"max_pixels": str(MAX_PIXELS)}
    if address.kind == "device":
        format = _device_format(address)
        options["format_whitelist"] = format
        if settings.fps is not None:
            options["framerate"] = f"{settings.fps:g}"
        if settings.size is not None:
            options["video_size"] = "{}x{}".format(*settings.size)
    else:
        format = None
        scheme = address.location.partition("://")[0].lower()
        options |= {"format_whitelist": NETWORK_FORMATS, "protocol_whitelist": PROTOCOLS[scheme]}
        if scheme in ("rtsp", "rtsps"):
            options["rtsp_transport"] = settings.transport
    limits = (settings.timeout, settings.timeout)
    try:
        container = av.open(address.location, "r", format=format, options=options, timeout=limits)
    except (FFmpegError, OSError, ValueError, UnicodeError) as error:
        raise VideoError(_reason(address, error, settings)) from None
    container = cast(InputContainer, container)
    try:
        stream = best_stream(address.name, container)
        stream.codec_context.thread_count = 0  # one stream may use all cores
        return OpenStream(container, stream, address.name)
    except BaseException:
        container.close()
        raise


def _device_format(address: Address) -> str:
    format = DEVICE_FORMATS.get(sys.platform, "v4l2")
    if not any(format in names.split(",") for names in av.formats_available):
        raise VideoError(
            f"{address.name}: this build of PyAV cannot read cameras (FFmpeg's format {format} is missing); "
            "install PyAV from conda-forge, or use an RTSP or HTTP address"
        )
    if format == "v4l2":
        try:
            is_device = stat.S_ISCHR(Path(address.location).stat().st_mode)
        except (OSError, ValueError):
            return format  # FFmpeg reports the reason
        if not is_device:
            raise VideoError(f"{address.name}: is not a camera; {_listed(cameras())}")
    return format


def cameras() -> list[str]:
    """Return the names of the cameras of this machine: files on Linux, descriptions elsewhere."""
    if sys.platform.startswith("linux"):
        return sorted(str(path) for path in Path("/dev").glob("video[0-9]*"))
    try:
        devices = enumerate_input_devices(DEVICE_FORMATS.get(sys.platform, "v4l2"))
    except (FFmpegError, OSError, ValueError):
        return []
    return [device.description or device.name for device in devices]


def _listed(found: list[str]) -> str:
    if not found:
        return "this machine has no camera"
    return f"cameras: {printable(', '.join(found), 300)}"


def _reason(address: Address, error: Exception, settings: CaptureSettings) -> str:
    """Return the message for a camera or stream that cannot be opened; FFmpeg's text contains passwords."""
    name = address.name
    if isinstance(error, ExitError):
        return (
            f"{name}: no answer within {settings.timeout:g} s; check the address, or set a longer --timeout"
        )
    if isinstance(error, ProtocolNotFoundError):
        return f"{name}: this build of PyAV cannot read this protocol; use rtsp:// or http://"
    if address.kind == "device":
        advice = {
            FileNotFoundError: f"no such camera; {_listed(cameras())}",
            PermissionError: "permission denied; on Linux, add the user to the group `video`",
        }
        for kind, text in advice.items():
            if isinstance(error, kind):
                return f"{name}: {text}"
        if getattr(error, "errno", None) == 16:  # EBUSY
            return f"{name}: another program uses this camera; close that program"
        advice = "check --size and --fps, or use another camera"
    else:
        advice = "check the address, the user name and the password"
    reason = getattr(error, "strerror", None) or type(error).__name__
    return f"{name}: cannot be opened ({describe(OSError(0, reason))}); {advice}"

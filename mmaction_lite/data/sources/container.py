"""Open the container of a video file so that FFmpeg reads the given bytes and nothing else.

Some formats that FFmpeg reads by default are lists of other files or addresses: playlists (HLS, DASH,
concat), session descriptions (SDP), and names of image sequences. A file from the internet could use them to
read other files of the user or to contact a server. Three measures prevent this. FFmpeg receives an open file
object, never a path, so that a name such as `http://...` or `frame%03d.png` has no meaning. Only formats that
hold all data in one file are accepted. And no protocol is allowed, so that FFmpeg opens nothing further.
"""

import io
import os
from collections.abc import Iterator
from typing import Any, cast

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from mmaction_lite.errors import VideoError, printable
from mmaction_lite.files import open_regular

# FFmpeg's names of the accepted formats: each holds a whole video (or one picture) in a single file.
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,m4v,h261,h263,h264,hevc,vvc,evc,vc1,vc1test,dirac,cavsvideo,avs,"
    "avs2,avs3,av1,obu,ivf,flv,live_flv,kux,asf,asf_o,ogg,rm,mxf,gxf,nut,nuv,nsv,dv,wtv,ty,pva,swf,mjpeg,"
    "mjpeg_2000,smjpeg,yuv4mpegpipe,gif,apng,jpegxl_anim,amv,3gp,lvf,lxf,dhav,ifv,cine,mlv,film_cpk,flic,smk,"
    "bink,vivo,"
    "jpeg_pipe,png_pipe,bmp_pipe,webp_pipe,tiff_pipe,gif_pipe,j2k_pipe,jpegxl_pipe,ppm_pipe,pgm_pipe,pbm_pipe,"
    "pam_pipe,dpx_pipe,exr_pipe"
)
# Frames of 8K video (7680x4320) and of 360-degree video (8192x4096). A damaged header may state far larger
# frames; decoding one such frame takes gigabytes.
MAX_PIXELS = 2**25
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "none", "max_pixels": str(MAX_PIXELS)}


class Opened:
    """A container opened by `open_stream`; close it, or use it in a `with` statement.

    Attributes:
        file: the open file, or its bytes. FFmpeg reads at its position: restore it after a change.
        container: the container.
        stream: the best video stream.
    """

    file: io.FileIO | io.BytesIO
    container: InputContainer
    stream: VideoStream

    def __init__(self, file: io.FileIO | io.BytesIO) -> None:
        self.file = file

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Free the decoder and close the file."""
        if container := getattr(self, "container", None):
            container.close()
        self.file.close()

    @property
    def size_bytes(self) -> int:
        """Size of the file in bytes."""
        if isinstance(self.file, io.BytesIO):
            return self.file.getbuffer().nbytes
        return os.fstat(self.file.fileno()).st_size

    def read(self, first: int, size: int) -> bytes:
        """Return up to `size` bytes of the file from `first` on, without moving the position of FFmpeg."""
        position = self.file.tell()
        try:
            self.file.seek(first)
            return self.file.read(size)
        finally:
            self.file.seek(position)


def open_stream(path: str, data: bytes | None = None) -> Opened:
    """Open a file, or its bytes `data`, and its best video stream with one decoding thread.

    Raises:
        VideoError: the file is missing, cannot be read, is not a video, has no video stream, or has frames of
            more than `MAX_PIXELS` pixels.
    """
    name = printable(path)
    try:
        opened = Opened(io.BytesIO(data) if data is not None else _open_file(path))
    except OSError as error:
        raise unreadable(name, error) from None
    except ValueError as error:  # the name is not a valid file name
        raise VideoError(f"{name}: no such file ({error})") from None
    try:
        if not opened.size_bytes:
            raise VideoError(f"{name}: the file is empty (0 bytes)")
        container = av.open(cast(Any, opened.file), "r", options=OPTIONS)
        opened.container = cast(InputContainer, container)
        opened.stream = best_stream(name, opened.container)
    except BaseException as error:
        opened.close()
        if isinstance(error, FFmpegError):
            problem = f"cannot be opened as a video ({error.strerror}); it is not a video or is truncated"
            raise VideoError(f"{name}: {problem}") from None
        raise
    return opened


def _open_file(path: str) -> io.FileIO:
    """Open a regular file; FFmpeg sees the number of the file, not its name."""
    if os.path.isdir(path):  # noqa: PTH112  Windows cannot open a directory
        raise VideoError(f"{printable(path)}: is a directory, not a video file")
    return open_regular(path, VideoError(f"{printable(path)}: is not a regular file (a pipe or a device)"))


def best_stream(name: str, container: InputContainer) -> VideoStream:
    """Return the best video stream, with one decoding thread.

    Raises:
        VideoError: there is none, its codec is unknown, or its frames have more than `MAX_PIXELS` pixels.
    """
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise VideoError(f"{name}: has no video stream")
    decoder = stream.codec_context
    if decoder is None:  # PyAV's type hints do not know this case
        raise VideoError(f"{name}: the codec of its video stream is unknown or damaged")
    if decoder.width * decoder.height > MAX_PIXELS:
        raise VideoError(
            f"{name}: frames of {decoder.width}x{decoder.height} pixels; expected at most {MAX_PIXELS}. "
            "The file may be damaged; resize larger videos"
        )
    # Several decoding threads per worker take 1.6 times the CPU time for the same frames.
    decoder.thread_count = 1
    decoder.options = {"max_pixels": str(MAX_PIXELS)}
    return stream


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


def is_mpeg4_avi(stream: VideoStream) -> bool:
    """Whether the stream may be XviD or DivX, as in UCF101 and HMDB51: no pts, and packed B-frames."""
    return stream.codec_context.name == "mpeg4" and stream.container.format.name == "avi"

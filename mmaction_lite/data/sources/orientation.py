"""Show frames upright, as the display matrix of a video specifies."""

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from mmaction_lite.data.sources.container import MAX_PIXELS
from mmaction_lite.data.sources.resample import Size
from mmaction_lite.errors import VideoError

# The payload type of the display orientation in supplemental enhancement information (SEI) of H.264 and
# HEVC (ITU-T H.264, D.1; H.265, D.2).
DISPLAY_ORIENTATION = 47
# The types of the units of the bit stream: (SEI, sequence parameter set, largest of a coded picture).
UNITS = {"h264": (6, 7, 5), "hevc": (39, 33, 31)}


def display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """Return the linear part (a, b, c, d) of the frame's display matrix as int32 (4,); None without matrix.

    A pixel at (x, y) is shown at (a x + c y, b x + d y), up to a shift (ISO/IEC 14496-12, 6.2.2).
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(data, np.int32, 5)[[0, 1, 3, 4]]


def upright_size(frame: av.VideoFrame) -> Size:
    """Return (height, width) of the frame after `turn_upright`."""
    matrix = display_matrix(frame)
    if matrix is not None and _is_transposed(matrix):
        return frame.width, frame.height
    return frame.height, frame.width


def turn_upright(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotate and mirror an image.

    The matrix is rounded to the nearest of the eight orientations that consist of quarter turns and
    mirroring. Scaling and shear are ignored.

    Args:
        pixels: (H, W, C).
        matrix: see `display_matrix`.

    Returns:
        A view of shape (H, W, C) or (W, H, C).
    """
    a, b, c, d = matrix.tolist()
    if _is_transposed(matrix):
        pixels, right, down = pixels.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def _is_transposed(matrix: np.ndarray) -> bool:
    a, b, c, d = np.abs(matrix.astype(np.int64)).tolist()
    return b + c > a + d


class UprightPixels:
    """Convert decoded frames of one video to upright RGB pixels.

    Args:
        name: of the video, for messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._reformatter = VideoReformatter()
        # Reading the matrix of a frame takes long. It changes at keyframes only.
        self._matrix: np.ndarray | None = None
        self._turned: int | None = None  # rotation of the frame with this matrix; None: read it again

    def forget(self) -> None:
        """Read the matrix of the next frame, which does not follow the frame before."""
        self._turned = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the pixels, uint8 (H, W, 3), a view into memory that the next call overwrites.

        Raises:
            VideoError: the frame has more than `MAX_PIXELS` pixels.
        """
        if frame.width * frame.height > MAX_PIXELS:
            raise VideoError(
                f"{self.name}: a frame of {frame.width}x{frame.height} pixels; expected at most {MAX_PIXELS}"
            )
        plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
        pixels = rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        if self._turned is None or frame.key_frame or frame.rotation != self._turned:
            self._turned, self._matrix = frame.rotation, display_matrix(frame)
        return pixels if self._matrix is None else np.ascontiguousarray(turn_upright(pixels, self._matrix))


def may_differ_from_header(codec: str, extradata: bytes, packet: bytes) -> bool:
    """Whether the first frame may have another size or orientation than the container's header states.

    The first packet of H.264 and HEVC may hold its own sequence parameter set or a display orientation.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: the codec's data in the header of the container.
        packet: the first packet.

    Returns:
        False only if neither occurs before the first picture; True for other codecs.
    """
    if codec not in UNITS or len(extradata) < 23 or extradata[0] != 1:
        return True
    length_bytes = (extradata[4 if codec == "h264" else 21] & 3) + 1
    sei, parameters, last_picture = UNITS[codec]
    place = 0
    while place + length_bytes < len(packet):
        unit = place + length_bytes
        place = unit + int.from_bytes(packet[place:unit])
        kind = packet[unit] & 31 if codec == "h264" else packet[unit] >> 1 & 63
        if kind == parameters:
            return True
        if kind == sei and _holds_orientation(packet[unit + (1 if codec == "h264" else 2) : place]):
            return True
        if (kind <= last_picture and kind != 0) or (kind == 0 and codec == "hevc"):
            return False
    return True


def _holds_orientation(payloads: bytes) -> bool:
    data = payloads.replace(b"\0\0\3", b"\0\0")  # remove the bytes that prevent start codes
    place = 0
    while place + 2 < len(data):
        values = [0, 0]  # type and size, each a sum of bytes that ends with the first byte below 255
        for number in range(2):
            while place < len(data) and data[place] == 255:
                values[number] += 255
                place += 1
            values[number] += data[place] if place < len(data) else 0
            place += 1
        if values[0] == DISPLAY_ORIENTATION:
            return True
        place += values[1]
    return False

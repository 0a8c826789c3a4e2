"""Write clips whose frames encode their own number, so that a test can identify each frame.

Eight square blocks along the top are the bits of the number, lowest left, bright for 1; below them a square
moves over a gradient, so that frames differ everywhere and the encoder has something to predict.
"""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

HEIGHT, WIDTH = 96, 128


def draw(code: int) -> np.ndarray:
    """uint8 (HEIGHT, WIDTH, 3) RGB frame with number `code` in [0, 256)."""
    height, width = HEIGHT, WIDTH
    ramp = np.linspace(60, 150, height)[:, None] + np.linspace(0, 40, width)
    frame = np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8)
    block = max(2, width // 10)
    for bit in range(8):
        left = block * (bit + 1)
        frame[2 : 2 + block, left : left + block] = 235 if code >> bit & 1 else 20
    top = height // 2 + code * 3 % (height // 4)
    left = code * 5 % (width - height // 4)
    frame[top : top + height // 4, left : left + height // 4] = 230, 60, 40
    return frame


def read(frame: np.ndarray) -> int:
    """Return the number that an upright frame encodes."""
    block = max(2, frame.shape[1] // 10)
    quarter, half = block // 4, max(1, block // 2)
    code = 0
    for bit in range(8):
        left = block * (bit + 1) + quarter
        inside = frame[2 + quarter : 2 + quarter + half, left : left + half]
        code |= int(inside.sum() > 128 * inside.size) << bit
    return code


def write(
    path: Path,
    codes: Iterable[int] = range(60),
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pts: Callable[[int], int] = lambda number: number,
    time_base: Fraction = Fraction(1, 30),
    turned: int = 0,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Encode one frame per code, at `pts(number)` time bases, shown `turned` degrees counterclockwise."""
    with av.open(str(path), "w", container_options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pix_fmt
        stream.codec_context.time_base = time_base
        if turned:
            stream.set_display_rotation(turned)
        for number, code in enumerate(codes):
            frame = av.VideoFrame.from_ndarray(draw(code))
            frame.pts, frame.time_base = pts(number), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(source: Path, path: Path, change: Callable[[int, av.Packet], None]) -> Path:
    """Copy the video packets of `source` with `change(number, packet)` applied to each."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            if packet.size:
                change(number, packet)
                packet.stream = stream
                new.mux(packet)
    return path

"""Frames are shown upright as the display matrix of a file specifies, in all eight orientations."""

from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from mmaction_lite.data.sources.orientation import may_differ_from_header, turn_upright, upright_size
from mmaction_lite.data.sources.resample import crop_and_resize
from mmaction_lite.data.sources.video import Video
from tests import barcode

# By (degrees counterclockwise, mirrored): where players show the pixels of the stored picture. Written by
# hand from the definition in ISO/IEC 14496-12: (x, y) is shown at (a x + c y, b x + d y).
ORIENTATIONS = {
    (0, False): lambda picture: picture,
    (90, False): lambda picture: np.rot90(picture),
    (180, False): lambda picture: picture[::-1, ::-1],
    (270, False): lambda picture: np.rot90(picture, 3),
    (0, True): lambda picture: picture[:, ::-1],
    (90, True): lambda picture: picture.swapaxes(0, 1),
    (180, True): lambda picture: picture[::-1],
    (270, True): lambda picture: picture.swapaxes(0, 1)[::-1, ::-1],
}
MATRICES = {  # a, b, c, d
    (0, False): (1, 0, 0, 1),
    (90, False): (0, -1, 1, 0),
    (180, False): (-1, 0, 0, -1),
    (270, False): (0, 1, -1, 0),
    (0, True): (-1, 0, 0, 1),
    (90, True): (0, 1, 1, 0),
    (180, True): (1, 0, 0, -1),
    (270, True): (0, -1, -1, 0),
}


def write_turned(path: Path, matrix: tuple[int, int, int, int], codec: str = "libx264") -> Path:
    a, b, c, d = (value << 16 for value in matrix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options={"g": "4"})
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = barcode.HEIGHT, barcode.WIDTH, "yuv420p"
        stream.set_display_matrix((a, b, 0, c, d, 0, 0, 0, 1 << 30))
        for number in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(barcode.draw(number))))
        container.mux(stream.encode())
    return path


def stored(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(video=0)])


@pytest.mark.parametrize(("degrees", "mirrored"), list(ORIENTATIONS))
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_eight_orientations_of_video_files(tmp_path: Path, degrees: int, mirrored: bool, suffix: str) -> None:
    path = write_turned(tmp_path / f"turned{suffix}", MATRICES[degrees, mirrored])
    shown = np.stack([ORIENTATIONS[degrees, mirrored](picture) for picture in stored(path)])
    with Video(path) as video:
        assert video.size == shown.shape[1:3]
        assert np.array_equal(video.frames([7, 2, 7]), shown[[7, 2, 7]])
        box = (10, 20, 60, 40)
        for antialias in (True, False):
            expected = crop_and_resize(shown[[3, 8]], box, (30, 50), antialias=antialias)
            assert np.array_equal(video.frames([3, 8], box, (30, 50), antialias), expected)
        walked = [pixels.copy() for _, _, pixels in video.walk()]
    assert np.array_equal(np.stack(walked), shown)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_matrix_of_pyav_turns_counterclockwise(tmp_path: Path, degrees: int) -> None:
    path = barcode.write(tmp_path / "turned.mp4", range(2), turned=degrees)
    with Video(path) as video:
        assert np.array_equal(video.frames([1])[0], np.rot90(stored(path)[1], degrees // 90))


def test_matrices_with_scale_and_shear_are_rounded() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    for matrix, expected in (
        ((2, 0, 0, 3), (0, False)),
        ((-9, 4, 4, 8), (0, True)),
        ((0, 0, 0, 0), (0, False)),
    ):
        shown = turn_upright(picture, np.array(matrix, np.int32))
        assert np.array_equal(shown, ORIENTATIONS[expected](picture))


def test_size_after_turning(tmp_path: Path) -> None:
    path = write_turned(tmp_path / "turned.mp4", MATRICES[90, True])
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert upright_size(frame) == (barcode.WIDTH, barcode.HEIGHT)


def test_an_orientation_in_the_bit_stream_is_applied(tmp_path: Path) -> None:
    """H.264 may state the orientation in the first packet, where the container's header shows nothing."""
    path = barcode.write(tmp_path / "plain.mp4", range(6))
    # Display orientation: not cancelled, no flip, 16 bits of the angle (quarter turn: 0x4000), no extension.
    value = (0b0_0_0 << 16 | 0x4000) << 5 | 0b1_0_1_00
    payload = value.to_bytes(3, "big")
    unit = bytes([6, 47, len(payload)]) + payload + b"\x80"

    def insert(number: int, packet: av.Packet) -> None:
        if number == 0:
            packets.append(len(unit).to_bytes(4, "big") + unit + bytes(packet))

    packets: list[bytes] = []
    turned = tmp_path / "turned.mp4"
    with av.open(str(path)) as old, av.open(str(turned), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size:
                insert(number, packet)
                copy = av.Packet(packets[0] if number == 0 else bytes(packet))
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                new.mux(copy)
    with Video(turned) as video:
        assert video.size == video.frames([0]).shape[1:3] == (barcode.WIDTH, barcode.HEIGHT)
        assert video.frames([0, 5], (0, 0, 90, 90)).shape == (2, 90, 90, 3)


def test_headers_are_trusted_for_sound_h264_only() -> None:
    extradata = bytes([1, 100, 0, 10, 255]) + bytes(30)
    picture = (2).to_bytes(4, "big") + bytes([0x65, 1])
    sei = bytes([6, 5, 1, 0, 128])
    orientation = bytes([6, 47, 1, 0, 128])

    def packet(*units: bytes) -> bytes:
        return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units) + picture

    assert not may_differ_from_header("h264", extradata, packet(sei))
    assert may_differ_from_header("h264", extradata, packet(sei, orientation))
    assert may_differ_from_header("h264", extradata, packet(bytes([0x67, 1, 2])))
    assert may_differ_from_header("h264", b"", packet())
    assert may_differ_from_header("h264", extradata, b"\0\0")
    assert may_differ_from_header("vp9", extradata, packet())

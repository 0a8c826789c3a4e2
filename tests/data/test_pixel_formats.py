"""Videos of any pixel format become 8-bit RGB frames; see `mmaction_lite/data/sources/video.py`."""

from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.data.sources.video import Video
from tests import barcode
from tests.data.test_video import linear

DEEP_FORMATS = ("gray16le", "gray10le", "gray", "rgb48le", "gbrp10le", "rgba64le", "bgra", "ya8")
DEEP_FORMATS += ("yuva420p", "yuva444p16le", "yuv420p10le", "yuv422p12le")


@pytest.mark.parametrize("pix_fmt", DEEP_FORMATS)
def test_formats_of_other_depth_become_8_bits(tmp_path: Path, pix_fmt: str) -> None:
    path = barcode.write(tmp_path / "deep.mkv", [7, 90, 200], codec="ffv1", pix_fmt=pix_fmt)
    drawn = barcode.draw(90).astype(float)
    if "gray" in pix_fmt or pix_fmt == "ya8":
        drawn = (drawn @ [0.299, 0.587, 0.114])[..., None].repeat(3, axis=2)
    with Video(path) as video:
        assert video.size == (barcode.HEIGHT, barcode.WIDTH)
        frames = video.frames([1, 2, 0])
    assert [barcode.read(frame) for frame in frames] == [90, 200, 7]
    assert np.abs(frames[0] - drawn).mean() < 2.5
    assert np.array_equal(frames, np.stack(list(linear(path)))[[1, 2, 0]])


def test_a_pixel_format_that_changes_inside_a_file(tmp_path: Path) -> None:
    parts = [
        barcode.write(tmp_path / f"{n}.ts", range(8 * n, 8 * n + 8), pix_fmt=pix_fmt, options={"g": "4"})
        for n, pix_fmt in enumerate(("yuv420p", "yuv444p", "yuvj420p"))
    ]
    path = tmp_path / "formats.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Video(path) as video:
        frames = video.frames(range(24))
    assert [barcode.read(frame) for frame in frames] == list(range(24))
    assert np.array_equal(frames, np.stack(list(linear(path))))

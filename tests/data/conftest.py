"""Data sets with faults, and clips of many codecs and containers."""

from fractions import Fraction
from pathlib import Path

import pytest

from tests import barcode

GENERATED: dict[str, dict] = {
    "default.mp4": {},
    "keyframes.mp4": {"options": {"g": "10"}},
    "one_keyframe.mp4": {"codes": range(120), "options": {"g": "999", "sc_threshold": "0"}},
    "b_pyramid.mkv": {"options": {"g": "25", "bf": "4", "b-pyramid": "normal"}},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=12:bframes=4:scenecut=0"}},
    "open_gop.ts": {"options": {"x264-params": "open-gop=1:keyint=12:bframes=4:scenecut=0"}},
    "negative_pts.ts": {"pts": lambda n: n - 10, "muxer": {"avoid_negative_ts": "disabled"}},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=2"}},
    "interlaced.mp4": {"options": {"x264-params": "interlaced=1:keyint=20"}},
    "variable_rate.mp4": {"pts": lambda n: 10 * n + 6 * n * n, "time_base": Fraction(1, 1000)},
    "one_frame.mp4": {"codes": range(1)},
    "three_frames.mp4": {"codes": range(3)},
    "fragmented.mp4": {"muxer": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "20"}},
    "live.mkv": {"muxer": {"live": "1"}, "options": {"g": "20"}},
    "transport.ts": {"options": {"g": "20"}},
    "flash.flv": {"options": {"g": "20", "bf": "3"}},
    "no_pts.h264": {"options": {"g": "20", "bf": "3"}},
    "guessed_pts.avi": {"options": {"g": "20", "bf": "3"}},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "motion_jpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "codes": range(20)},
    "hevc_layers.mp4": {
        "codec": "libx265",
        "options": {
            "preset": "ultrafast",
            "x265-params": "keyint=20:bframes=4:temporal-layers=3:log-level=none",
        },
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8", "g": "20"}},
    "vp8_hidden_packets.webm": {
        "codec": "libvpx",
        "options": {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"},
    },
}


@pytest.fixture
def damaged(tiny, tmp_path):
    """`tiny` as lists, with a broken file and one that is in two splits."""
    root = tmp_path / "damaged"
    root.mkdir()
    clips = {split: sorted((tiny / split).rglob("*.mp4")) for split in ("train", "val")}
    (root / "broken.mp4").write_text("nothing")
    rows = [f'"{clip}" {clip.parent.name}\n' for clip in clips["train"]]
    (root / "train.txt").write_text("".join([*rows, "broken.mp4 up\n"]))
    (root / "val.txt").write_text(
        "".join(f'"{c}" {c.parent.name}\n' for c in [*clips["val"], clips["train"][0]])
    )
    return root


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, how in GENERATED.items():
        barcode.write(folder / name, **how)
    return folder

"""Published probes of V-JEPA 2 and 2.1, copied by hand; see `published.py`.

Source: configs/eval and README of facebookresearch/vjepa2.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One published training of a probe on a frozen encoder; see `test_vjepa2.py`.

    Args:
        windows: frames of a window, their interval, and windows of a clip.
        size: side of the views.
        batch: clips on each GPU, and GPUs.
        levels: blocks whose tokens the probe takes; empty: the last one.
    """

    windows: tuple[int, int, int]
    size: int
    epochs: int
    batch: tuple[int, int]
    levels: tuple[int, ...] = ()
    top1: float | None


PROBED: dict[str, Probed] = {
    "vjepa2_large_16x4x2_20e_sthv2_rgb": Probed(
        windows=(16, 4, 2), size=256, epochs=20, batch=(4, 64), top1=73.7
    ),
    "vjepa2_giant_64x2x2_20e_sthv2_rgb": Probed(
        windows=(64, 2, 2), size=384, epochs=20, batch=(4, 64), top1=77.3
    ),
    "vjepa2_large_16x4x8_20e_kinetics400_rgb": Probed(
        windows=(16, 4, 8), size=256, epochs=20, batch=(4, 64), top1=85.0
    ),
    "vjepa2_large_32x2x4_100e_diving48_rgb": Probed(
        windows=(32, 2, 4), size=256, epochs=100, batch=(2, 64), levels=(17, 19, 21, 23), top1=89.0
    ),
    "vjepa2_giant_32x2x4_100e_diving48_rgb": Probed(
        windows=(32, 2, 4), size=384, epochs=100, batch=(2, 64), levels=(24, 29, 34, 39), top1=90.2
    ),
    "vjepa21_base_16x4x2_20e_sthv2_rgb": Probed(
        windows=(16, 4, 2), size=384, epochs=20, batch=(4, 64), top1=None
    ),
    "vjepa21_large_16x4x2_20e_sthv2_rgb": Probed(
        windows=(16, 4, 2), size=384, epochs=20, batch=(4, 64), top1=76.5
    ),
}

"""Published trainings of MViT, copied by hand from PySlowFast: configs, MODEL_ZOO.md and projects/mvitv2."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishedMViT:
    """One published training and its test.

    Args:
        lr: learning rate for 16 clips per step.
        start_lr: learning rate of the first step; the last one has 1e-6.
        clip: frames, and their interval; 0: one frame of each of as many segments.
        test: clips and crops.
    """

    lr: float
    start_lr: float = 1e-6
    epochs: int = 200
    warmup_epochs: int = 30
    drop_path: float
    clip: tuple[int, int]
    test: tuple[int, int] = (5, 1)
    top1: float
    top5: float


MVIT: dict[str, PublishedMViT] = {
    "mvit_v1_base_16x4x1_200e_kinetics400_rgb": PublishedMViT(
        lr=1e-4, drop_path=0.2, clip=(16, 4), top1=78.4, top5=93.5
    ),
    "mvit_v2_small_16x4x1_200e_kinetics400_rgb": PublishedMViT(
        lr=1e-4, drop_path=0.2, clip=(16, 4), top1=81.0, top5=94.6
    ),
    "mvit_v2_base_32x3x1_200e_kinetics400_rgb": PublishedMViT(
        lr=1e-4, drop_path=0.3, clip=(32, 3), top1=82.9, top5=95.7
    ),
    "mvit_v2_small_1x1x16_100e_sthv2_rgb": PublishedMViT(
        lr=0.0025,
        start_lr=1e-4,
        epochs=100,
        warmup_epochs=3,
        drop_path=0.4,
        clip=(16, 0),
        test=(1, 3),
        top1=68.2,
        top5=91.4,
    ),
    "mvit_v2_base_1x1x32_100e_sthv2_rgb": PublishedMViT(
        lr=0.0015,
        start_lr=1e-4,
        epochs=100,
        warmup_epochs=3,
        drop_path=0.4,
        clip=(32, 0),
        test=(1, 3),
        top1=70.5,
        top5=92.7,
    ),
}

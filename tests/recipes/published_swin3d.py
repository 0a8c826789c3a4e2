"""Published hyper-parameters of Video Swin; see `published.py`.

Source: SwinTransformer/Video-Swin-Transformer at db018fb, `configs/recognition/swin` and `README.md`; batch
size: MMAction2 v1.2.0 and the paper.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Swin:
    """One published training of Video Swin and its test; common settings are in `test_swin3d.py`.

    Args:
        lr: learning rate of the classifier.
        window: frames of a window, in tokens.
        is_uniform: whether one frame is taken from each of 32 segments, without flips, with RandAugment,
            erasing and label smoothing (Something-Something); otherwise clips have 32 frames, 2 apart.
    """

    lr: float = 1e-3
    weight_decay: float
    epochs: int = 30
    drop_path: float
    window: int = 8
    is_uniform: bool = False
    top1: float
    top5: float


SWIN: dict[str, Swin] = {
    "swin3d_tiny_32x2x1_30e_kinetics400_rgb": Swin(weight_decay=0.02, drop_path=0.1, top1=78.8, top5=93.6),
    "swin3d_small_32x2x1_30e_kinetics400_rgb": Swin(weight_decay=0.02, drop_path=0.1, top1=80.6, top5=94.5),
    "swin3d_base_32x2x1_30e_kinetics400_rgb": Swin(weight_decay=0.05, drop_path=0.3, top1=80.6, top5=94.6),
    "swin3d_base_in22k_32x2x1_30e_kinetics400_rgb": Swin(
        lr=3e-4, weight_decay=0.05, drop_path=0.2, top1=82.7, top5=95.5
    ),
    "swin3d_base_1x1x32_60e_sthv2_rgb": Swin(
        lr=3e-4,
        weight_decay=0.05,
        epochs=60,
        drop_path=0.4,
        window=16,
        is_uniform=True,
        top1=69.6,
        top5=92.7,
    ),
}

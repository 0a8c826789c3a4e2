"""Published fine-tunings of VideoMAE, copied by hand; see `published.py`.

Sources: VideoMAE at 14ef8d8 and VideoMAEv2 at 29eab1e: `scripts`, `run_class_finetuning.py` and
`MODEL_ZOO.md`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """One published fine-tuning of a transformer and its test; common settings are in `test_videomae.py`.

    Args:
        base_lr: learning rate of the head for 256 clips per step.
        batch: clips on each GPU, and GPUs.
        layer_decay: factor of the learning rate of each block relative to the one above.
        repeats: augmented views of a clip.
        is_uniform: whether one frame is taken from each of 16 segments, without flips (Something-Something);
            otherwise clips have 16 frames, 4 apart.
        test_clips: clips of the test, with three crops each.
    """

    base_lr: float
    epochs: int
    batch: tuple[int, int]
    layer_decay: float = 0.75
    drop_path: float = 0.1
    dropout: float = 0.0
    repeats: int = 2
    is_uniform: bool = False
    test_clips: int
    top1: float | None
    top5: float | None = None


FINE_TUNED: dict[str, FineTuned] = {
    "videomae_small_16x4x1_150e_kinetics400_rgb": FineTuned(
        base_lr=5e-4, epochs=150, batch=(12, 32), test_clips=5, top1=79.0, top5=93.8
    ),
    "videomae_base_16x4x1_75e_kinetics400_rgb": FineTuned(
        base_lr=5e-4, epochs=75, batch=(6, 64), test_clips=5, top1=81.5, top5=95.1
    ),
    "videomae_base_16x4x1_100e_kinetics400_rgb": FineTuned(
        base_lr=1e-3, epochs=100, batch=(8, 64), repeats=1, test_clips=5, top1=80.0, top5=94.4
    ),
    "videomae_base_16x4x1_90e_kinetics400_rgb": FineTuned(
        base_lr=7e-4, epochs=90, batch=(16, 32), test_clips=7, top1=87.1
    ),
    "videomae_large_16x4x1_35e_kinetics400_rgb": FineTuned(
        base_lr=2e-3, epochs=35, batch=(2, 64), test_clips=5, top1=85.2, top5=96.8
    ),
    "videomae_small_1x1x16_40e_sthv2_rgb": FineTuned(
        base_lr=1e-3,
        epochs=40,
        batch=(12, 32),
        layer_decay=0.7,
        is_uniform=True,
        test_clips=2,
        top1=66.8,
        top5=90.3,
    ),
    "videomae_base_1x1x16_50e_sthv2_rgb": FineTuned(
        base_lr=5e-4,
        epochs=50,
        batch=(8, 64),
        repeats=1,
        is_uniform=True,
        test_clips=2,
        top1=69.6,
        top5=92.0,
    ),
    "videomae_base_1x1x16_30e_sthv2_rgb": FineTuned(
        base_lr=5e-4, epochs=30, batch=(6, 64), is_uniform=True, test_clips=2, top1=70.8, top5=92.4
    ),
    "videomae_base_16x4x1_100e_ucf101_rgb": FineTuned(
        base_lr=5e-4,
        epochs=100,
        batch=(16, 8),
        layer_decay=0.7,
        drop_path=0.2,
        dropout=0.5,
        test_clips=5,
        top1=91.3,
        top5=98.5,
    ),
}

"""Published hyper-parameters of UniFormerV2; see `published.py`.

Source: OpenGVLab/UniFormerV2 at 722a434, `run.sh` (which overrides `config.yaml`) and `config.yaml` in `exp`,
and `MODEL_ZOO.md`.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UniFormerV2:
    """One published training and its test; common settings are in `test_uniformerv2.py`.

    Args:
        lr: learning rate for the batch size of all GPUs.
        warmup: epochs.
        is_local: whether the network has the form for Something-Something, which is also trained without
            flips, on two augmented views of a clip, and tested by the average of logits.
        test_clips: clips of the test, with three crops each.
    """

    lr: float
    epochs: int
    warmup: int
    batch: int
    frames: int
    is_local: bool = False
    test_clips: int
    top1: float


UNIFORMERV2: dict[str, UniFormerV2] = {
    "uniformerv2_base_1x1x8_55e_kinetics400_rgb": UniFormerV2(
        lr=1e-5, epochs=55, warmup=5, batch=256, frames=8, test_clips=4, top1=84.4
    ),
    "uniformerv2_base_k710_1x1x8_5e_kinetics400_rgb": UniFormerV2(
        lr=2e-6, epochs=5, warmup=1, batch=256, frames=8, test_clips=4, top1=85.6
    ),
    "uniformerv2_base_1x1x16_22e_sthv2_rgb": UniFormerV2(
        lr=4e-5, epochs=22, warmup=5, batch=128, frames=16, is_local=True, test_clips=1, top1=69.5
    ),
}

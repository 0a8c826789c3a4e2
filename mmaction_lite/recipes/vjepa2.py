"""V-JEPA 2: attentive probes on the frozen encoder (Assran et al., 2025, arXiv:2506.09985).

The encoder is loaded from its file (`train --init-from vitl.pt`) and does not change. The pooler and the
classifier are trained. The authors train 20 probes with all combinations of five learning rates (1e-4 to
5e-3) and four weight decays (0.01 to 0.8) on the same forward pass of the encoder, and publish the result of
the best one, without its settings. The recipes train one probe with settings from the middle of the grid.

Deviations: all windows of a clip get the same crop and augmentation, which the authors draw for each window.
Windows of validation and test are in the middle of their part of the video, not at random places. The
precision is bfloat16, not float16.
"""

from dataclasses import replace

from mmaction_lite.data.views.augment import TIMM_ERASING, RandAugment
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ThreeCrop
from mmaction_lite.data.views.samplers import SegmentWindows
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import vjepa2_giant, vjepa2_large
from mmaction_lite.optim import AdamW, Cosine
from mmaction_lite.recipes.recipe import Build, Recipe, Reported

README = "README of facebookresearch/vjepa2"


def attentive_probe(model: Build, clips: SegmentWindows, size: int) -> Recipe:
    """Return the training of a probe on Something-Something v2, with a frozen encoder.

    Args:
        model: builder of the network, with as many segments as `clips`.
        clips: frame sampler.
        size: side of the views in pixels.
    """
    whole = TestViews(clips=clips, short_side=size, crop=ThreeCrop(size=(size, size)), antialias=False)
    return Recipe(
        model=model,
        dataset="sthv2",
        train=TrainViews(
            clips=clips,
            crop=RandomResizedCrop(size=(size, size)),
            antialias=False,
            augment=(
                RandAugment(interpolation="bicubic"),
                TIMM_ERASING,
            ),
        ),
        val=replace(whole, short_side=size * 256 // 224, crop=CenterCrop(size=(size, size))),
        test=whole,
        optimizer=AdamW(lr=1e-3, weight_decay=0.1),
        schedule=Cosine(),
        epochs=20,
        batch_size=256,
        freeze=("encoder",),
        precision="bfloat16",
        clips_per_device=4,
    )


def vjepa2_large_16x4x2_20e_sthv2_rgb() -> Recipe:
    """Return the probe of ViT-L on Something-Something v2: two windows of 16 frames."""
    clips = SegmentWindows(window_len=16, frame_interval=4, num_segments=2)
    recipe = attentive_probe(Build(vjepa2_large, segments=2), clips, 256)
    return replace(recipe, starts_from="V-JEPA 2 ViT-L", reported=Reported(top1=73.7, source=README))


def vjepa2_giant_64x2x2_20e_sthv2_rgb() -> Recipe:
    """Return the probe of ViT-g on Something-Something v2: two windows of 64 frames of 384 pixels."""
    clips = SegmentWindows(window_len=64, frame_interval=2, num_segments=2)
    recipe = attentive_probe(Build(vjepa2_giant, segments=2), clips, 384)
    return replace(recipe, starts_from="V-JEPA 2 ViT-g 384", reported=Reported(top1=77.3, source=README))


def vjepa2_large_16x4x8_20e_kinetics400_rgb() -> Recipe:
    """Return the probe of ViT-L on Kinetics-400: eight windows of 16 frames.

    The reported result is that of ten epochs.
    """
    clips = SegmentWindows(window_len=16, frame_interval=4, num_segments=8)
    return replace(
        attentive_probe(Build(vjepa2_large, segments=8), clips, 256),
        dataset="kinetics400",
        starts_from="V-JEPA 2 ViT-L",
        reported=Reported(top1=85.0, source="facebookresearch/vjepa2, pull request 121"),
    )


def vjepa2_large_32x2x4_100e_diving48_rgb() -> Recipe:
    """Return the probe of ViT-L on Diving48: four windows of 32 frames, tokens of four layers.

    The grid of the authors has the learning rates 1e-4, 3e-4 and 1e-3 and the weight decay 0.8.
    """
    model = Build(vjepa2_large, segments=4, levels=(17, 19, 21, 23))
    return replace(
        _diving48(model, 256),
        starts_from="V-JEPA 2 ViT-L",
        reported=Reported(top1=89.0, source=README),
    )


def vjepa2_giant_32x2x4_100e_diving48_rgb() -> Recipe:
    """Return the probe of ViT-g on Diving48 with 384 pixels; see `vjepa2_large_32x2x4_100e_diving48_rgb`."""
    model = Build(vjepa2_giant, segments=4, levels=(24, 29, 34, 39))
    return replace(
        _diving48(model, 384),
        starts_from="V-JEPA 2 ViT-g 384",
        reported=Reported(top1=90.2, source=README),
    )


def _diving48(model: Build, size: int) -> Recipe:
    clips = SegmentWindows(window_len=32, frame_interval=2, num_segments=4)
    return replace(
        attentive_probe(model, clips, size),
        dataset="diving48",
        optimizer=AdamW(lr=3e-4, weight_decay=0.8),
        epochs=100,
        batch_size=128,
        clips_per_device=2,
    )

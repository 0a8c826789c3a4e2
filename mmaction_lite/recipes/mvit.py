"""MViT and MViTv2 as trained by PySlowFast (configs/Kinetics, configs/SSv2 and projects/mvitv2).

Published learning rates belong to 16 clips per step, two on each of eight GPUs. The published trainings ran
on more machines, with both multiplied by their number. PySlowFast sets `AUG.COLOR_JITTER`, but does not apply
it to videos. Deviation: it decays the class token and its position in MViT-B, which have one dimension here.

The trainings on Something-Something v2 start from weights of Kinetics-400. PySlowFast reverses the channels
of their pixels (BGR). Converted weights read RGB, as the recipes do.
"""

from dataclasses import replace

from mmaction_lite.data.views.augment import TIMM_ERASING, RandAugment
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ScaleJitterCrop, ThreeCrop
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.normalize import PYSLOWFAST
from mmaction_lite.data.views.samplers import PySlowFastClips, SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import mvit_v1_base, mvit_v2_base, mvit_v2_small
from mmaction_lite.optim import SGD, AdamW, WarmupCosine
from mmaction_lite.recipes.recipe import Build, Recipe, Reported

END_LR = 1e-6  # at the first and at the last step


def _kinetics(model: Build, clips: PySlowFastClips, reported: Reported) -> Recipe:
    """Return a training on Kinetics-400 from scratch, with the settings that all networks share.

    Args:
        model: builder of the network.
        clips: sampler of the training clips.
        reported: the published result.
    """
    lr = 1e-4
    val = TestViews(clips=clips, short_side=224, crop=CenterCrop(size=(224, 224)), antialias=False)
    return Recipe(
        model=model,
        dataset="kinetics400",
        train=TrainViews(
            clips=clips,
            crop=RandomResizedCrop(size=(224, 224)),
            flip=0.5,
            antialias=False,
            augment=(
                RandAugment(interpolation="bicubic"),
                TIMM_ERASING,
            ),
            repeats=2,
        ),
        val=val,
        test=replace(val, clips=replace(clips, num_clips=5)),
        normalize=PYSLOWFAST,
        optimizer=AdamW(lr=lr, groups="no_decay"),
        schedule=WarmupCosine(warmup_epochs=30, start=END_LR / lr, end=END_LR / lr),
        epochs=200,
        batch_size=16,
        max_grad_norm=1.0,
        mixing=Mixing(),
        label_smoothing=0.1,
        val_every=10,
        reported=reported,
    )


def _something_something(recipe: Recipe, lr: float, reported: Reported) -> Recipe:
    """Return a training on Something-Something v2, from weights of Kinetics-400, without flips.

    Args:
        recipe: the training of the network on Kinetics-400.
        lr: learning rate.
        reported: the published result.
    """
    clips = SegmentFrames(num_segments=recipe.train.clips.clip_len)
    crop = ScaleJitterCrop(size=(224, 224), short_side=(256, 320), draw="reciprocal")
    return replace(
        recipe,
        model=Build(recipe.model.builder, **recipe.model.arguments | {"drop_path": 0.4}),
        dataset="sthv2",
        train=replace(recipe.train, clips=clips, crop=crop, flip=0.0, repeats=1),
        val=replace(recipe.val, clips=clips),
        test=replace(recipe.val, clips=clips, crop=ThreeCrop(size=(224, 224))),
        optimizer=SGD(lr=lr, nesterov=True, groups="no_decay"),
        schedule=WarmupCosine(warmup_epochs=3, start=1e-4 / lr, end=END_LR / lr),
        epochs=100,
        max_grad_norm=None,
        val_every=2,
        starts_from="Kinetics-400 MViTv2",
        reported=reported,
    )


def _clips(clip_len: int, frame_interval: int) -> PySlowFastClips:
    return PySlowFastClips(clip_len=clip_len, frame_interval=frame_interval, starts="even")


def mvit_v1_base_16x4x1_200e_kinetics400_rgb() -> Recipe:
    """Return MViT-B 16x4 on Kinetics-400, from scratch; 2 clips on each of 8 GPUs."""
    reported = Reported(top1=78.4, top5=93.5, source="PySlowFast MODEL_ZOO.md")
    return _kinetics(Build(mvit_v1_base, drop_path=0.2), _clips(16, 4), reported)


def mvit_v2_small_16x4x1_200e_kinetics400_rgb() -> Recipe:
    """Return MViTv2-S 16x4 on Kinetics-400, from scratch; 2 clips on each of 8 GPUs."""
    reported = Reported(top1=81.0, top5=94.6, source="PySlowFast MODEL_ZOO.md")
    return _kinetics(Build(mvit_v2_small, drop_path=0.2), _clips(16, 4), reported)


def mvit_v2_base_32x3x1_200e_kinetics400_rgb() -> Recipe:
    """Return MViTv2-B 32x3 on Kinetics-400, from scratch; 2 clips on each of 8 GPUs."""
    reported = Reported(top1=82.9, top5=95.7, source="PySlowFast MODEL_ZOO.md")
    return _kinetics(Build(mvit_v2_base, drop_path=0.3), _clips(32, 3), reported)


def mvit_v2_small_1x1x16_100e_sthv2_rgb() -> Recipe:
    """Return MViTv2-S with 16 frames on Something-Something v2; 2 clips on each of 8 GPUs."""
    reported = Reported(top1=68.2, top5=91.4, source="PySlowFast projects/mvitv2")
    return _something_something(mvit_v2_small_16x4x1_200e_kinetics400_rgb(), 0.0025, reported)


def mvit_v2_base_1x1x32_100e_sthv2_rgb() -> Recipe:
    """Return MViTv2-B with 32 frames on Something-Something v2; 2 clips on each of 8 GPUs."""
    reported = Reported(top1=70.5, top5=92.7, source="PySlowFast projects/mvitv2")
    return _something_something(mvit_v2_base_32x3x1_200e_kinetics400_rgb(), 0.0015, reported)

"""Video Swin Transformer (Liu et al., CVPR 2022, arXiv:2106.13230): fine-tunings of image networks on videos.

The initial weights are those of image Swin networks (`train --init-from`), which are inflated. The learning
rate is that of the classifier, and all layers below have a tenth of it. Source: `configs/recognition/swin` of
SwinTransformer/Video-Swin-Transformer, and for the batch size of 64 clips the paper and MMAction2, whose
results are the same; the configurations of the authors accumulate gradients over several batches.
"""

from dataclasses import replace

from mmaction_lite.data.views.augment import TIMM_ERASING, RandAugment
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ThreeCrop
from mmaction_lite.data.views.samplers import DenseClips, SegmentClips
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import swin3d_base, swin3d_small, swin3d_tiny
from mmaction_lite.optim import AdamW, Cosine
from mmaction_lite.recipes.recipe import Build, Recipe, Reported

SOURCE = "Video-Swin-Transformer README"


def _kinetics400(model: Build, *, lr: float = 1e-3, weight_decay: float = 0.05) -> Recipe:
    """Return a training on Kinetics-400 with the settings that all recipes of Video Swin share."""
    clips = DenseClips(clip_len=32, frame_interval=2)
    val = TestViews(clips=clips, short_side=256, crop=CenterCrop(size=(224, 224)), antialias=False)
    return Recipe(
        model=model,
        dataset="kinetics400",
        train=TrainViews(clips=clips, crop=RandomResizedCrop(size=(224, 224)), flip=0.5, antialias=False),
        val=val,
        test=replace(val, clips=replace(clips, num_clips=4), short_side=224, crop=ThreeCrop(size=(224, 224))),
        optimizer=AdamW(lr=lr, weight_decay=weight_decay, groups="swin"),
        schedule=Cosine(warmup_epochs=2.5),
        epochs=30,
        batch_size=64,
        val_every=5,
    )


def swin3d_tiny_32x2x1_30e_kinetics400_rgb() -> Recipe:
    """Return Swin-T on Kinetics-400, from an image network of ImageNet-1K."""
    return replace(
        _kinetics400(Build(swin3d_tiny, dropout=0.5, drop_path=0.1), weight_decay=0.02),
        starts_from="Swin-T trained on ImageNet-1K",
        reported=Reported(top1=78.8, top5=93.6, source=SOURCE),
    )


def swin3d_small_32x2x1_30e_kinetics400_rgb() -> Recipe:
    """Return Swin-S on Kinetics-400, from an image network of ImageNet-1K."""
    return replace(
        _kinetics400(Build(swin3d_small, dropout=0.5, drop_path=0.1), weight_decay=0.02),
        starts_from="Swin-S trained on ImageNet-1K",
        reported=Reported(top1=80.6, top5=94.5, source=SOURCE),
    )


def swin3d_base_32x2x1_30e_kinetics400_rgb() -> Recipe:
    """Return Swin-B on Kinetics-400, from an image network of ImageNet-1K."""
    return replace(
        _kinetics400(Build(swin3d_base, dropout=0.5, drop_path=0.3)),
        starts_from="Swin-B trained on ImageNet-1K",
        reported=Reported(top1=80.6, top5=94.6, source=SOURCE),
    )


def swin3d_base_in22k_32x2x1_30e_kinetics400_rgb() -> Recipe:
    """Return Swin-B on Kinetics-400, from an image network of ImageNet-22K."""
    return replace(
        _kinetics400(Build(swin3d_base, dropout=0.5, drop_path=0.2), lr=3e-4),
        variant="in22k",
        starts_from="Swin-B trained on ImageNet-22K",
        reported=Reported(top1=82.7, top5=95.5, source=SOURCE),
    )


def swin3d_base_1x1x32_60e_sthv2_rgb() -> Recipe:
    """Return Swin-B with windows of 16x7x7 on Something-Something v2, from Kinetics-400.

    The published test takes the rounded middle of each of 32 segments; here it is the middle of each segment.
    The authors augment by RandAugment of imgaug, and erase with zeros; here the operations are those of
    `RandAugment`, and `RandomErasing` fills in noise.
    """
    recipe = _kinetics400(Build(swin3d_base, dropout=0.5, drop_path=0.4, window=(16, 7, 7)), lr=3e-4)
    clips = SegmentClips(num_segments=32)
    return replace(
        recipe,
        dataset="sthv2",
        train=replace(
            recipe.train,
            clips=clips,
            flip=0.0,
            augment=(RandAugment(), TIMM_ERASING),
        ),
        val=replace(recipe.val, clips=clips),
        test=replace(recipe.test, clips=clips),
        epochs=60,
        label_smoothing=0.1,
        starts_from="Video Swin-B with windows of 16x7x7 trained on Kinetics-400",
        reported=Reported(top1=69.6, top5=92.7, source=SOURCE),
    )

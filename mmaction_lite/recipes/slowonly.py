"""SlowOnly: the slow pathway of SlowFast alone (Feichtenhofer et al., ICCV 2019, arXiv:1812.03982)."""

from dataclasses import replace

from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ThreeCrop
from mmaction_lite.data.views.samplers import DenseClips, PySlowFastClips
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import slowonly_r50
from mmaction_lite.optim import SGD, Cosine
from mmaction_lite.recipes.pyslowfast import pyslowfast
from mmaction_lite.recipes.recipe import Build, Recipe, Reported


def dense_views(clips: DenseClips) -> tuple[TrainViews, TestViews, TestViews]:
    """Return training, validation and test views of the 3D networks that MMAction2 trains from scratch."""
    return (
        TrainViews(clips=clips, crop=RandomResizedCrop(size=(224, 224)), flip=0.5, antialias=False),
        TestViews(clips=clips, short_side=256, crop=CenterCrop(size=(224, 224)), antialias=False),
        TestViews(
            clips=replace(clips, num_clips=10),
            short_side=256,
            crop=ThreeCrop(size=(256, 256)),
            antialias=False,
        ),
    )


def slowonly_r50_4x16x1_256e_kinetics400_rgb() -> Recipe:
    """Return SlowOnly with ResNet-50 and 4 frames, from scratch, as trained by MMAction2 1.2.

    Batch size 128 (16 on each of 8 GPUs). The first published version had lr 0.6 and no warm-up. Version
    0.24.1 had lr 0.1 at batch size 64 and reached 72.76/90.51 (top-1/top-5).
    """
    train, val, test = dense_views(DenseClips(clip_len=4, frame_interval=16))
    return Recipe(
        model=Build(slowonly_r50, dropout=0.5),
        dataset="kinetics400",
        train=train,
        val=val,
        test=test,
        optimizer=SGD(lr=0.2),
        schedule=Cosine(warmup_epochs=34, begin=34),
        epochs=256,
        batch_size=128,
        max_grad_norm=40.0,
        reported=Reported(top1=72.97, top5=90.88, source="MMAction2 v1.2.0, configs/recognition/slowonly"),
    )


def slowonly_r50_8x8x1_256e_kinetics400_rgb() -> Recipe:
    """Return the training of `slowonly_r50_4x16x1_256e_kinetics400_rgb` with 8 frames."""
    train, val, test = dense_views(DenseClips(clip_len=8, frame_interval=8))
    return replace(
        slowonly_r50_4x16x1_256e_kinetics400_rgb(),
        train=train,
        val=val,
        test=test,
        reported=Reported(top1=75.15, top5=92.11, source="MMAction2 v1.2.0, configs/recognition/slowonly"),
    )


def slowonly_r50_4x16x1_196e_kinetics400_rgb() -> Recipe:
    """Return Slow 4x16 as trained by PySlowFast; see `recipes.pyslowfast`."""
    clips = PySlowFastClips(clip_len=4, frame_interval=16)
    return pyslowfast(
        Build(slowonly_r50, dropout=0.5),
        clips,
        Reported(top1=72.7, top5=90.3, source="PySlowFast MODEL_ZOO.md"),
    )


def slowonly_r50_8x8x1_196e_kinetics400_rgb() -> Recipe:
    """Return Slow 8x8 as trained by PySlowFast; see `recipes.pyslowfast`."""
    clips = PySlowFastClips(clip_len=8, frame_interval=8)
    return pyslowfast(
        Build(slowonly_r50, dropout=0.5),
        clips,
        Reported(top1=74.8, top5=91.6, source="PySlowFast MODEL_ZOO.md"),
    )

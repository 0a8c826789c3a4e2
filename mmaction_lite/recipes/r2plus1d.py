"""R(2+1)D (Tran et al., CVPR 2018, arXiv:1711.11248)."""

from dataclasses import replace

from mmaction_lite.data.views.samplers import DenseClips
from mmaction_lite.models import r2plus1d_r34
from mmaction_lite.optim import SGD, Cosine
from mmaction_lite.recipes.recipe import Build, Recipe, Reported
from mmaction_lite.recipes.slowonly import dense_views


def r2plus1d_r34_8x8x1_180e_kinetics400_rgb() -> Recipe:
    """Return R(2+1)D with ResNet-34 and 8 frames, from scratch, as trained by MMAction2 1.2.

    Batch size 64 (8 on each of 8 GPUs). Deviation: MMAction2 synchronizes batch normalization over all GPUs.
    The first published version had lr 0.2 at batch size 128 and reached 68.68/88.36 (top-1/top-5).
    """
    train, val, test = dense_views(DenseClips(clip_len=8, frame_interval=8))
    return Recipe(
        model=Build(r2plus1d_r34, dropout=0.5),
        dataset="kinetics400",
        train=train,
        val=val,
        test=test,
        optimizer=SGD(lr=0.01),
        schedule=Cosine(),
        epochs=180,
        batch_size=64,
        max_grad_norm=40.0,
        reported=Reported(top1=69.76, top5=88.41, source="MMAction2 v1.2.0, configs/recognition/r2plus1d"),
    )


def r2plus1d_r34_32x2x1_180e_kinetics400_rgb() -> Recipe:
    """Return the training of `r2plus1d_r34_8x8x1_180e_kinetics400_rgb` with 32 frames.

    The first configuration published under this name samples 8 frames at interval 8.
    """
    train, val, test = dense_views(DenseClips(clip_len=32, frame_interval=2))
    return replace(
        r2plus1d_r34_8x8x1_180e_kinetics400_rgb(),
        train=train,
        val=val,
        test=test,
        reported=Reported(top1=75.46, top5=92.28, source="MMAction2 v1.2.0, configs/recognition/r2plus1d"),
    )

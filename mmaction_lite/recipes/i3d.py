"""I3D: image networks inflated in time (Carreira & Zisserman, CVPR 2017, arXiv:1705.07750)."""

from dataclasses import replace

from mmaction_lite.data.clips import DenseClips
from mmaction_lite.data.transforms import MultiScaleCrop
from mmaction_lite.models import i3d_r50
from mmaction_lite.optim import SGD, Steps
from mmaction_lite.recipes.recipe import Build, Recipe, Reported
from mmaction_lite.recipes.slowonly import dense_views


def i3d_r50_32x2x1_100e_kinetics400_rgb() -> Recipe:
    """I3D with ResNet-50 on 32 frames, from inflated ImageNet weights, as MMAction2 trains it.

    Batch 64 (8 on each of 8 GPUs). The first published version is the same training from raw frames:
    72.68/90.78.
    """
    train, val, test = dense_views(DenseClips(clip_len=32, frame_interval=2))
    return Recipe(
        model=Build(i3d_r50, dropout=0.5),
        dataset="kinetics400",
        train=replace(train, crop=MultiScaleCrop(size=(224, 224), scales=(1.0, 0.8), max_scale_gap=0)),
        val=val,
        test=test,
        optimizer=SGD(lr=0.01),
        schedule=Steps(milestones=(40, 80)),
        epochs=100,
        batch_size=64,
        max_grad_norm=40.0,
        starts_from="ImageNet ResNet-50",
        reported=Reported(top1=73.47, top5=91.27, source="MMAction2 v1.2.0, configs/recognition/i3d"),
    )

"""I3D: image networks inflated in time (Carreira & Zisserman, CVPR 2017, arXiv:1705.07750)."""

from dataclasses import replace

from mmaction_lite.data.views.crops import MultiScaleCrop
from mmaction_lite.data.views.samplers import DenseClips, PySlowFastClips
from mmaction_lite.models import i3d_r50, i3d_r50_heavy
from mmaction_lite.optim import SGD, Steps
from mmaction_lite.recipes.pyslowfast import pyslowfast
from mmaction_lite.recipes.recipe import Build, Recipe, Reported
from mmaction_lite.recipes.slowonly import dense_views


def i3d_r50_32x2x1_100e_kinetics400_rgb() -> Recipe:
    """Return I3D with ResNet-50 and 32 frames, from inflated ImageNet weights, as trained by MMAction2 1.2.

    Batch size 64 (8 on each of 8 GPUs). The first published version differs only in the data: it reads raw
    frames and reaches 72.68/90.78 (top-1/top-5).
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


def i3d_r50_fast_32x2x1_100e_kinetics400_rgb() -> Recipe:
    """Return the training of I3D that the benchmark page of MMAction2 calls "fast".

    There, "fast" means that raw frames are decoded by libjpeg-turbo, and that crop, flip and resize are
    combined into one resampling. Here, every recipe combines them, and folders of frames are decoded by
    libjpeg-turbo if `simplejpeg` is installed. The recipe therefore equals
    `i3d_r50_32x2x1_100e_kinetics400_rgb` except for its name and its published result, 72.32/90.72
    (top-1/top-5).
    """
    recipe = i3d_r50_32x2x1_100e_kinetics400_rgb()
    return replace(
        recipe,
        variant="fast",
        reported=Reported(top1=72.32, top5=90.72, source="MMAction2 at 843914b0, README of i3d"),
    )


def i3d_r50_heavy_8x8x1_196e_kinetics400_rgb() -> Recipe:
    """Return I3D 8x8 as trained by PySlowFast; see `recipes.pyslowfast`."""
    clips = PySlowFastClips(clip_len=8, frame_interval=8)
    return pyslowfast(
        Build(i3d_r50_heavy, dropout=0.5),
        clips,
        Reported(top1=73.5, top5=90.8, source="PySlowFast MODEL_ZOO.md"),
    )


def i3d_r50_32x2x1_25e_ucf101_rgb() -> Recipe:
    """Return I3D on UCF101, from Kinetics-400 weights.

    There is no published training of this network. As in the published fine-tuning of TSM, the learning rate
    is a tenth and the number of epochs a quarter of those on Kinetics-400.
    """
    recipe = i3d_r50_32x2x1_100e_kinetics400_rgb()
    return replace(
        recipe,
        dataset="ucf101",
        optimizer=SGD(lr=0.001),
        schedule=Steps(milestones=(10, 20)),
        epochs=25,
        starts_from="Kinetics-400 I3D",
        reported=None,
    )


def i3d_r50_32x2x1_25e_hmdb51_rgb() -> Recipe:
    """Return the training of `i3d_r50_32x2x1_25e_ucf101_rgb` for HMDB51."""
    return replace(i3d_r50_32x2x1_25e_ucf101_rgb(), dataset="hmdb51")


def i3d_r50_32x2x1_25e_jester_rgb() -> Recipe:
    """Return the training of `i3d_r50_32x2x1_25e_ucf101_rgb` for Jester.

    Flipped clips of classes with "left" or "right" get the label of the opposite class.
    """
    return replace(i3d_r50_32x2x1_25e_ucf101_rgb(), dataset="jester")

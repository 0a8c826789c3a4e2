"""TSN: Temporal Segment Networks (Wang et al., ECCV 2016, arXiv:1608.00859)."""

from dataclasses import replace

from mmaction_lite.data.views.crops import (
    CenterCrop,
    MultiScaleCrop,
    RandomCrop,
    RandomResizedCrop,
    TenCrop,
    ThreeCrop,
)
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import tsn_r10, tsn_r50
from mmaction_lite.optim import SGD, AdamW, OneCycle, Steps
from mmaction_lite.recipes.recipe import Build, Recipe, Reported


def tsn_r50_1x1x3_100e_kinetics400_rgb() -> Recipe:
    """Return TSN with ResNet-50 and three segments, as trained by MMAction2 1.2.

    Batch size 256 (32 on each of 8 GPUs). The first published version differs only in the data: it reads raw
    frames instead of videos and reaches 70.60/89.26 (top-1/top-5).
    """
    return Recipe(
        model=Build(tsn_r50, dropout=0.4),
        dataset="kinetics400",
        train=TrainViews(
            clips=SegmentFrames(num_segments=3),
            crop=MultiScaleCrop(
                size=(224, 224), scales=(1.0, 0.875, 0.75, 0.66), max_scale_gap=1, positions=5
            ),
            flip=0.5,
            antialias=False,
        ),
        val=TestViews(
            clips=SegmentFrames(num_segments=3),
            short_side=256,
            crop=CenterCrop(size=(224, 224)),
            antialias=False,
        ),
        test=TestViews(
            clips=SegmentFrames(num_segments=25),
            short_side=256,
            crop=TenCrop(size=(224, 224)),
            antialias=False,
        ),
        average="score",
        optimizer=SGD(lr=0.01),
        schedule=Steps(milestones=(40, 80)),
        epochs=100,
        batch_size=256,
        max_grad_norm=40.0,
        val_every=1,
        starts_from="ImageNet ResNet-50",
        reported=Reported(top1=72.83, top5=90.65, source="MMAction2 v1.2.0, configs/recognition/tsn"),
    )


def tsn_r50_1x1x8_50e_sthv1_rgb() -> Recipe:
    """Return TSN on Something-Something v1, as trained by MMAction2 0.24.1.

    Batch size 128 (16 on each of 8 GPUs). Batch normalization uses the running statistics of ImageNet.
    Deviation: MMAction2 flips clips without changing their labels; here, flipped clips of classes with "left"
    or "right" get the label of the opposite class.
    """
    recipe = tsn_r50_1x1x3_100e_kinetics400_rgb()
    segments = SegmentFrames(num_segments=8)
    crop = MultiScaleCrop(size=(224, 224), scales=(1.0, 0.875, 0.75, 0.66), max_scale_gap=1, positions=13)
    return replace(
        recipe,
        model=Build(tsn_r50, dropout=0.5),
        dataset="sthv1",
        train=replace(recipe.train, clips=segments, crop=crop),
        val=replace(recipe.val, clips=segments),
        test=replace(recipe.test, clips=segments),
        optimizer=SGD(lr=0.02),
        schedule=Steps(milestones=(20, 40)),
        epochs=50,
        batch_size=128,
        batch_norm="frozen",
        max_grad_norm=20.0,
        val_every=5,
        reported=Reported(top1=18.55, top5=44.80, source="MMAction2 v0.24.1, configs/recognition/tsn"),
    )


def tsn_r50_1x1x8_50e_sthv2_rgb() -> Recipe:
    """Return TSN on Something-Something v2, as trained by MMAction2 1.2.

    Batch size 256 (32 on each of 8 GPUs). The reported result is that of version 0.24.1, which used the
    settings of v1. Flipped clips change their labels as in `tsn_r50_1x1x8_50e_sthv1_rgb`.
    """
    recipe = tsn_r50_1x1x3_100e_kinetics400_rgb()
    segments = SegmentFrames(num_segments=8)
    return replace(
        recipe,
        model=Build(tsn_r50, dropout=0.5),
        dataset="sthv2",
        train=replace(recipe.train, clips=segments),
        val=replace(recipe.val, clips=segments),
        schedule=Steps(milestones=(20, 40)),
        epochs=50,
        val_every=5,
        reported=Reported(top1=28.59, top5=59.56, source="MMAction2 v0.24.1, configs/recognition/tsn"),
    )


def tsn_r50_1x1x3_75e_ucf101_rgb() -> Recipe:
    """Return TSN on UCF101, split 1, from ImageNet weights, as trained by MMAction2 0.24.1.

    Batch size 256 (32 on each of 8 GPUs). The learning rate is constant.
    """
    recipe = tsn_r50_1x1x3_100e_kinetics400_rgb()
    return replace(
        recipe,
        dataset="ucf101",
        train=replace(recipe.train, crop=RandomResizedCrop(size=(224, 224))),
        val=replace(recipe.val, crop=CenterCrop(size=(256, 256))),
        test=replace(recipe.test, crop=ThreeCrop(size=(256, 256))),
        optimizer=SGD(lr=0.00128, weight_decay=5e-4),
        schedule=Steps(milestones=()),
        epochs=75,
        val_every=5,
        reported=Reported(top1=83.03, top5=96.78, source="MMAction2 v0.24.1, configs/recognition/tsn"),
    )


def tsn_r50_1x1x8_50e_hmdb51_rgb() -> Recipe:
    """Return TSN on HMDB51, split 1, from Kinetics-400 weights, as trained by MMAction2 0.24.1.

    Batch size 256 (32 on each of 8 GPUs). From ImageNet weights it reaches 48.95/80.19 (top-1/top-5).
    """
    recipe = tsn_r50_1x1x3_75e_ucf101_rgb()
    segments = SegmentFrames(num_segments=8)
    val = replace(recipe.val, clips=segments)
    return replace(
        recipe,
        dataset="hmdb51",
        train=replace(recipe.train, clips=segments),
        val=val,
        test=val,
        optimizer=SGD(lr=0.025),
        schedule=Steps(milestones=(20, 40)),
        epochs=50,
        val_every=1,
        starts_from="Kinetics-400 TSN",
        reported=Reported(top1=56.08, top5=84.31, source="MMAction2 v0.24.1, configs/recognition/tsn"),
    )


def tsn_r50_1x1x8_50e_jester_rgb() -> Recipe:
    """Return TSN on Jester, from ImageNet weights.

    There is no published training; the settings are those of Something-Something v2. TSN ignores the order
    of frames and cannot distinguish a gesture from its reverse; use TSM for Jester.
    """
    return replace(tsn_r50_1x1x8_50e_sthv2_rgb(), dataset="jester", reported=None)


def tsn_r10_1x1x8_12e_motions_rgb() -> Recipe:
    """Return a small TSN for the generated data set, without flips because a flip changes the class.

    Within a pair of classes, which differ only in the order of frames, its accuracy is that of chance.
    """
    val = TestViews(clips=SegmentFrames(num_segments=8), short_side=48, crop=CenterCrop(size=(42, 56)))
    return Recipe(
        model=Build(tsn_r10, dropout=0.0),
        dataset="motions",
        train=TrainViews(clips=val.clips, short_side=48, crop=RandomCrop(size=(42, 56))),
        val=val,
        test=val,
        optimizer=AdamW(lr=0.02),
        schedule=OneCycle(),
        epochs=12,
        batch_size=20,
        label_smoothing=0.05,
        val_every=3,
    )

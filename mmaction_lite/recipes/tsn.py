"""TSN: Temporal Segment Networks (Wang et al., ECCV 2016, arXiv:1608.00859)."""

from dataclasses import replace

from mmaction_lite.data.clips import SegmentFrames
from mmaction_lite.data.transforms import CenterCrop, MultiScaleCrop, RandomCrop, TenCrop
from mmaction_lite.data.views import Views
from mmaction_lite.models import tsn_r10, tsn_r50
from mmaction_lite.optim import SGD, AdamW, OneCycle, Steps
from mmaction_lite.recipes.recipe import Build, Recipe, Reported


def tsn_r50_1x1x3_100e_kinetics400_rgb() -> Recipe:
    """TSN with ResNet-50 on three segments, as MMAction2 trains it.

    Batch 256 (32 on each of 8 GPUs). The first published version and MMAction2 1.2 differ only in data:
    raw frames against videos, 70.60/89.26 against the result below.
    """
    return Recipe(
        model=Build(tsn_r50, dropout=0.4),
        dataset="kinetics400",
        train=Views(
            clips=SegmentFrames(num_segments=3),
            crop=MultiScaleCrop(
                size=(224, 224), scales=(1.0, 0.875, 0.75, 0.66), max_scale_gap=1, positions=5
            ),
            flip=0.5,
            antialias=False,
        ),
        val=Views(
            clips=SegmentFrames(num_segments=3),
            short_side=256,
            crop=CenterCrop(size=(224, 224)),
            antialias=False,
            average="score",
        ),
        test=Views(
            clips=SegmentFrames(num_segments=25),
            short_side=256,
            crop=TenCrop(size=(224, 224)),
            antialias=False,
            average="score",
        ),
        optimizer=SGD(lr=0.01),
        schedule=Steps(milestones=(40, 80)),
        epochs=100,
        batch_size=256,
        max_grad_norm=40.0,
        val_every=1,
        starts_from="ImageNet ResNet-50",
        reported=Reported(top1=72.83, top5=90.65, source="MMAction2 v1.2.0, configs/recognition/tsn"),
    )


def tsn_r10_1x1x8_12e_motions_rgb() -> Recipe:
    """A small TSN for the generated data set; no more than chance within a pair of classes.

    Mirroring would turn a clip into one of another class.
    """
    val = Views(clips=SegmentFrames(num_segments=8), short_side=48, crop=CenterCrop(size=(42, 56)))
    return Recipe(
        model=Build(tsn_r10, dropout=0.0),
        dataset="motions",
        train=replace(val, crop=RandomCrop(size=(42, 56))),
        val=val,
        test=val,
        optimizer=AdamW(lr=0.02),
        schedule=OneCycle(),
        epochs=12,
        batch_size=20,
        label_smoothing=0.05,
        val_every=3,
    )

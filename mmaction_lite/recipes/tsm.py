"""TSM: Temporal Shift Module (Lin et al., ICCV 2019, arXiv:1811.08383)."""

from dataclasses import replace

from mmaction_lite.data.views.crops import CenterCrop, MultiScaleCrop, RandomResizedCrop, TenCrop
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import tsm_r10, tsm_r50
from mmaction_lite.optim import SGD, Steps
from mmaction_lite.recipes.recipe import Build, Recipe, Reported
from mmaction_lite.recipes.tsn import tsn_r10_1x1x8_12e_motions_rgb


def tsm_r50_1x1x8_50e_kinetics400_rgb() -> Recipe:
    """TSM with ResNet-50 on eight segments, 50 epochs, as MMAction2 1.2 trains it.

    Batch 128 (16 on each of 8 GPUs). The first published version had lr 0.01 at batch 64, no warm-up,
    milestones at 20 and 40, and tested the centre crop alone.
    """
    segments = SegmentFrames(num_segments=8)
    return Recipe(
        model=Build(tsm_r50, dropout=0.5),
        dataset="kinetics400",
        train=TrainViews(
            clips=segments,
            crop=MultiScaleCrop(
                size=(224, 224), scales=(1.0, 0.875, 0.75, 0.66), max_scale_gap=1, positions=13
            ),
            flip=0.5,
            antialias=False,
        ),
        val=TestViews(clips=segments, short_side=256, crop=CenterCrop(size=(224, 224)), antialias=False),
        test=TestViews(clips=segments, short_side=256, crop=TenCrop(size=(224, 224)), antialias=False),
        optimizer=SGD(lr=0.02, groups="tsm"),
        schedule=Steps(milestones=(25, 45), warmup_epochs=5),
        epochs=50,
        batch_size=128,
        max_grad_norm=20.0,
        starts_from="ImageNet ResNet-50",
        reported=Reported(top1=73.18, top5=90.56, source="MMAction2 v1.2.0, configs/recognition/tsm"),
    )


def tsm_r50_1x1x8_100e_kinetics400_rgb() -> Recipe:
    """The same over 100 epochs, as MMAction2 1.2 trains it: warm-up over 10, milestones at 50 and 90.

    MMAction2 0.24.1 had lr 0.01 at batch 64, no warm-up, milestones at 40 and 80: 71.90/90.03. The
    first configuration published under this name trained 50 epochs.
    """
    return replace(
        tsm_r50_1x1x8_50e_kinetics400_rgb(),
        schedule=Steps(milestones=(50, 90), warmup_epochs=10),
        epochs=100,
        reported=Reported(top1=73.22, top5=90.22, source="MMAction2 v1.2.0, configs/recognition/tsm"),
    )


def tsm_r50_1x1x8_50e_sthv1_rgb() -> Recipe:
    """TSM on Something-Something v1, as MMAction2 0.24.1 trains it: not mirrored, tested with one view.

    Batch 64 (8 on each of 8 GPUs). With two samples of three crops: 47.70/76.12.
    """
    recipe = tsm_r50_1x1x8_50e_kinetics400_rgb()
    return replace(
        recipe,
        dataset="sthv1",
        train=replace(recipe.train, flip=0.0),
        test=recipe.val,
        optimizer=SGD(lr=0.01, weight_decay=5e-4, groups="tsm"),
        schedule=Steps(milestones=(20, 40)),
        batch_size=64,
        reported=Reported(top1=45.58, top5=75.02, source="MMAction2 v0.24.1, configs/recognition/tsm"),
    )


def tsm_r50_1x1x8_50e_sthv2_rgb() -> Recipe:
    """TSM on Something-Something v2, the training of MMAction2 1.2, tested with one view.

    Batch 128 (16 on each of 8 GPUs). Version 0.24.1 had lr 0.01 at batch 64, no warm-up, milestones at 20 and
    40, and did not mirror; its results are below, and 61.82/86.80 with two samples of three crops. Version
    1.2 mirrors without exchanging left and right; here they change places.
    """
    recipe = tsm_r50_1x1x8_50e_kinetics400_rgb()
    return replace(
        recipe,
        dataset="sthv2",
        test=recipe.val,
        optimizer=SGD(lr=0.02, weight_decay=5e-4, groups="tsm"),
        reported=Reported(top1=59.11, top5=85.39, source="MMAction2 v0.24.1, configs/recognition/tsm"),
    )


def tsm_r50_1x1x8_50e_jester_rgb() -> Recipe:
    """TSM on Jester, as MMAction2 0.24.1 trains it; mirrored clips change to the class of the other side.

    Batch 64 (8 on each of 8 GPUs). With two samples of three crops: 97.2.
    """
    recipe = tsm_r50_1x1x8_50e_sthv1_rgb()
    view = replace(recipe.val, crop=CenterCrop(size=(256, 256)))
    return replace(
        recipe,
        dataset="jester",
        train=replace(recipe.train, crop=RandomResizedCrop(size=(224, 224)), flip=0.5),
        val=view,
        test=view,
        reported=Reported(top1=96.5, source="MMAction2 v0.24.1, configs/recognition/tsm"),
    )


def tsm_r50_1x1x8_25e_ucf101_rgb() -> Recipe:
    """TSM from Kinetics-400 to UCF101, split 1, as MMAction2 0.24.1 trains it.

    Batch 96 (12 on each of 8 GPUs). Its configuration writes another lr first and means this one.
    """
    recipe = tsm_r50_1x1x8_50e_sthv1_rgb()
    return replace(
        recipe,
        dataset="ucf101",
        optimizer=SGD(lr=0.0015, groups="tsm"),
        schedule=Steps(milestones=(10, 20)),
        epochs=25,
        batch_size=96,
        starts_from="Kinetics-400 TSM",
        reported=Reported(top1=94.50, top5=99.58, source="MMAction2 v0.24.1, configs/recognition/tsm"),
    )


def tsm_r50_1x1x8_25e_hmdb51_rgb() -> Recipe:
    """The same for HMDB51, split 1."""
    return replace(
        tsm_r50_1x1x8_25e_ucf101_rgb(),
        dataset="hmdb51",
        reported=Reported(top1=72.68, top5=92.03, source="MMAction2 v0.24.1, configs/recognition/tsm"),
    )


def tsm_r10_1x1x8_12e_motions_rgb() -> Recipe:
    """The small TSN for the generated data set with a quarter of the channels shifted each way."""
    return replace(tsn_r10_1x1x8_12e_motions_rgb(), model=Build(tsm_r10, dropout=0.0))

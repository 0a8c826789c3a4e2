"""TSM: Temporal Shift Module (Lin et al., ICCV 2019, arXiv:1811.08383)."""

from dataclasses import replace

from mmaction_lite.data.views.crops import CenterCrop, MultiScaleCrop, RandomResizedCrop, TenCrop
from mmaction_lite.data.views.samplers import DenseClips, SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import tsm_online_mobilenetv2, tsm_online_r10, tsm_online_r50, tsm_r10, tsm_r50
from mmaction_lite.optim import SGD, Steps
from mmaction_lite.recipes.recipe import Build, Recipe, Reported
from mmaction_lite.recipes.tsn import tsn_r10_1x1x8_12e_motions_rgb


def tsm_r50_1x1x8_50e_kinetics400_rgb() -> Recipe:
    """Return TSM with ResNet-50 and eight segments, 50 epochs, as trained by MMAction2 1.2.

    Batch size 128 (16 on each of 8 GPUs). The first published version had lr 0.01 at batch size 64, no
    warm-up, milestones at 20 and 40, and a test with the center crop only.
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
    """Return TSM with ResNet-50 and eight segments, 100 epochs, as trained by MMAction2 1.2.

    The warm-up takes 10 epochs, the milestones are 50 and 90. MMAction2 0.24.1 had lr 0.01 at batch size 64,
    no warm-up, milestones at 40 and 80, and reached 71.90/90.03 (top-1/top-5). The first configuration
    published under this name trains 50 epochs.
    """
    return replace(
        tsm_r50_1x1x8_50e_kinetics400_rgb(),
        schedule=Steps(milestones=(50, 90), warmup_epochs=10),
        epochs=100,
        reported=Reported(top1=73.22, top5=90.22, source="MMAction2 v1.2.0, configs/recognition/tsm"),
    )


def tsm_r50_1x1x8_50e_sthv1_rgb() -> Recipe:
    """Return TSM on Something-Something v1, as trained by MMAction2 0.24.1: without flips, one test view.

    Batch size 64 (8 on each of 8 GPUs). A test with two clips and three crops gives 47.70/76.12
    (top-1/top-5).
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
    """Return TSM on Something-Something v2, as trained by MMAction2 1.2, with one test view.

    Batch size 128 (16 on each of 8 GPUs). The reported result is that of version 0.24.1, which had lr 0.01 at
    batch size 64, no warm-up, milestones at 20 and 40, and no flips; its test with two clips and three crops
    gives 61.82/86.80 (top-1/top-5). Deviation: version 1.2 flips clips without changing their labels; here,
    flipped clips of classes with "left" or "right" get the label of the opposite class.
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
    """Return TSM on Jester, as trained by MMAction2 0.24.1.

    Batch size 64 (8 on each of 8 GPUs). Flipped clips of classes with "left" or "right" get the label of the
    opposite class. A test with two clips and three crops gives 97.2 (top-1).
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
    """Return TSM on UCF101, split 1, from Kinetics-400 weights, as trained by MMAction2 0.24.1.

    Batch size 96 (12 on each of 8 GPUs). The configuration of MMAction2 sets another learning rate first and
    overrides it with this one.
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
    """Return the training of `tsm_r50_1x1x8_25e_ucf101_rgb` for HMDB51, split 1."""
    return replace(
        tsm_r50_1x1x8_25e_ucf101_rgb(),
        dataset="hmdb51",
        reported=Reported(top1=72.68, top5=92.03, source="MMAction2 v0.24.1, configs/recognition/tsm"),
    )


def tsm_r10_1x1x8_12e_motions_rgb() -> Recipe:
    """Return a small TSM for the generated data set; a quarter of the channels is shifted each way."""
    return replace(tsn_r10_1x1x8_12e_motions_rgb(), model=Build(tsm_r10, dropout=0.0))


def _at_interval(recipe: Recipe, frame_interval: int, model: Build) -> Recipe:
    """Return a recipe for streams: clips of eight frames at a fixed interval, as a stream has.

    There is no published training of this form.
    """
    clips = DenseClips(clip_len=8, frame_interval=frame_interval)
    views = {name: replace(getattr(recipe, name), clips=clips) for name in ("train", "val", "test")}
    return replace(recipe, model=model, reported=None, **views)


def tsm_online_r50_8x8x1_50e_kinetics400_rgb() -> Recipe:
    """Return the training of `tsm_r50_1x1x8_50e_kinetics400_rgb` for the online TSM, with dense clips."""
    return _at_interval(tsm_r50_1x1x8_50e_kinetics400_rgb(), 8, Build(tsm_online_r50, dropout=0.5))


def tsm_online_r50_8x4x1_50e_jester_rgb() -> Recipe:
    """Return the training of `tsm_r50_1x1x8_50e_jester_rgb` for the online TSM, with dense clips."""
    return _at_interval(tsm_r50_1x1x8_50e_jester_rgb(), 4, Build(tsm_online_r50, dropout=0.5))


def tsm_online_mobilenetv2_8x4x1_50e_jester_rgb() -> Recipe:
    """Return the training of `tsm_online_r50_8x4x1_50e_jester_rgb` with MobileNetV2.

    The authors published weights of this network for Jester, without its training.
    """
    return replace(
        tsm_online_r50_8x4x1_50e_jester_rgb(),
        model=Build(tsm_online_mobilenetv2, dropout=0.5),
        starts_from="ImageNet MobileNetV2",
    )


def tsm_online_r10_8x8x1_12e_motions_rgb() -> Recipe:
    """Return a small online TSM for the generated data set; a quarter of the channels is shifted."""
    return _at_interval(tsm_r10_1x1x8_12e_motions_rgb(), 8, Build(tsm_online_r10, dropout=0.0))

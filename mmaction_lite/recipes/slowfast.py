"""SlowFast (Feichtenhofer et al., ICCV 2019, arXiv:1812.03982)."""

from dataclasses import replace

from mmaction_lite.data.views.crops import CenterCrop, ThreeCrop
from mmaction_lite.data.views.samplers import DenseClips, PySlowFastClips
from mmaction_lite.models import slowfast_r50_4x16, slowfast_r50_8x8
from mmaction_lite.optim import SGD, Cosine, Steps
from mmaction_lite.recipes.multigrid import multigrid
from mmaction_lite.recipes.pyslowfast import pyslowfast
from mmaction_lite.recipes.recipe import Build, Recipe, Reported
from mmaction_lite.recipes.slowonly import dense_views


def slowfast_r50_4x16x1_256e_kinetics400_rgb() -> Recipe:
    """Return SlowFast with ResNet-50, 32 frames of which 4 are slow, from scratch, as in MMAction2 1.2.

    Batch size 64 (8 on each of 8 GPUs). The first published version had no warm-up and reached 75.3/92.2
    (top-1/top-5). PySlowFast's network (see `models.slowfast`) and training are different; they reach
    75.6/92.0.
    """
    train, val, test = dense_views(DenseClips(clip_len=32, frame_interval=2))
    return Recipe(
        model=Build(
            slowfast_r50_4x16, dropout=0.5, lateral_norm=False, slow_frames="strided", fast_first=True
        ),
        dataset="kinetics400",
        train=train,
        val=val,
        test=test,
        optimizer=SGD(lr=0.1),
        schedule=Cosine(warmup_epochs=34),
        epochs=256,
        batch_size=64,
        max_grad_norm=40.0,
        reported=Reported(top1=75.55, top5=92.35, source="MMAction2 v1.2.0, configs/recognition/slowfast"),
    )


def slowfast_r50_8x8x1_256e_kinetics400_rgb() -> Recipe:
    """Return the training of `slowfast_r50_4x16x1_256e_kinetics400_rgb` with 8 slow frames.

    The lateral convolutions have kernel size 7; it was 5 in the first published version.
    """
    recipe = slowfast_r50_4x16x1_256e_kinetics400_rgb()
    return replace(
        recipe,
        model=Build(slowfast_r50_8x8, **recipe.model.arguments | {"lateral_kernel": 7}),
        reported=Reported(top1=76.80, top5=92.99, source="MMAction2 v1.2.0, configs/recognition/slowfast"),
    )


def slowfast_r50_4x16x1_196e_kinetics400_rgb() -> Recipe:
    """Return SlowFast 4x16 with the network and training of PySlowFast; see `recipes.pyslowfast`."""
    clips = PySlowFastClips(clip_len=32, frame_interval=2)
    reported = Reported(top1=75.6, top5=92.0, source="PySlowFast MODEL_ZOO.md")
    return pyslowfast(Build(slowfast_r50_4x16, dropout=0.5), clips, reported)


def slowfast_r50_8x8x1_196e_kinetics400_rgb() -> Recipe:
    """Return SlowFast 8x8 with the network and training of PySlowFast; see `recipes.pyslowfast`."""
    clips = PySlowFastClips(clip_len=32, frame_interval=2)
    reported = Reported(top1=77.0, top5=92.6, source="PySlowFast MODEL_ZOO.md")
    return pyslowfast(Build(slowfast_r50_8x8, dropout=0.5), clips, reported)


def slowfast_r50_stepwise_8x8x1_239e_kinetics400_rgb() -> Recipe:
    """Return SlowFast 8x8 as trained by PySlowFast with a step schedule.

    It is the baseline of the multigrid training.
    """
    return replace(
        slowfast_r50_8x8x1_196e_kinetics400_rgb(),
        variant="stepwise",
        schedule=Steps(milestones=(94, 154, 196), warmup_epochs=34, linear=True),
        epochs=239,
        reported=Reported(top1=76.8, top5=92.7, source="PySlowFast MODEL_ZOO.md"),
    )


def slowfast_r50_multigrid_8x8x1_358e_kinetics400_rgb() -> Recipe:
    """Return SlowFast 8x8 as trained by PySlowFast with multigrid (SLOWFAST_8x8_R50_stepwise_multigrid.yaml).

    The test uses crops of 224x224 pixels. Deviation: PySlowFast validates and recomputes running statistics
    with clips of the current shape; here, both use the shape of the test.
    """
    recipe = multigrid(slowfast_r50_stepwise_8x8x1_239e_kinetics400_rgb())
    return replace(
        recipe,
        val=replace(recipe.val, short_side=224, crop=CenterCrop(size=(224, 224))),
        test=replace(recipe.test, short_side=224, crop=ThreeCrop(size=(224, 224))),
        window=None,
        reported=Reported(top1=76.6, top5=92.7, source="PySlowFast MODEL_ZOO.md"),
    )

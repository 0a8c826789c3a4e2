"""What PySlowFast's own trainings on Kinetics-400 have in common (its configs/Kinetics and MODEL_ZOO.md)."""

from dataclasses import replace

from mmaction_lite.data.views.crops import CenterCrop, ScaleJitterCrop, ThreeCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import PySlowFastClips
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.optim import SGD, Cosine
from mmaction_lite.recipes.recipe import Build, Recipe, Reported


def pyslowfast(model: Build, clips: PySlowFastClips, reported: Reported) -> Recipe:
    """Batch 64 on 8 GPUs, 196 epochs, warm-up over 34 from a tenth, precise statistics of 200 batches.

    Pixels are normalised by 0.45 and 0.225; the short side is jittered between 256 and 320 and 224 pixels
    are cut out. Tested with ten clips of three crops of 256 pixels. Each crop is classified in four windows
    (`window`).
    """
    val = TestViews(clips=clips, short_side=256, crop=CenterCrop(size=(256, 256)), antialias=False)
    return Recipe(
        model=model,
        dataset="kinetics400",
        train=TrainViews(clips=clips, crop=ScaleJitterCrop(size=(224, 224)), flip=0.5, antialias=False),
        val=val,
        test=replace(val, clips=replace(clips, num_clips=10), crop=ThreeCrop(size=(256, 256))),
        window=7,
        normalize=Normalize(mean=(114.75, 114.75, 114.75), std=(57.375, 57.375, 57.375)),
        optimizer=SGD(lr=0.1, nesterov=True, groups="no_decay"),
        schedule=Cosine(warmup_epochs=34, linear=True),
        epochs=196,
        batch_size=64,
        precise_bn_clips=200 * 64,
        val_every=10,
        reported=reported,
    )

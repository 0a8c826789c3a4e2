"""Settings that all Kinetics-400 trainings of PySlowFast share (its configs/Kinetics and MODEL_ZOO.md)."""

from dataclasses import replace

from mmaction_lite.data.views.crops import CenterCrop, ScaleJitterCrop, ThreeCrop
from mmaction_lite.data.views.normalize import PYSLOWFAST
from mmaction_lite.data.views.samplers import PySlowFastClips
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.optim import SGD, Cosine
from mmaction_lite.recipes.recipe import Build, Recipe, Reported


def pyslowfast(model: Build, clips: PySlowFastClips, reported: Reported) -> Recipe:
    """Return a recipe that trains `model` on Kinetics-400 with the settings of PySlowFast.

    Batch size 64 on 8 GPUs; 196 epochs, of which 34 are a warm-up from a tenth of the learning rate; running
    statistics recomputed over 200 batches (precise batch normalization). Pixels in [0, 1] are normalized with
    mean 0.45 and standard deviation 0.225. Training resizes the short side to a random length from 256 to 320
    and crops 224x224 pixels. The test uses ten clips and three crops of 256x256 pixels, and classifies each
    crop in four windows (`window`).

    Args:
        model: builder of the network.
        clips: sampler of the training clips.
        reported: the published result.
    """
    val = TestViews(clips=clips, short_side=256, crop=CenterCrop(size=(256, 256)), antialias=False)
    return Recipe(
        model=model,
        dataset="kinetics400",
        train=TrainViews(clips=clips, crop=ScaleJitterCrop(size=(224, 224)), flip=0.5, antialias=False),
        val=val,
        test=replace(val, clips=replace(clips, num_clips=10), crop=ThreeCrop(size=(256, 256))),
        window=7,
        normalize=PYSLOWFAST,
        optimizer=SGD(lr=0.1, nesterov=True, groups="no_decay"),
        schedule=Cosine(warmup_epochs=34, linear=True),
        epochs=196,
        batch_size=64,
        precise_bn_clips=200 * 64,
        val_every=10,
        reported=reported,
    )

"""X3D (Feichtenhofer, CVPR 2020, arXiv:2004.04730).

The trainings on Kinetics-400 are those of PySlowFast (configs/Kinetics/X3D_*.yaml and MODEL_ZOO.md), from
random weights. Deviation: PySlowFast decays the biases of the squeeze-excitation and of the classifier; here,
as in the other recipes from PySlowFast, no bias is decayed. The fine-tunings have the settings of
`recipes.finetune`.
"""

from dataclasses import replace

from mmaction_lite.data.views.crops import CenterCrop, ScaleJitterCrop, ThreeCrop
from mmaction_lite.data.views.samplers import PySlowFastClips
from mmaction_lite.models import x3d_l, x3d_m, x3d_s, x3d_xs
from mmaction_lite.optim import SGD, Cosine
from mmaction_lite.recipes.finetune import finetune
from mmaction_lite.recipes.pyslowfast import pyslowfast
from mmaction_lite.recipes.recipe import Build, Recipe, Reported

# Training clips of the first splits.
UCF101_CLIPS, HMDB51_CLIPS = 9537, 3570


def _from_scratch(
    model: Build,
    clips: PySlowFastClips,
    *,
    size: int,
    test_size: int,
    top1: float,
    short_side: tuple[int, int],
) -> Recipe:
    """Return the training of X3D-XS, S and M: batch size 128 on 8 GPUs, 300 epochs, 35 of them a warm-up.

    The test uses ten clips and three crops, and classifies each crop in windows of the size of the features
    in training. A test of ten central crops of the size of the training has 0.4 to 1.1 points less.

    Args:
        model: builder of the network.
        clips: sampler of the training clips.
        size: side of the training crops in pixels.
        test_size: side of the test crops, and the short side of the frames that they are cut from.
        top1: published accuracy of the test.
        short_side: smallest and largest short side to which training frames are resized.
    """
    recipe = pyslowfast(model, clips, Reported(top1=top1, source="PySlowFast MODEL_ZOO.md"))
    crop = ScaleJitterCrop(size=(size, size), short_side=short_side)
    tested = (test_size, test_size)
    return replace(
        recipe,
        train=replace(recipe.train, crop=crop),
        val=replace(recipe.val, short_side=test_size, crop=CenterCrop(size=tested)),
        test=replace(recipe.test, short_side=test_size, crop=ThreeCrop(size=tested)),
        window=-(-size // 32),
        optimizer=SGD(lr=0.1, weight_decay=5e-5, nesterov=True, groups="no_decay"),
        schedule=Cosine(warmup_epochs=35, linear=True),
        epochs=300,
        batch_size=128,
        precise_bn_clips=200 * 128,
    )


def x3d_xs_4x12x1_300e_kinetics400_rgb() -> Recipe:
    """Return X3D-XS from scratch, 4 frames of 160x160 pixels; a test of 10x1 views has 68.7."""
    clips = PySlowFastClips(clip_len=4, frame_interval=12)
    model = Build(x3d_xs, dropout=0.5)
    return _from_scratch(model, clips, size=160, test_size=182, top1=69.5, short_side=(182, 228))


def x3d_s_13x6x1_300e_kinetics400_rgb() -> Recipe:
    """Return X3D-S from scratch, 13 frames of 160x160 pixels; a test of 10x1 views has 73.1."""
    clips = PySlowFastClips(clip_len=13, frame_interval=6)
    model = Build(x3d_s, dropout=0.5)
    return _from_scratch(model, clips, size=160, test_size=182, top1=73.5, short_side=(182, 228))


def x3d_m_16x5x1_300e_kinetics400_rgb() -> Recipe:
    """Return X3D-M from scratch, 16 frames of 224x224 pixels; a test of 10x1 views has 75.1."""
    clips = PySlowFastClips(clip_len=16, frame_interval=5)
    model = Build(x3d_m, dropout=0.5)
    return _from_scratch(model, clips, size=224, test_size=256, top1=76.2, short_side=(256, 320))


def x3d_l_16x5x1_256e_kinetics400_rgb() -> Recipe:
    """Return X3D-L from scratch, 16 frames of 312x312 pixels; a test of 10x1 views has 76.9.

    Batch size 64 on 8 GPUs; the warm-up begins with a fifth of the learning rate.
    """
    clips = PySlowFastClips(clip_len=16, frame_interval=5)
    model = Build(x3d_l, dropout=0.5)
    recipe = _from_scratch(model, clips, size=312, test_size=356, top1=77.5, short_side=(356, 446))
    return replace(
        recipe,
        optimizer=replace(recipe.optimizer, lr=0.05),
        schedule=Cosine(warmup_epochs=35, warmup_start=0.2, linear=True),
        epochs=256,
        batch_size=64,
        precise_bn_clips=200 * 64,
    )


def x3d_s_13x6x1_13e_ucf101_rgb() -> Recipe:
    """Return the fine-tuning of X3D-S on UCF101, from weights of Kinetics-400; the accuracy is not known."""
    return replace(finetune(x3d_s_13x6x1_300e_kinetics400_rgb(), UCF101_CLIPS), dataset="ucf101")


def x3d_s_13x6x1_36e_hmdb51_rgb() -> Recipe:
    """Return the fine-tuning of X3D-S on HMDB51, from weights of Kinetics-400; the accuracy is not known."""
    return replace(finetune(x3d_s_13x6x1_300e_kinetics400_rgb(), HMDB51_CLIPS), dataset="hmdb51")

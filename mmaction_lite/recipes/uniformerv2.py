"""UniFormerV2: image transformers of CLIP on videos (Li et al., ICCV 2023, arXiv:2211.09552).

The initial weights are those of CLIP's image network or of a training on Kinetics-710 (`train --init-from`).
Source: the scripts and configurations in `exp` of OpenGVLab/UniFormerV2, whose learning rates belong to the
batch size of all GPUs. Kinetics-710 is the union of Kinetics-400, 600 and 700.

Deviation: the tokens of the authors have the batch on their second axis, and their drop path works on the
first one. It drops a branch for one token of all frames, and for the temporal class tokens of all clips. Here
it drops a branch for one frame or one clip.
"""

from dataclasses import replace

from mmaction_lite.data.views.augment import RandAugment
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop, ThreeCrop
from mmaction_lite.data.views.normalize import PYSLOWFAST
from mmaction_lite.data.views.samplers import SegmentClips
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import uniformerv2_base
from mmaction_lite.optim import AdamW, WarmupCosine
from mmaction_lite.recipes.recipe import Build, Recipe, Reported

SOURCE = "UniFormerV2 MODEL_ZOO.md"
LOWEST_LR = 1e-6  # at the first step and at the end


def _kinetics400(lr: float, epochs: int, warmup_epochs: int) -> Recipe:
    """Return a training on eight frames of Kinetics-400; 32 clips on each of 8 GPUs."""
    clips = SegmentClips(num_segments=8, margin=True)
    val = TestViews(clips=clips, short_side=224, crop=CenterCrop(size=(224, 224)), antialias=False)
    return Recipe(
        model=Build(uniformerv2_base),
        dataset="kinetics400",
        train=TrainViews(
            clips=clips,
            crop=RandomResizedCrop(size=(224, 224)),
            flip=0.5,
            antialias=False,
            augment=(RandAugment(interpolation="bicubic"),),
        ),
        val=val,
        test=replace(val, clips=replace(clips, num_clips=4), crop=ThreeCrop(size=(224, 224))),
        normalize=PYSLOWFAST,
        optimizer=AdamW(lr=lr, groups="no_decay"),
        schedule=WarmupCosine(warmup_epochs=warmup_epochs, start=LOWEST_LR / lr, end=LOWEST_LR / lr),
        epochs=epochs,
        batch_size=256,
        max_grad_norm=20.0,  # the default of the authors, `SOLVER.CLIP_GRADIENT`
        starts_from="CLIP's image network ViT-B/16",
    )


def uniformerv2_base_1x1x8_55e_kinetics400_rgb() -> Recipe:
    """Return UniFormerV2-B on Kinetics-400, from the image network of CLIP."""
    return replace(_kinetics400(1e-5, 55, 5), reported=Reported(top1=84.4, source=SOURCE))


def uniformerv2_base_k710_1x1x8_5e_kinetics400_rgb() -> Recipe:
    """Return UniFormerV2-B on Kinetics-400, from a training on Kinetics-710; the classifier is new."""
    return replace(
        _kinetics400(2e-6, 5, 1),
        variant="k710",
        starts_from="UniFormerV2-B trained on Kinetics-710",
        reported=Reported(top1=85.6, source=SOURCE),
    )


def uniformerv2_base_1x1x16_22e_sthv2_rgb() -> Recipe:
    """Return UniFormerV2-B with local blocks on Something-Something v2, from the image network of CLIP.

    16 clips, each in two augmented views, on each of 8 GPUs. The test averages logits.
    """
    recipe = _kinetics400(4e-5, 22, 5)
    clips = SegmentClips(num_segments=16, margin=True)
    return replace(
        recipe,
        model=Build(uniformerv2_base, levels=8, local=True, stem=3, drop_path=0.2, level_drop_path=0.4),
        dataset="sthv2",
        train=replace(recipe.train, clips=clips, flip=0.0, repeats=2),
        val=replace(recipe.val, clips=clips),
        test=replace(recipe.test, clips=clips),
        batch_size=128,
        average="score",
        reported=Reported(top1=69.5, source=SOURCE),
    )

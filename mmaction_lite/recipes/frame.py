"""Frame encoders: an image model of timm on every frame, frozen, with frame positions and attention pooling.

    from mmaction_lite.recipes.frame import frame_recipe

    def my_recipe():
        return frame_recipe("vit_small_patch16_dinov3", num_frames=8)

`mmaction-lite train my.py:my_recipe --init-from model.safetensors` trains it, with timm's file of the image
model. Size, normalization and interpolation of the frames come from timm's configuration. Source of the
settings: the attentive probe of OneVision-Encoder (eval_encoder/attentive_probe.py), whose learning rate
decreases linearly; here it decreases along half a cosine.
"""

from dataclasses import replace

from mmaction_lite.data.sources.resample import Interpolation
from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import frame_encoder, tsn_timm
from mmaction_lite.models.frame_encoder import image_config
from mmaction_lite.optim import AdamW, Cosine
from mmaction_lite.recipes.recipe import Build, Recipe


def frame_recipe(image_model: str, *, num_frames: int = 8, size: int | None = None) -> Recipe:
    """Return the training of a frame encoder on few clips, with a frozen image model.

    The flip is off, because many video classes differ in the direction.

    Args:
        image_model: name in timm.
        num_frames: frames of a clip, one from each of equal parts of the video.
        size: side of the frames in pixels; None: that of timm's configuration. Other sizes need an image
            model without fixed positions.

    Raises:
        UserError: timm is not installed, or has no such model.
    """
    config = image_config(image_model)
    side = size or config.size[0]
    clips = SegmentFrames(num_segments=num_frames)
    interpolation: Interpolation = "bicubic" if config.interpolation == "bicubic" else "bilinear"
    crop = CenterCrop(size=(side, side))
    views = TestViews(clips=clips, short_side=side, crop=crop, interpolation=interpolation)
    return Recipe(
        model=Build(frame_encoder, image_model=image_model),
        dataset="own",
        train=TrainViews(
            clips=clips,
            crop=RandomResizedCrop(size=(side, side), area=(0.3, 1.0)),
            interpolation=interpolation,
        ),
        val=views,
        test=views,
        normalize=Normalize(mean=config.mean, std=config.std),
        optimizer=AdamW(lr=1e-4, weight_decay=0.0),
        schedule=Cosine(),
        epochs=10,
        batch_size=32,
        label_smoothing=0.1,
        max_grad_norm=5.0,
        freeze=("encoder",),
        precision="bfloat16",
        starts_from=f"{image_model} of timm",
    )


def tsn_recipe(image_model: str, *, num_frames: int = 8, size: int | None = None) -> Recipe:
    """Return `frame_recipe` with TSN in place of the attention pooling; arguments and errors as there.

    TSN does not depend on the order of the frames.
    """
    recipe = frame_recipe(image_model, num_frames=num_frames, size=size)
    return replace(recipe, model=Build(tsn_timm, image_model=image_model), freeze=("backbone",))

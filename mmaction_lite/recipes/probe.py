"""Probes on stored features of a frozen encoder, which is any network of the package."""

from dataclasses import fields, replace

import torch

from mmaction_lite.data.views.crops import CenterCrop, RandomResizedCrop
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.errors import UserError
from mmaction_lite.models.network import has_method
from mmaction_lite.models.probe import Arguments, encoder_builder, probe_attentive, probe_linear
from mmaction_lite.optim import AdamW, Cosine
from mmaction_lite.recipes.probe_settings import ProbeSettings
from mmaction_lite.recipes.recipe import Build, Recipe

STEPS = 2000
EPOCHS = 20, 100  # fewest and most


def probe_linear_1x1x8_50e_own_rgb() -> Recipe:
    """Return a linear probe on the mean features of any network.

    Encoder, views and normalization are those of the weights (`--init-from`). Without a setting
    `model.encoder`, the weights name the encoder.
    """
    clips = SegmentFrames(num_segments=8)
    views = TestViews(clips=clips, short_side=256, crop=CenterCrop(size=(224, 224)))
    return Recipe(
        model=Build(probe_linear),
        dataset="own",
        train=TrainViews(clips=clips, crop=RandomResizedCrop(size=(224, 224))),
        val=views,
        test=views,
        optimizer=AdamW(lr=1e-3),  # for the log; the heads have the learning rates of `probe`
        schedule=Cosine(),
        epochs=50,
        batch_size=64,
        val_every=5,
        probe=ProbeSettings(learning_rates=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2), weight_decays=(0.01, 0.1)),
    )


def probe_attentive_1x1x8_20e_own_rgb() -> Recipe:
    """Return the attentive probe of V-JEPA on the tokens of any network, with its published grid.

    Source: evals/video_classification_frozen of facebookresearch/vjepa2: AdamW, cosine schedule to 0, no
    warm-up, 20 epochs. Deviations: a batch of 64 instead of 256 clips, and stored features instead of a
    forward pass of the encoder in every epoch.
    """
    return replace(
        probe_linear_1x1x8_50e_own_rgb(),
        model=Build(probe_attentive),
        epochs=20,
        val_every=1,
        probe=ProbeSettings(
            learning_rates=(1e-4, 3e-4, 1e-3, 3e-3, 5e-3), weight_decays=(0.01, 0.1, 0.4, 0.8)
        ),
    )


def probe(recipe: Recipe, num_clips: int) -> Recipe:
    """Return a recipe that trains a probe on the network of `recipe`, which becomes the frozen encoder.

    Views and protocols do not change. The probe is attentive if the network has tokens, such as a video
    transformer, and otherwise linear. Batch size and epochs depend on the number of clips: about 2,000
    steps, at least 20 and at most 100 epochs.

    Args:
        recipe: the recipe of the initial weights, or any other recipe of the same network.
        num_clips: clips of the training split.

    Raises:
        UserError: the network is not one of the package, or there are fewer than 2 clips.
    """
    if recipe.probe is not None:
        return recipe
    if num_clips < 2:
        raise UserError(f"probe: {num_clips} training clips are too few; expected at least 2")
    builder = recipe.model.builder
    if encoder_builder(builder.__name__) is not builder:
        raise UserError(
            f"probe: {builder.__name__} of the recipe is no network of the package; expected one, because "
            "the weights of a probe store the name of its encoder"
        )
    with torch.device("meta"):
        has_tokens = has_method(recipe.model(num_classes=2), "tokens")
    template = probe_attentive_1x1x8_20e_own_rgb() if has_tokens else probe_linear_1x1x8_50e_own_rgb()
    batch_size = min(64, 1 << max(1, (num_clips // 4).bit_length() - 1))
    fewest, most = EPOCHS
    epochs = min(most, max(fewest, round(STEPS / (num_clips // batch_size))))
    return replace(
        template,
        model=with_encoder(template.model, builder.__name__, tuple(recipe.model.arguments.items())),
        train=replace(recipe.train, repeats=1),
        val=recipe.val,
        test=recipe.test,
        normalize=recipe.normalize,
        average=recipe.average,
        modality=recipe.modality,
        task=recipe.task,
        epochs=epochs,
        batch_size=batch_size,
        val_every=max(1, epochs // 20),
        starts_from=recipe.name,
    )


def with_encoder(model: Build, encoder: str, arguments: Arguments) -> Build:
    """Return the builder of a probe with another encoder."""
    kept = {name: value for name, value in model.arguments.items() if name != "width"}
    return Build(model.builder, **kept | {"encoder": encoder, "arguments": arguments})


def adopt_views(recipe: Recipe, val: Protocol, test: Protocol) -> Recipe:
    """Return the recipe of a probe with the protocols of the weights of its encoder.

    Training views have one clip of the sampler of `val`, and random crops of its size.
    """
    clips = val.views.clips
    if "num_clips" in {field.name for field in fields(clips)}:
        clips = replace(clips, num_clips=1)  # pyright: ignore[reportCallIssue]  SegmentFrames has no such field
    crop = RandomResizedCrop(size=val.views.crop.size)
    return replace(
        recipe,
        train=TrainViews(
            clips=clips,
            crop=crop,
            antialias=val.views.antialias,
            interpolation=val.views.interpolation,
        ),
        val=val.views,
        test=test.views,
        normalize=val.normalize,
        average=test.average,
    )


def encoder_of(recipe: Recipe) -> Build | None:
    """Return the builder of the encoder of a probe; None if the recipe leaves it to the weights."""
    given = recipe.model.arguments
    if "encoder" not in given:
        return None
    width = {"width": given["width"]} if given.get("width") is not None else {}
    return Build(encoder_builder(given["encoder"]), **dict(given.get("arguments", ())) | width)

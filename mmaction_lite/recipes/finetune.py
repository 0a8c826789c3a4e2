"""Fine-tuning settings for small data sets: 50 to 20,000 clips on one device, within a few hours."""

from dataclasses import replace

from mmaction_lite.errors import UserError
from mmaction_lite.optim import AdamW, OneCycle
from mmaction_lite.recipes.recipe import Recipe

STEPS = 4000
EPOCHS = 12, 60  # fewest and most
FEWEST_CLIPS = 4  # the smallest batch size


def finetune(recipe: Recipe, num_clips: int) -> Recipe:
    """Return a recipe that fine-tunes the network of `recipe` on a small data set.

    Network, views, flips and protocols do not change. The changes:

    * The learning rate of each layer is 0.7 times that of the layer above; the classifier has the full rate.
      Early layers compute general features and need the smallest changes (`optim.decay_layers`).
    * Batch normalization uses the running statistics of the initial weights, because batches are small
      (`batch_norm`).
    * AdamW with a short warm-up and a cosine schedule, whose learning rate needs no search; label smoothing
      of 0.1.
    * About 4,000 steps, at least 12 and at most 60 epochs. The training stops after ten validations in a row
      without improvement.

    Args:
        recipe: the recipe of the initial weights, or any other recipe of the same network.
        num_clips: clips of the training split.

    Raises:
        UserError: the recipe trains a probe, or there are fewer than 4 clips, the smallest batch size.
    """
    if recipe.probe is not None:
        raise UserError(
            f"fine-tuning: {recipe.name} trains a probe, whose encoder stays frozen; expected a recipe of "
            "the network. Pass one, or omit --finetune"
        )
    if num_clips < FEWEST_CLIPS:
        raise UserError(
            f"fine-tuning: the number of training clips is {num_clips}; expected at least {FEWEST_CLIPS}"
        )
    batch_size = min(32, max(FEWEST_CLIPS, 1 << (num_clips // 16).bit_length()))
    steps_per_epoch = num_clips // batch_size
    fewest, most = EPOCHS
    epochs = min(most, max(fewest, round(STEPS / steps_per_epoch)))
    return replace(
        recipe,
        dataset="own",
        variant="",  # names a change of the original training schedule
        optimizer=AdamW(lr=1e-3, groups="no_decay", layer_decay=0.7),
        schedule=OneCycle(rise=0.1),
        epochs=epochs,
        batch_size=batch_size,
        multigrid=None,
        clips_per_device=None,
        norm_clips=None,
        batch_norm="frozen",
        precise_bn_clips=0,
        label_smoothing=0.1,
        max_grad_norm=20.0,
        val_every=max(1, epochs // 20),
        patience=10,
        starts_from=recipe.name,
        reported=None,
    )

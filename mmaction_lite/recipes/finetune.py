"""From trained weights to own clips: 50 to 20,000 of them, on one device, in an evening."""

from dataclasses import replace

from mmaction_lite.errors import UserError
from mmaction_lite.optim import AdamW, OneCycle
from mmaction_lite.recipes.recipe import Recipe

STEPS = 4000
EPOCHS = 12, 60  # fewest and most


def finetune(recipe: Recipe, num_clips: int) -> Recipe:
    """The training of `recipe` changed to go from weights for its network to a small data set.

    Network, views, mirroring and protocols stay. What changes, and why:

    * every stage has 0.7 times the lr of the one above it, the new classifier the whole: early layers hold
      what all videos have in common (`optim.decay_layers`);
    * running statistics stay, for batches are small (`batch_norm`);
    * AdamW with a short warm-up and a cosine: no lr to search for; labels smoothed by 0.1;
    * about 4,000 steps, at least 12 and at most 60 epochs; ten validations in a row without a better one
      end it.

    Args:
        recipe: the training that the weights come from, or any other of the same network.
        num_clips: of the training split.

    Raises:
        UserError: there are fewer clips than the smallest batch, 4.
    """
    if num_clips < 4:
        raise UserError(f"{num_clips} training clips are too few to fine-tune on; expected at least 4")
    batch_size = min(32, max(4, 1 << (num_clips // 16).bit_length()))
    steps_per_epoch = num_clips // batch_size
    fewest, most = EPOCHS
    epochs = min(most, max(fewest, round(STEPS / steps_per_epoch)))
    return replace(
        recipe,
        dataset="own",
        variant="",  # which says how a training is another
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

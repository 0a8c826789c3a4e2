"""Checks before a training: whether recipe, data and processes fit together; and the printed summary."""

import copy
import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from mmaction_lite.data.annotations.groups import shared_groups
from mmaction_lite.data.annotations.label_flips import (
    describe_flips,
    mirror_labels,
    mirrored_classes,
    reverse_labels,
    reversed_classes,
)
from mmaction_lite.data.annotations.paths import exists
from mmaction_lite.data.annotations.samples import Samples, absolute, is_remote
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.sources.shards import is_packed
from mmaction_lite.data.views.crops import TenCrop
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError, describe, printable
from mmaction_lite.inference.scores import forward_options
from mmaction_lite.models.network import has_layers
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.tasks.named import uses_labels
from mmaction_lite.training.progress import MAX_BROKEN_SHARE
from mmaction_lite.weights.card import ModelCard, check_cost

CHECKED_FILES = 1000
MOST_TRAIN_BYTES = 256 << 20  # of the training views of one video; published recipes take up to 5 MB


def check_fit(
    recipe: Recipe, samples: Samples, batch_plan: BatchPlan, context: DistributedContext, shard: bool
) -> None:
    """Check that recipe, data, processes and device fit together.

    Args:
        recipe: the recipe.
        samples: the training split.
        batch_plan: batch sizes.
        context: processes and device.
        shard: whether weights and optimizer state are divided over the processes.

    Raises:
        UserError: they do not fit; the message names the change that is needed.
    """
    if recipe.precision == "float16" and context.device.type == "cpu":
        raise UserError(
            "precision float16 needs a GPU; on a CPU use float32, or bfloat16 if the CPU supports it"
        )
    _check_pixels(recipe)
    largest = max(size for size, _ in batch_plan.batches)
    if len(samples) < largest:
        times = largest // recipe.batch_size
        of_multigrid = f" ({times} times batch_size, in the smallest shape of multigrid)" if times > 1 else ""
        fitting = len(samples) // times
        advice = (
            f"lower it, for example with --set batch_size={fitting}"
            if fitting
            else "use a recipe without multigrid"
        )
        raise UserError(
            f"{samples.source}: {len(samples)} clips are fewer than one batch of {largest}{of_multigrid}; "
            f"{advice}"
        )
    recipe.task.check_labels(samples.label_columns, samples.source)
    strata = samples.strata() if uses_labels(recipe.task) else None
    if strata is not None and len(np.unique(strata)) < 2:
        raise UserError(
            f"{samples.source}: all clips have the class '{printable(samples.class_names(0)[0], 100)}'; "
            "training needs clips of at least two classes"
        )
    weights, num_classes = recipe.class_weights, len(samples.classes)
    if isinstance(weights, tuple) and len(weights) != num_classes:
        raise UserError(
            f"{len(weights)} class_weights for {num_classes} classes of {samples.source}; expected one for "
            "each class, or 'balanced'"
        )
    if recipe.train.flip > 0:
        mirrored_classes(samples.classes)  # raises if the opposite class is missing
    if recipe.train.reverse > 0:
        reversed_classes(samples.classes)
    if shard and (recipe.ema_decay is not None or recipe.compile is not None):
        raise UserError("--shard cannot be combined with ema_decay or compile; omit one of them")
    if shard and recipe.unfreeze is not None:
        raise UserError("--shard cannot be combined with unfreeze; omit one of them")
    if shard and recipe.probe is not None:
        raise UserError("--shard cannot be combined with a probe, whose encoder is not trained; omit --shard")
    unit = context.world_size * (1 if recipe.mixing is None else 2)
    if context.world_size > 1 and recipe.batch_size % unit:
        raise UserError(
            f"batch_size {recipe.batch_size} cannot be divided evenly over {context.world_size} processes"
            f"{'' if recipe.mixing is None else ', in pairs for mixing'}; use a multiple of {unit}"
        )


def _check_pixels(recipe: Recipe) -> None:
    """Check that the views of one video fit into memory, in training, validation and test.

    Raises:
        UserError: they do not.
    """
    train = recipe.train
    num_bytes = train.clips.num_clips * train.repeats * math.prod(train.view_shape)
    if num_bytes > MOST_TRAIN_BYTES:
        size = "x".join(map(str, train.crop.size))
        raise UserError(
            f"the training views, {train.clips} frames of {size} pixels, take {num_bytes / 1e9:.3g} GB of "
            f"memory per video; expected at most {MOST_TRAIN_BYTES / 1e9:.3g} GB. Lower a field of "
            "train.clips, train.crop or train.repeats"
        )
    for name, protocol in (("val", recipe.val_protocol), ("test", recipe.test_protocol)):
        check_cost(protocol, name)


def check_files(samples: Samples, report: Callable[[str], None]) -> None:
    """Check that the files of a split exist: of all clips, or of `CHECKED_FILES` spread over the list.

    Remote files and members of tar files are not checked.

    Args:
        samples: the split.
        report: called with a line if few files are missing, or if clips are on servers.

    Raises:
        UserError: a larger share of the files is missing than a training accepts.
    """
    chosen = np.linspace(0, len(samples) - 1, min(len(samples), CHECKED_FILES)).round().astype(int)
    paths = [samples.path(sample) for sample in chosen.tolist()]
    if remote := [absolute(path) for path in paths if is_remote(path)]:
        report(f"note: {samples.source}: lists addresses, which are opened, such as {remote[0]}")
    files = [path for path in paths if not is_packed(path)]
    missing = [path for path in files if not exists(str(path), Path())]
    if not missing:
        return
    line = (
        f"{samples.source}: {len(missing):,} of {len(files):,} checked files are missing, for example "
        f"{missing[0]}"
    )
    if len(missing) > MAX_BROKEN_SHARE * len(files):
        raise UserError(f"{line}. Paths are relative to {samples.root}; correct the list, or copy the files")
    report(f"note: {line}")


def check_windows(recipe: Recipe, model: nn.Module) -> None:
    """Check that the network can classify the windows of the recipe's protocols, before it is trained.

    The forward passes run on the meta device, without data.

    Args:
        recipe: the recipe.
        model: the network; put into evaluation mode if the recipe has a window.

    Raises:
        UserError: its forward method takes no window, or a window is larger than the features.
    """
    if recipe.window is None:
        return
    for protocol in (recipe.val_protocol, recipe.test_protocol):
        options = forward_options(model.eval(), protocol)
        if isinstance(model, Recognizer):
            tensors = dict(chain(model.named_parameters(), model.named_buffers()))
            tensors = {name: tensor.to("meta") for name, tensor in tensors.items()}
            frames, height, width, channels = protocol.views.view_shape
            clip = torch.empty(1, channels, frames, height, width, device="meta")
            with torch.no_grad():
                torch.func.functional_call(model, tensors, (clip,), options)


def check_forward(recipe: Recipe, model: nn.Module, num_logits: int) -> None:
    """Check that the network computes logits for the clips of training, validation and test.

    The forward passes run in evaluation mode on the meta device, without data. If they fail, a copy of a
    network from outside of the package classifies a clip of zeros, because an operation may lack the meta
    device.

    Args:
        recipe: the recipe.
        model: the network; it does not change.
        num_logits: number of logits that the classes need.

    Raises:
        UserError: the forward pass raises an exception, or returns something else than the logits.
    """
    views = [recipe.train] if recipe.window else [recipe.train, recipe.val, recipe.test]
    for frames, height, width, channels in dict.fromkeys(view.view_shape for view in views):
        shape = (1, channels, frames, height, width)
        logits = error = None
        for device in ("meta",) if isinstance(model, Recognizer) else ("meta", "cpu"):
            try:
                # A copy, because a model may keep tensors that depend on the device of its input.
                copied = copy.deepcopy(model).to(device).eval()
                with torch.no_grad(), torch.random.fork_rng(devices=[]):
                    logits, error = copied(torch.zeros(shape, device=device)), None
                break
            except Exception as cause:  # a model of the user can raise any exception
                error = cause
        if error is not None:
            raise UserError(
                f"{type(model).__name__}: the forward pass fails for clips of shape {shape}, (B, C, T, H, W)"
                f": {describe(error)}. Correct the model, or the views of the recipe"
            )
        if not isinstance(logits, torch.Tensor) or logits.shape != (1, num_logits):
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
            raise UserError(
                f"{type(model).__name__}: the forward pass returns {found} for clips of shape {shape}; "
                f"expected logits of shape (1, {num_logits})"
            )


def print_summary(
    recipe: Recipe,
    card: ModelCard,
    samples: Samples,
    val_samples: Samples,
    batch_plan: BatchPlan,
    *,
    model: nn.Module,
    context: DistributedContext,
    num_workers: int,
    console: Console,
) -> None:
    """Print recipe, data and device of a training, with notes on what may be a mistake.

    Args:
        recipe: the recipe.
        card: model card of the run, which names the initial weights.
        samples: the training split.
        val_samples: the validation split.
        batch_plan: number of steps.
        model: the network, of which trained parameters are counted.
        context: processes and device.
        num_workers: decoding workers of each process.
        console: where to print.
    """
    counts = samples.counts()
    changed = {setting.partition("=")[0] for setting in recipe.modified}
    lr_note = "" if "optimizer.lr" in changed else " (the recipe's own)"
    lines = [
        f"{recipe.name}{' (modified: ' + ', '.join(recipe.modified) + ')' if recipe.modified else ''}",
        f"on {context}, {_workers(num_workers)}; {_parameters(recipe, model)}, "
        f"{recipe.precision}; batch {_batch(recipe, context)}, lr {recipe.optimizer.lr:g}{lr_note}, "
        f"{recipe.epochs} {'epoch' if recipe.epochs == 1 else 'epochs'}",
        f"train: {samples.source}: {len(samples)} clips, {len(counts)} classes with {_spread(counts)}",
        f"val: {val_samples.source}: {len(val_samples)} clips; {recipe.val_protocol}",
    ]
    if recipe.multigrid is not None:
        batches = [
            f"{phase.batch * recipe.batch_size} clips of {phase.clip_len}x{phase.side}"
            for phase in recipe.multigrid.phases
        ]
        lines.append(
            f"multigrid: {batches[0]} first, {batches[-1]} last; {batch_plan.first_step(recipe.epochs)} steps"
        )
    lines += _notes(recipe, card, samples, val_samples, model)
    lines = [printable(line, 4000) for line in lines]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _notes(
    recipe: Recipe, card: ModelCard, samples: Samples, val_samples: Samples, model: nn.Module
) -> list[str]:
    """Return the notes of `print_summary`."""
    counts, notes = samples.counts(), list(dict.fromkeys((*samples.notes, *val_samples.notes)))
    changed = {setting.partition("=")[0] for setting in recipe.modified}
    if counts.max() > 10 * max(1, counts.min()) and not recipe.class_balance and recipe.class_weights is None:
        notes.append(
            "classes are uneven; --set class_balance=0.5 draws rare classes more often, "
            "--set class_weights=balanced gives them more weight in the loss"
        )
    empty = [samples.classes[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        notes.append(f"no training clips for {len(empty)} classes: {', '.join(empty[:5])}")
    notes += _flip_notes(recipe, samples.classes)
    notes += shared_groups(samples, val_samples, "val")
    if Path(val_samples.source).stem.startswith("test"):
        notes.append("the best epoch is chosen on the test split, because there is no val split")
    if "batch_size" in changed and "optimizer.lr" not in changed:
        notes.append(
            f"lr {recipe.optimizer.lr:g} belongs to the recipe's batch size, which you changed; usually both "
            "are scaled by the same factor: --set optimizer.lr=..."
        )
    if recipe.starts_from and not card.started_from:
        subject = "published result" if recipe.reported else "recipe"
        notes.append(f"the {subject} starts from {recipe.starts_from} weights; pass them as --init-from")
    if recipe.unfreeze is not None and recipe.unfreeze.epoch >= recipe.epochs:
        notes.append(
            f"only the classifier is trained: the training ends at epoch {recipe.epochs}, and the other "
            f"layers are frozen until epoch {recipe.unfreeze.epoch}"
        )
    if getattr(recipe.optimizer, "layer_decay", 1.0) != 1.0 and not has_layers(model):
        notes.append(
            f"layer_decay has no effect: {type(model).__name__} has no method layers() that returns its "
            "layers from the stem to the head"
        )
    return [f"note: {note}" for note in notes]


def _flip_notes(recipe: Recipe, classes: Sequence[str]) -> list[str]:
    """Return notes on the classes that flipped and reversed clips have."""
    notes = []
    if recipe.train.flip > 0:
        notes += describe_flips(classes, mirror_labels(classes), "mirrored")
    if recipe.train.reverse > 0:
        notes += describe_flips(classes, reverse_labels(classes), "reversed")
    if isinstance(recipe.test.crop, TenCrop) and describe_flips(classes, mirror_labels(classes), "mirrored"):
        notes.append(
            "the test averages mirrored crops (TenCrop), which show the opposite class where classes have a "
            "side; use a recipe whose test has a ThreeCrop or a CenterCrop"
        )
    return notes


def _parameters(recipe: Recipe, model: nn.Module) -> str:
    """Describe the number of trained parameters."""
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if trained == total:
        return f"{trained / 1e6:.2f} M trained parameters"
    later = f", the others from epoch {recipe.unfreeze.epoch}" if recipe.unfreeze else ""
    return f"{trained / 1e6:.3g} of {total / 1e6:.2f} M parameters trained{later}"


def _workers(number: int) -> str:
    """Describe the decoding workers of each process."""
    if number == 0:
        return "decoding without worker processes"
    return f"{number} decoding workers each"


def _spread(counts: np.ndarray) -> str:
    """Describe the number of clips per class."""
    if counts.min() == counts.max():
        return f"{counts.min()} clips each"
    return f"{counts.min()} to {counts.max()} clips (median {np.median(counts):g})"


def _batch(recipe: Recipe, context: DistributedContext) -> str:
    """Describe the batch size, and its division over processes and parts."""
    own = recipe.batch_size // context.world_size
    parts = [f"{context.world_size} × {own}"] if context.world_size > 1 else []
    if recipe.clips_per_device is not None and recipe.clips_per_device < own:
        parts.append(f"{recipe.clips_per_device} at a time")
    return f"{recipe.batch_size}" + (f" ({', '.join(parts)})" if parts else "")

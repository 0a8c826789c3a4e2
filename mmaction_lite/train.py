"""The training loop, top to bottom."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from mmaction_lite.data.annotations import read_split
from mmaction_lite.data.cache import Caches
from mmaction_lite.data.loader import MIX, VideoDataset, generator, training_loader
from mmaction_lite.data.samples import Samples
from mmaction_lite.data.workers import HANG_SECONDS
from mmaction_lite.device import default_workers, pick_device
from mmaction_lite.errors import Interrupted, UserError
from mmaction_lite.evaluate import evaluate
from mmaction_lite.optim import set_lr
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.recipes.weights import Card
from mmaction_lite.run import Progress, Run
from mmaction_lite.watch import Quarantine, Watch

T = TypeVar("T")


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    device: str = "auto",
    num_workers: int | None = None,
    hang_seconds: float = HANG_SECONDS,
    seed: int = 0,
    caches: Caches | None = None,
    console: Console | None = None,
) -> Progress:
    """Train `recipe` on the train split of `data`, validate on its val split, leave a run folder at `out`.

    Args:
        recipe: what to train.
        data: see `data.annotations`.
        out: a new or empty folder, or, to `resume`, that of the interrupted run.
        resume: go on after the last finished epoch, or after the step at which a signal stopped the run.
            The result is that of an uninterrupted run: on a CPU with one thread, bit for bit.
        init_from: a checkpoint to start from, ours or another project's; only a classifier for another
            number of classes is left as it is. A resumed run has started already.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        num_workers: decoding processes; None chooses.
        hang_seconds: a video that takes a decoding process longer than this is not opened again.
        seed: of everything random.
        caches: clips in memory, to share between trainings.
        console: for messages and the progress bar; None writes to standard error.

    Returns:
        steps done and the best validation.

    Raises:
        UserError: the message says what is wrong with data, folder, device or loss.
        Interrupted: a signal came; `last.pt` is up to date.
    """
    console = console or Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    target = pick_device(device)
    if data.is_file():
        raise UserError(f"{data}: is one list; training needs a folder with a train and a val list")
    samples = read_split(data, "train")
    val_samples = read_split(data, "val", samples.classes)
    steps_per_epoch = len(samples) // recipe.batch_size
    last_step = recipe.epochs * steps_per_epoch
    if steps_per_epoch == 0:
        raise UserError(
            f"{samples.source}: {len(samples)} clips are fewer than one batch of {recipe.batch_size}; "
            f"lower it, for example with --set batch_size={len(samples)}"
        )
    run = Run(out, recipe, seed, samples, resume)
    torch.manual_seed(seed)
    model = run.card.build(recipe)
    if init_from is not None and not resume:
        say(str(run.start_from(init_from, model)))
    model = model.to(target)
    optimizer = recipe.optimizer.build(model)
    progress = run.begin(model, optimizer)

    caches = caches or Caches()
    cache = caches.of(samples, recipe.train)
    val_cache = caches.of(val_samples, recipe.val) if cache else None
    workers = num_workers if num_workers is not None else 0 if cache else default_workers()
    val_workers = num_workers if num_workers is not None else 0 if val_cache else default_workers()
    dataset = VideoDataset(samples, recipe.train, cache, seed)
    loader = training_loader(
        dataset,
        recipe.batch_size,
        progress.step,
        last_step,
        workers,
        target.type == "cuda",
        hang_seconds,
        say,
        recipe.class_balance,
    )
    quarantine = Quarantine(out, len(samples))
    watch = Watch(out, samples, progress.step, last_step, steps_per_epoch, console)
    _announce(recipe, run.card, samples, val_samples, model, target, workers, console)

    def validate() -> None:
        """Score the validation split, keep the weights if they are the best so far."""
        result = evaluate(
            model,
            val_samples,
            recipe.val,
            recipe.normalize,
            num_workers=val_workers,
            hang_seconds=hang_seconds,
            cache=val_cache,
            track=lambda clips, total, title: _until_stopped(clips, stop),
        )
        model.train()
        if stop.is_set():  # the scores are not complete; a resumed run begins with this validation
            return
        watch.validated(progress.step, result)
        progress.validated_step = progress.step
        if result.metrics["top1"] > progress.best_top1:
            progress.best_top1, progress.best_step = result.metrics["top1"], progress.step
            run.save_best(progress, model, result)
        run.save_last(progress, model, optimizer)

    def is_due(step: int) -> bool:
        epoch, inside = divmod(step, steps_per_epoch)
        return step > 0 and inside == 0 and (epoch % recipe.val_every == 0 or epoch == recipe.epochs)

    with watch, _stop_signals(console) as stop:
        if is_due(progress.step) and progress.validated_step < progress.step:
            validate()
        model.train()
        began = perf_counter()
        for step, batch in enumerate(_until_stopped(loader, stop), progress.step):
            data_seconds = perf_counter() - began
            quarantine.add(batch.faults)
            _seed_step(seed, step)
            lr = recipe.optimizer.lr * recipe.schedule.factor(step / steps_per_epoch, recipe.epochs)
            set_lr(optimizer, lr)

            pixels = batch.pixels.to(target, non_blocking=True)  # (B, V, T, H, W, C)
            labels = batch.labels.to(target, non_blocking=True).flatten()  # (B·V,)
            optimizer.zero_grad()  # before the forward pass: gradients and all activations never coexist
            inputs, targets = recipe.normalize(pixels.flatten(0, 1)), labels
            if recipe.mixing is not None:
                targets = one_hot(labels, len(samples.classes)).to(inputs.dtype)
                rng = generator(seed, MIX, step)
                inputs, targets = recipe.mixing(inputs, targets, rng, num_views=pixels.shape[1])
            logits = model(inputs)
            loss = cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
            loss.backward()
            if recipe.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            optimizer.step()

            progress.step = step + 1
            right = (logits.argmax(1) == labels).float().mean()
            watch.step(progress.step, lr, loss, right, batch.samples, began, data_seconds)
            if progress.step % steps_per_epoch == 0:
                watch.settle()
                run.save_last(progress, model, optimizer)
                if is_due(progress.step):
                    validate()
            began = perf_counter()
        watch.settle()
        if progress.step < last_step or progress.validated_step < last_step:
            run.save_last(progress, model, optimizer)
            raise Interrupted(
                f"stopped at step {progress.step} of {last_step}, saved; "
                "go on with the same command and --resume"
            )
    run.finish()
    if quarantine.paths:
        say(f"{len(quarantine.paths)} of {len(samples)} clips could not be read: {quarantine.file}")
    return progress


def _seed_step(seed: int, step: int) -> None:
    """Give PyTorch's generator (dropout) a state that depends on the step alone, so none must be saved."""
    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


@contextmanager
def _stop_signals(console: Console) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into a flag that is read between two steps; a second acts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(*_: object) -> None:
        stop.set()
        restore()
        console.print("stopping after this step (once more to stop at once)")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        restore()


def _until_stopped(batches: Iterable[T], stop: threading.Event) -> Iterator[T]:
    """The batches, until somebody asks to stop."""
    batches = iter(batches)
    while not stop.is_set():
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, EOFError, OSError):
            if not stop.is_set():
                raise
            return  # the signal went to all processes, and the workers died of it first
        yield batch


def _announce(
    recipe: Recipe,
    card: Card,
    samples: Samples,
    val_samples: Samples,
    model: nn.Module,
    device: torch.device,
    workers: int,
    console: Console,
) -> None:
    """Say what will run."""
    counts = samples.counts()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lines = [
        f"{recipe.name}{' (modified: ' + ', '.join(recipe.modified) + ')' if recipe.modified else ''}",
        f"on {device}, {workers} decoding processes; {trained / 1e6:.2f} M trained parameters; "
        f"batch {recipe.batch_size}, lr {recipe.optimizer.lr:g}, {recipe.epochs} epochs",
        f"train: {samples.source}: {len(samples)} clips, {len(counts)} classes with "
        f"{counts.min()} to {counts.max()} clips (median {np.median(counts):g})",
        f"val: {val_samples.source}: {len(val_samples)} clips; {recipe.val}",
    ]
    empty = [samples.classes[i] for i in np.flatnonzero(counts == 0)]
    if empty:
        lines.append(f"note: no training clips for {len(empty)} classes: {', '.join(empty[:5])}")
    if Path(val_samples.source).stem.startswith("test"):
        lines.append("note: the best epoch is chosen on the test split, for there is no val split")
    changed = {setting.partition("=")[0] for setting in recipe.modified}
    if "batch_size" in changed and "optimizer.lr" not in changed:
        lines.append(
            f"note: lr {recipe.optimizer.lr:g} goes with the recipe's own batch size, and you changed that; "
            "most scale both by the same factor: --set optimizer.lr=..."
        )
    if recipe.starts_from and not card.started_from:
        lines.append(
            f"note: the published result starts from {recipe.starts_from} weights; pass them as --init-from"
        )
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

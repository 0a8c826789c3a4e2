"""The training loop, top to bottom."""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmaction_lite.data.annotations import read_split
from mmaction_lite.data.cache import Caches
from mmaction_lite.data.loader import MIX, VideoDataset, generator, training_loader
from mmaction_lite.data.samples import Samples
from mmaction_lite.data.workers import HANG_SECONDS
from mmaction_lite.device import default_workers, pick_device
from mmaction_lite.errors import Interrupted, UserError
from mmaction_lite.evaluate import evaluate
from mmaction_lite.loss import balanced_weights, clip_losses, dense, hits
from mmaction_lite.optim import freeze, set_lr
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.recipes.weights import Card
from mmaction_lite.run import Progress, Run
from mmaction_lite.watch import Quarantine, Watch

T = TypeVar("T")
# Ctrl-C, an end asked for politely, and what batch systems send some time before the end of a job.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]


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
    if recipe.precision == "float16" and target.type == "cpu":
        raise UserError(
            "precision float16 needs a GPU; on a processor use float32, or bfloat16 where it has that"
        )
    if data.is_file():
        raise UserError(f"{data}: is one list; training needs a folder with a train and a val list")
    samples = read_split(data, "train")
    val_samples = read_split(data, "val", samples.classes)
    class_weights = _class_weights(recipe, samples, target)
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
    still = freeze(model, recipe.freeze)
    optimizer = recipe.optimizer.build(model)
    scaler = torch.amp.GradScaler(target.type, enabled=recipe.precision == "float16")
    states: dict[str, Any] = {"optimizer": optimizer, "scaler": scaler}
    average = None
    if recipe.ema_decay is not None:
        average = states["average"] = _average(model, recipe.ema_decay)
    progress = run.begin(model, states)
    judged = model if average is None else average.module

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
            judged,
            val_samples,
            recipe.val,
            recipe.normalize,
            activation=run.card.activation,
            num_workers=val_workers,
            hang_seconds=hang_seconds,
            cache=val_cache,
            track=lambda clips, total, title: _until_stopped(clips, stop),
        )
        _train_mode(model, still)
        if stop.is_set():  # the scores are not complete; a resumed run begins with this validation
            return
        watch.validated(progress.step, result)
        progress.validated_step = progress.step
        progress.metric, score = next(iter(result.metrics.items()))
        if score > progress.best_score:
            progress.best_score, progress.best_step = score, progress.step
            run.save_best(progress, judged, result)
        run.save_last(progress, model, states)

    def is_due(step: int) -> bool:
        epoch, inside = divmod(step, steps_per_epoch)
        return step > 0 and inside == 0 and (epoch % recipe.val_every == 0 or epoch == recipe.epochs)

    with watch, _stop_signals(console) as stop:
        if is_due(progress.step) and progress.validated_step < progress.step:
            validate()
        _train_mode(model, still)
        began = perf_counter()
        for step, batch in enumerate(_until_stopped(loader, stop), progress.step):
            data_seconds = perf_counter() - began
            quarantine.add(batch.faults)
            _seed_step(seed, step)
            lr = recipe.optimizer.lr * recipe.schedule.factor(step / steps_per_epoch, recipe.epochs)
            set_lr(optimizer, lr)

            pixels = batch.pixels.to(target, non_blocking=True)  # (B, V, T, H, W, C)
            labels = batch.labels.to(target, non_blocking=True).flatten(0, 1)  # (B·V,) or (B·V, K)
            if recipe.mixing is not None:
                labels = dense(labels, len(samples.classes))
            optimizer.zero_grad()  # before the forward pass: gradients and all activations never coexist
            rng = generator(seed, MIX, step)
            loss, right = _add_gradients(model, recipe, pixels, labels, class_weights, rng, scaler)
            if recipe.max_grad_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            if average is not None:
                average.update_parameters(model)

            progress.step = step + 1
            watch.step(progress.step, lr, loss, right, batch.samples, began, data_seconds)
            if progress.step % steps_per_epoch == 0:
                watch.settle()
                run.save_last(progress, model, states)
                if is_due(progress.step):
                    validate()
            began = perf_counter()
        watch.settle()
        if progress.step < last_step or progress.validated_step < last_step:
            run.save_last(progress, model, states)
            raise Interrupted(
                f"stopped at step {progress.step} of {last_step}, saved; "
                "go on with the same command and --resume"
            )
    run.finish()
    if quarantine.paths:
        say(f"{len(quarantine.paths)} of {len(samples)} clips could not be read: {quarantine.file}")
    return progress


def _add_gradients(
    model: nn.Module,
    recipe: Recipe,
    pixels: Tensor,
    labels: Tensor,
    class_weights: Tensor | None,
    rng: np.random.Generator,
    scaler: torch.amp.GradScaler,
) -> tuple[Tensor, Tensor]:
    """Forward and backward pass of one step, in parts of `clips_per_device`.

    Args:
        model: the network, whose gradients grow.
        recipe: see there.
        pixels: uint8 (B, V, T, H, W, C).
        labels: int64 (B·V,), or where clips are mixed or have several classes float32 (B·V, K).
        class_weights: float32 (K,).
        rng: for mixing; every part is mixed alike.
        scaler: scales the loss where precision is float16.

    Returns:
        the mean loss and the share of the clips that are right, 0-d.
    """
    num_views = pixels.shape[1]
    size = len(labels)
    if recipe.clips_per_device is not None:  # whole videos, and pairs of them where they are mixed
        unit = num_views * (1 if recipe.mixing is None else 2)
        size = max(unit, recipe.clips_per_device // unit * unit)
    loss, right = torch.zeros((), device=labels.device), torch.zeros((), device=labels.device)
    state = rng.bit_generator.state
    for part, truth in zip(pixels.flatten(0, 1).split(size), labels.split(size), strict=True):
        inputs, targets = recipe.normalize(part), truth
        if recipe.mixing is not None:
            rng.bit_generator.state = state
            inputs, targets = recipe.mixing(inputs, truth, rng, num_views=num_views)
        dtype = getattr(torch, recipe.precision)
        with torch.autocast(labels.device.type, dtype, enabled=dtype != torch.float32):
            logits = model(inputs)
        share = len(truth) / len(labels)
        losses = clip_losses(logits, targets, recipe.loss, recipe.label_smoothing, class_weights)
        part_loss = losses.mean() * share
        scaler.scale(part_loss).backward()
        loss += part_loss.detach()
        right += hits(logits, truth).mean() * share
    return loss, right


def _class_weights(recipe: Recipe, samples: Samples, device: torch.device) -> Tensor | None:
    """Weights of the classes in the loss, float32 (K,); checks that the loss fits the labels."""
    if samples.is_multi_label and recipe.loss == "cross_entropy":
        raise UserError(
            f"{samples.source}: clips have any number of classes, and cross entropy is for exactly one; "
            "use --set loss=binary_cross_entropy"
        )
    weights = recipe.class_weights
    if weights is None:
        return None
    if weights == "balanced":
        return torch.from_numpy(balanced_weights(samples.counts())).to(device)
    if len(weights) != len(samples.classes):
        raise UserError(
            f"{len(weights)} class_weights for {len(samples.classes)} classes of {samples.source}"
        )
    return torch.tensor(weights, device=device)


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential average of weights and running statistics, which begins with those of the first step."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _train_mode(model: nn.Module, still: list[nn.Module]) -> None:
    """Training mode, but for what is frozen: its running statistics stay."""
    model.train()
    for module in still:
        module.train(False)


def _seed_step(seed: int, step: int) -> None:
    """Give PyTorch's generator (dropout) a state that depends on the step alone, so none must be saved."""
    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


@contextmanager
def _stop_signals(console: Console) -> Iterator[threading.Event]:
    """Turn the first of the signals into a flag that is read between two steps; a second acts at once."""
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

    before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
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

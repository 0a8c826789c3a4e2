"""`train`: one training from start to end, with validations, checkpoints and stop signals."""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from threading import Event
from time import perf_counter
from typing import NamedTuple

import torch
from rich.console import Console

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.lifetime import require_main_guard
from mmaction_lite.data.loading.loader import Batch, Fault
from mmaction_lite.data.loading.workers import ONE_PER_CORE, WorkerSettings
from mmaction_lite.distributed import DistributedContext, init_distributed
from mmaction_lite.errors import Interrupted, UserError, printable
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.training.clips import TrainingClips, read_splits
from mmaction_lite.training.encoder import Encoder, find_encoder, load_encoder
from mmaction_lite.training.preflight import (
    check_files,
    check_fit,
    check_forward,
    check_windows,
    print_summary,
)
from mmaction_lite.training.probe import build_probe
from mmaction_lite.training.probe_clips import ProbeClips
from mmaction_lite.training.progress import Quarantine, TrainingLog, WandbBoard, import_wandb
from mmaction_lite.training.resume import adapt_files, step_at
from mmaction_lite.training.run_folder import Progress, RunFolder
from mmaction_lite.training.signals import stop_signals, until_stopped
from mmaction_lite.training.state import build_state
from mmaction_lite.training.training import Training, class_weights
from mmaction_lite.weights.named import locate_initial


def train(
    recipe: Recipe | str,
    data: str | Path,
    out: str | Path,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    device: str = "auto",
    workers: WorkerSettings = ONE_PER_CORE,
    stop_on_signals: bool = False,
    save_seconds: float = 600.0,
    shard: bool = False,
    wandb: str | None = None,
    seed: int = 0,
    caches: Caches | None = None,
    feature_cache: str | Path | None = None,
    console: Console | None = None,
) -> Progress:
    """Train a recipe on the train split of a data set, validate on its val split, and write a run folder.

    Args:
        recipe: the recipe, or its name as for `get_recipe`.
        data: folder of the data set, see `data.annotations.splits`; for a pre-training without labels,
            `data.annotations.unlabelled`.
        out: run folder: new or empty, or, to `resume`, that of an interrupted run.
        resume: continue after the last checkpoint. The result equals that of an uninterrupted run; on a CPU
            with one thread all bits are equal.
        init_from: weights to start from, of this package or of another project: a path, an address, or a name
            or alias of public weights (`weights.named.locate_initial`); not used with `resume`.
        device: see `pick_device`.
        workers: decoding worker processes. By default clips that are cached in memory need none.
        stop_on_signals: on Ctrl-C, SIGTERM, SIGHUP or SIGUSR1, save after the step and raise Interrupted.
        save_seconds: `last.pt` is written this often, and at the end of every epoch.
        shard: divide weights and optimizer state over the processes (FSDP2).
        wandb: project of Weights & Biases to log to, besides `metrics.jsonl` and TensorBoard.
        seed: seed of all random numbers.
        caches: decoded clips in memory, to share between trainings.
        feature_cache: folder of stored features, for the recipe of a probe; None: `features` in
            `files.cache_folder`.
        console: for messages and the progress bar; None writes to standard error.

    Returns:
        Number of steps, and the best validation.

    Raises:
        UserError: data, folder, device or recipe are wrong, or the loss is not finite.
        Interrupted: a stop signal arrived; `last.pt` is up to date.
    """
    require_main_guard()
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    data, out = Path(data), Path(out)
    with init_distributed(device) as context:
        console = (console or Console(stderr=True)) if context.is_main_process else Console(quiet=True)
        report = printer(console)
        resume = resume or was_restarted(out)
        if wandb is not None:
            import_wandb()  # raises before anything is written
        splits, batch_plan = _read_data(data, recipe, context, shard=shard, report=report)
        initial = encoder = None
        if recipe.probe is not None:
            encoder = load_encoder(find_encoder(out, init_from, resume), recipe, report)
            recipe = encoder.recipe
        elif init_from is not None and not resume:
            initial = _find_initial(init_from, recipe)
        run = RunFolder(out, recipe, splits[0], seed=seed, resume=resume, writes=context.is_main_process)
        context.barrier()  # no process writes before all have checked the folder
        with run:
            setup = _Setup(run, splits, batch_plan, context, workers, caches or Caches(), report)
            if encoder is not None:
                training, clips = _set_up_probe(setup, encoder, feature_cache)
            else:
                training, clips = _set_up(setup, recipe, init_from=initial, shard=shard)
            signals = stop_signals(console) if stop_on_signals else nullcontext(Event())
            _fit(training, clips, run, console, wandb=wandb, signals=signals, save_seconds=save_seconds)
        return training.progress


def _read_data(
    data: Path, recipe: Recipe, context: DistributedContext, *, shard: bool, report: Callable[[str], None]
) -> tuple[tuple[Samples, Samples], BatchPlan]:
    """Read both splits and plan the batches, and check them before anything is written.

    Raises:
        UserError: the data set is wrong, or does not fit the recipe or the number of processes.
    """
    splits = read_splits(data, recipe.task)
    batch_plan = BatchPlan(len(splits[0]), recipe.batch_size, recipe.multigrid)
    check_fit(recipe, splits[0], batch_plan, context, shard)
    for split in splits:
        check_files(split, report)
    return splits, batch_plan


def _find_initial(init_from: str | Path, recipe: Recipe) -> Path:
    """Return the path of the initial weights; see `locate_initial`.

    Raises:
        UserError: there are none.
    """
    initial = locate_initial(init_from, recipe)
    if not initial.exists():
        raise UserError(f"{initial}: no such file or run folder; --init-from takes trained weights")
    return initial


class _Setup(NamedTuple):
    """What network, optimizer and data of a run are made from."""

    run: RunFolder
    splits: tuple[Samples, Samples]
    batch_plan: BatchPlan
    context: DistributedContext
    workers: WorkerSettings
    caches: Caches
    report: Callable[[str], None]


def _set_up_probe(
    setup: _Setup, encoder: Encoder, feature_cache: str | Path | None
) -> tuple[Training, ProbeClips]:
    """Return the training of a probe and its data; see `build_probe`.

    Raises:
        UserError: the views do not fit the encoder, clips cannot be read, the disk is too small, or see
            `_adapt_progress`.
        Interrupted: Ctrl-C while features are computed.
    """
    training, clips = build_probe(
        encoder,
        setup.splits,
        setup.batch_plan,
        setup.run,
        setup.context,
        workers=setup.workers,
        folder=None if feature_cache is None else Path(feature_cache),
        track=setup.caches.track,
        report=setup.report,
    )
    _adapt_progress(training, setup.run, setup.splits[0], setup.report)
    return training, clips


def _set_up(
    setup: _Setup, recipe: Recipe, *, init_from: Path | None, shard: bool
) -> tuple[Training, TrainingClips]:
    """Build the network, load its initial weights or the checkpoint; return its training and the data.

    Raises:
        UserError: the network does not fit the recipe's protocols, the weights do not fit the network, or see
            `_adapt_progress`.
    """
    run, context, report = setup.run, setup.context, setup.report
    samples, val_samples = setup.splits
    torch.manual_seed(run.seed)
    model = run.card.build(recipe)
    check_windows(recipe, model)
    check_forward(recipe, model, run.card.task.num_logits(len(samples.classes)))
    if init_from is not None:
        report(str(run.start_from(init_from, model)))
    is_sharded = shard and context.world_size > 1
    unsharded = (lambda: run.card.build(recipe)) if is_sharded else None
    state = build_state(recipe, model, context, report=report, unsharded=unsharded)
    progress = run.begin(*state.checkpoint())
    training = Training(
        recipe,
        state,
        progress,
        setup.batch_plan,
        context,
        task=run.card.task,
        num_classes=len(samples.classes),
        class_weights=class_weights(recipe, samples, context.device),
        seed=run.seed,
        # Other processes would wait for the gradients of this one.
        may_shrink=context.world_size == 1,
        report=report,
    )
    _adapt_progress(training, run, samples, report)
    clips = TrainingClips(
        recipe,
        samples,
        val_samples,
        context,
        task=run.card.task,
        workers=setup.workers,
        caches=setup.caches,
        seed=run.seed,
        report=report,
    )
    return training, clips


def _adapt_progress(
    training: Training, run: RunFolder, samples: Samples, report: Callable[[str], None]
) -> None:
    """Adapt the progress of a resumed run to a changed length or to a split without its unreadable clips.

    Raises:
        UserError: more epochs are done than the recipe has.
    """
    if not run.changes.lines:
        return
    progress, batch_plan, recipe = training.progress, training.batch_plan, training.recipe
    if run.changes.old_clips is not None:
        old = BatchPlan(run.changes.old_clips, recipe.batch_size, recipe.multigrid)
        for name in ("step", "validated_step", "best_step"):
            setattr(progress, name, step_at(batch_plan, old.epochs(getattr(progress, name))))
        if run.writes:
            adapt_files(run.out, batch_plan, samples)
    if progress.step > training.last_step:
        raise UserError(
            f"{run.out}: {training.epoch:g} epochs are done; expected at least as many with --set epochs=..."
        )
    factor = recipe.schedule.factor(training.epoch, recipe.epochs)
    report(
        f"resumed at epoch {training.epoch:g} of {recipe.epochs}, with learning rate "
        f"{recipe.optimizer.lr * factor:.3g}: {'; '.join(run.changes.lines)}"
    )


def _fit(
    training: Training,
    clips: TrainingClips | ProbeClips,
    run: RunFolder,
    console: Console,
    *,
    wandb: str | None,
    signals: AbstractContextManager[Event],
    save_seconds: float,
) -> None:
    """Take all steps, and write the files of the finished run.

    Raises:
        UserError: the loss is not finite, or too many videos are unreadable.
        Interrupted: a stop signal arrived.
    """
    progress, is_main_process = training.progress, training.context.is_main_process
    loader = clips.batches(training.batch_plan, progress.step, training.last_step)
    quarantine = Quarantine(run.out, len(clips.samples), is_main_process)
    log = TrainingLog(
        run.out,
        clips.samples,
        training.batch_plan,
        first_step=progress.step,
        last_step=training.last_step,
        console=console,
        context=training.context,
    )
    if wandb is not None and is_main_process:
        log.boards.append(WandbBoard(wandb, run.out, run.text))
    print_summary(
        training.recipe,
        run.card,
        clips.samples,
        clips.val_samples,
        training.batch_plan,
        model=training.state.model,
        context=training.context,
        num_workers=clips.workers.count(),
        console=console,
    )
    with log, signals as stop:
        session = _Session(training, clips, run, log, quarantine, stop, save_seconds)
        _take_steps(loader, session)
    run.finish()
    report = printer(console)
    if progress.step < training.last_step:
        patience = training.recipe.patience
        report(f"ended at step {progress.step}: {patience} validations in a row without improvement")
    if quarantine.paths:
        report(f"{len(quarantine.paths)} of {len(clips.samples)} clips could not be read: {quarantine.file}")


class _Session(NamedTuple):
    """The objects that the steps of a training need."""

    training: Training
    clips: TrainingClips | ProbeClips
    run: RunFolder
    log: TrainingLog
    quarantine: Quarantine
    stop: Event
    save_seconds: float


def _take_steps(loader: Iterable[Batch], session: _Session) -> None:
    """Take the steps that are left, with validations and checkpoints in between.

    Raises:
        UserError: the loss is not finite, or too many videos are unreadable.
        Interrupted: a stop signal arrived; `last.pt` is up to date.
    """
    training, run, log = session.training, session.run, session.log
    progress, context = training.progress, training.context
    if training.is_validation_due and progress.validated_step < progress.step:
        _validate(session)
    training.state.set_train_mode()
    faults: list[Fault] = []
    began = saved_at = perf_counter()
    batches = until_stopped(loader, session.stop) if context.world_size == 1 else loader
    for batch in () if training.is_over else batches:
        data_seconds = perf_counter() - began
        faults += batch.faults
        is_stopping, is_saving, is_faulty = context.all_reduce_flags(
            session.stop.is_set(), perf_counter() - saved_at > session.save_seconds, bool(faults)
        )
        if is_faulty:
            session.quarantine.add([fault for found in context.all_gather(faults) for fault in found])
            faults = []
        if is_stopping:
            break
        if not batch.samples:
            raise UserError(f"step {progress.step}: none of its clips can be read; {batch.faults[0].reason}")
        result = training.step(batch)
        log.step(progress.step, result, batch.samples, began, data_seconds)
        if training.epoch.is_integer() or is_saving:
            log.settle()
            run.save_last(progress, *training.state.checkpoint(), log.numbers)
            saved_at = perf_counter()
        if training.is_validation_due:
            _validate(session)
            if training.is_over:
                break
        began = perf_counter()
    log.settle()
    if not training.is_over:
        run.save_last(progress, *training.state.checkpoint(), log.numbers)
        run.settle()
        raise Interrupted(
            f"stopped at step {progress.step} of {training.last_step}, saved; "
            "continue with the same command and --resume"
        )


def _validate(session: _Session) -> None:
    """Validate, log the scores and save. After a stop signal the resumed run repeats the validation."""
    training, run, log = session.training, session.run, session.log
    progress = training.progress
    result = training.validate(session.clips, session.stop)
    if result is None:
        return
    log.validated(progress.step, result)
    metric, score = next(iter(result.metrics.items()))
    if progress.record_validation(metric, score):
        run.save_best(progress, session.clips.complete(training.state.eval_model, result), result)
    run.save_last(progress, *training.state.checkpoint(), log.numbers)


def printer(console: Console) -> Callable[[str], None]:
    """Return a function that prints a line without formatting."""

    def report(text: str) -> None:
        text = "\n".join(printable(line, 4000) for line in text.split("\n"))
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    return report


def was_restarted(out: Path) -> bool:
    """Whether `torchrun` or SLURM restarted this command, and there is a checkpoint to resume from."""
    counts = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count != "0" for count in counts) and (out / "last.pt").is_file()

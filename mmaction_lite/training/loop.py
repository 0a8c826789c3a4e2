"""The training loop, top to bottom."""

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event
from time import perf_counter
from types import ModuleType

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.loader import MIX, Batch, Fault, VideoDataset, generator, training_loader
from mmaction_lite.data.loading.workers import IN_PROCESS, ONE_PER_CORE, FaultTolerantLoader, WorkerSettings
from mmaction_lite.distributed import DistributedContext, init_distributed
from mmaction_lite.errors import Interrupted, UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.models.fast.memory_format import store_channels_last
from mmaction_lite.models.network import recompute_layers
from mmaction_lite.models.sub_batch import split_batch_norm
from mmaction_lite.optim import freeze, measure_statistics, set_batch_norm, set_lr
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.training.gradients import Gradients
from mmaction_lite.training.preflight import check_fit, print_summary
from mmaction_lite.training.progress import Quarantine, TrainingLog, WandbBoard, import_wandb
from mmaction_lite.training.run_folder import Progress as RunProgress
from mmaction_lite.training.run_folder import RunFolder
from mmaction_lite.training.signals import stop_signals, until_stopped


def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    device: str = "auto",
    workers: WorkerSettings = ONE_PER_CORE,
    stop_on_signals: bool = False,
    save_seconds: float = 600.0,
    shard: bool = False,
    wandb: str | None = None,
    seed: int = 0,
    caches: Caches | None = None,
    console: Console | None = None,
) -> RunProgress:
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
        workers: decoding worker processes. By default clips that are cached in memory need none.
        stop_on_signals: during the steps, handle Ctrl-C, SIGTERM and SIGUSR1: save after the current step and
            raise Interrupted.
        save_seconds: `last.pt` is written this often, besides at every epoch's end.
        shard: of several processes, each holds a part of weights and optimizer state (FSDP2) instead of all.
        wandb: a project of Weights & Biases to log to, besides `metrics.jsonl` and TensorBoard.
        seed: of everything random.
        caches: clips in memory, to share between trainings.
        console: for messages and the progress bar; None writes to standard error.

    Returns:
        steps done and the best validation.

    Raises:
        UserError: the message says what is wrong with data, folder, device or loss.
        Interrupted: a signal came; `last.pt` is up to date.
    """
    with init_distributed(device) as context:
        console = (console or Console(stderr=True)) if context.is_main_process else Console(quiet=True)
        resume = resume or _was_restarted(out)
        if wandb is not None:
            import_wandb()  # before anything is written
        samples = read_training(data)
        val_samples = read_split(data, "val", samples.classes)
        run = RunFolder(out, recipe, seed, samples, resume, context.is_main_process)
        context.barrier()  # nobody writes before all have looked
        with run:
            return _train(
                recipe,
                samples,
                val_samples,
                run,
                context,
                init_from=None if resume else init_from,
                workers=workers,
                stop_on_signals=stop_on_signals,
                save_seconds=save_seconds,
                shard=shard,
                wandb=wandb,
                seed=seed,
                caches=caches or Caches(),
                console=console,
            )


def _train(
    recipe: Recipe,
    samples: Samples,
    val_samples: Samples,
    run: RunFolder,
    context: DistributedContext,
    *,
    init_from: Path | None,
    workers: WorkerSettings,
    stop_on_signals: bool,
    save_seconds: float,
    shard: bool,
    wandb: str | None,
    seed: int,
    caches: Caches,
    console: Console,
) -> RunProgress:
    """As `train`, once data, folder and processes are known."""

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    device = context.device
    batch_plan = BatchPlan(len(samples), recipe.batch_size, recipe.multigrid)
    check_fit(recipe, samples, batch_plan, context, shard)
    last_step = batch_plan.first_step(recipe.epochs)
    torch.manual_seed(seed)
    model = run.card.build(recipe)
    if init_from is not None:
        say(str(run.start_from(init_from, model)))
    model = model.to(device)
    if recipe.batch_norm == "sync":
        if context.world_size > 1 and device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        else:
            say(f"batch_norm sync: on {context} it is plain batch normalisation")
    frozen = freeze(model, recipe.freeze) + set_batch_norm(model, recipe.batch_norm)
    if recipe.norm_clips is not None:
        split_batch_norm(model)
    if recipe.recompute:
        recompute_layers(model)
    sharding = _sharding() if shard and context.world_size > 1 else None
    if sharding:
        sharding.shard(model, context)
    else:
        store_channels_last(model, is_trained=True)
    optimizer = recipe.optimizer.build(model)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")
    saved, states = model, {"optimizer": optimizer, "scaler": scaler}
    average, eval_model = None, model
    if recipe.ema_decay is not None:
        average = states["average"] = _average(model, recipe.ema_decay)
        eval_model = average.module
    if sharding:
        saved = sharding.FullState(model)
        states = {"sharded optimizer": sharding.FullState(model, optimizer), "scaler": scaler}
        eval_model = run.card.build(recipe).to(device)
    progress = run.begin(saved, states)
    if recipe.compile is not None:
        model.compile(mode=recipe.compile, dynamic=False)
    gradients = Gradients(
        model if sharding else context.wrap_model(model),
        recipe,
        _class_weights(recipe, samples, device),
        scaler,
        context.world_size == 1,
        say,
        task=run.card.task,
    )

    cache = caches.of(samples, recipe.train) if context.world_size == 1 else None
    val_cache = caches.of(val_samples, recipe.val) if cache else None
    own_workers = replace(workers, num_workers=workers.count(context.local_world_size))
    train_workers = IN_PROCESS if cache and workers.num_workers is None else own_workers
    val_workers = IN_PROCESS if val_cache and workers.num_workers is None else own_workers

    def clips_of(batch_plan: BatchPlan, first_step: int, end_step: int) -> FaultTolerantLoader[Batch]:
        return training_loader(
            VideoDataset(
                samples, recipe.train, cache, seed=seed, batch_plan=batch_plan, target=run.card.task.target
            ),
            first_step,
            end_step,
            train_workers,
            pin=device.type == "cuda",
            report=say,
            class_balance=recipe.class_balance,
            rank=context.rank,
            world_size=context.world_size,
        )

    loader = clips_of(batch_plan, progress.step, last_step)
    quarantine = Quarantine(run.out, len(samples), context.is_main_process)
    log = TrainingLog(run.out, samples, progress.step, last_step, batch_plan, console, context)
    if wandb is not None and context.is_main_process:
        log.boards.append(WandbBoard(wandb, run.out, run.text))
    print_summary(
        recipe, run.card, samples, val_samples, batch_plan, model, context, train_workers.count(), console
    )

    def validate() -> None:
        """Score the validation split, keep the weights if they are the best so far."""
        if sharding:
            eval_model.load_state_dict(sharding.whole_weights(model))
        if recipe.precise_bn_clips:
            plain = BatchPlan(len(samples), recipe.batch_size)  # in the shape that will be tested
            first = plain.first_step(int(batch_plan.epochs(progress.step)))
            batches = clips_of(plain, first, first + -(-recipe.precise_bn_clips // recipe.batch_size))
            measure_statistics(
                eval_model, (recipe.normalize(b.pixels.to(device).flatten(0, 1)) for b in batches)
            )
            context.average_buffers(eval_model)
        else:
            context.broadcast_buffers(eval_model)
        result = evaluate(
            eval_model,
            val_samples,
            recipe.val_protocol,
            task=run.card.task,
            workers=val_workers,
            cache=val_cache,
            track=(lambda clips, total, title: until_stopped(clips, stop))
            if context.world_size == 1
            else None,
            context=context,
        )
        _train_mode(model, frozen)
        if stop.is_set() and context.world_size == 1:
            return  # the scores are not complete; a resumed run begins with this validation
        log.validated(progress.step, result)
        progress.validated_step = progress.step
        progress.metric, score = next(iter(result.metrics.items()))
        progress.bad_validations += 1
        if score > progress.best_score:
            progress.best_score, progress.best_step, progress.bad_validations = score, progress.step, 0
            run.save_best(progress, eval_model, result)
        run.save_last(progress, saved, states)

    def is_due(step: int) -> bool:
        epoch = batch_plan.epochs(step)  # a fraction inside of an epoch
        return step > 0 and (epoch % recipe.val_every == 0 or epoch == recipe.epochs)

    def is_over() -> bool:
        return progress.validated_step == last_step or (
            recipe.patience is not None and progress.bad_validations >= recipe.patience
        )

    with log, stop_signals(console) if stop_on_signals else nullcontext(Event()) as stop:
        if is_due(progress.step) and progress.validated_step < progress.step:
            validate()
        _train_mode(model, frozen)
        faults: list[Fault] = []
        began = saved_at = perf_counter()
        batches = () if is_over() else until_stopped(loader, stop) if context.world_size == 1 else loader
        for step, batch in enumerate(batches, progress.step):
            data_seconds = perf_counter() - began
            faults += batch.faults
            is_stopping, is_saving, is_faulty = context.all_reduce_flags(
                stop.is_set(), perf_counter() - saved_at > save_seconds, bool(faults)
            )
            if is_faulty:
                quarantine.add([fault for found in context.all_gather(faults) for fault in found])
                faults = []
            if is_stopping:
                break
            if not batch.samples:
                raise UserError(f"step {step}: none of its clips can be read; {batch.faults[0].reason}")
            _seed_step(seed, step, context.rank, device)
            place = batch_plan.place(step)
            lr = recipe.optimizer.lr * recipe.schedule.factor(batch_plan.epochs(step), recipe.epochs)
            lr *= place.long_factor
            set_lr(optimizer, lr)

            pixels = batch.pixels.to(device, non_blocking=True)  # (B, V, T, H, W, C)
            labels = batch.labels.to(device, non_blocking=True).flatten(0, 1)  # (B·V, ...)
            if recipe.mixing is not None:
                labels = run.card.task.dense(labels, len(samples.classes))
            optimizer.zero_grad()  # before the forward pass: gradients and all activations never coexist
            loss, correct = gradients.add(
                pixels, labels, generator(seed, MIX, step), place.long_factor, place.short_factor
            )
            if recipe.max_grad_norm is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            if average is not None:
                average.update_parameters(model)

            progress.step = step + 1
            log.step(progress.step, lr, loss, correct, batch.samples, began, data_seconds)
            if batch_plan.epochs(progress.step).is_integer() or is_saving:
                log.settle()
                run.save_last(progress, saved, states)
                saved_at = perf_counter()
            if is_due(progress.step):
                validate()
                if is_over():
                    break
            began = perf_counter()
        log.settle()
        if not is_over():
            run.save_last(progress, saved, states)
            run.settle()
            raise Interrupted(
                f"stopped at step {progress.step} of {last_step}, saved; "
                "go on with the same command and --resume"
            )
    run.finish()
    if progress.step < last_step:
        say(f"ended at step {progress.step}: {recipe.patience} validations in a row brought nothing better")
    if quarantine.paths:
        say(f"{len(quarantine.paths)} of {len(samples)} clips could not be read: {quarantine.file}")
    return progress


def read_training(data: Path) -> Samples:
    """The training split of a data set.

    Raises:
        UserError: `data` is a single list, or see `read_split`.
    """
    if data.is_file():
        raise UserError(f"{data}: is one list; training needs a folder with a train and a val list")
    return read_split(data, "train")


def _sharding() -> ModuleType:
    from mmaction_lite.training import sharding

    return sharding


def _was_restarted(out: Path) -> bool:
    """Whether `torchrun` or SLURM started this command again, and there is something to go on from."""
    counts = (os.environ.get(name, "0") for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return any(count != "0" for count in counts) and (out / "last.pt").is_file()


def _class_weights(recipe: Recipe, samples: Samples, device: torch.device) -> Tensor | None:
    """Weights of the classes in the loss, float32 (K,); None where there are none."""
    weights = recipe.class_weights
    if weights is None:
        return None
    if weights == "balanced":
        task = recipe.task.for_classes(samples.classes)
        return torch.from_numpy(task.balanced_weights(samples.counts())).to(device)
    return torch.tensor(weights, device=device)


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential average of weights and running statistics, which begins with those of the first step."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _train_mode(model: nn.Module, frozen: list[nn.Module]) -> None:
    """Training mode, but for what is frozen: its running statistics stay."""
    model.train()
    for module in frozen:
        module.train(False)


def _seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Give PyTorch's generator (dropout) a state that depends on step and process, so none must be saved."""
    words = np.random.SeedSequence((seed, step, rank)).generate_state(2, np.uint32)
    number = int(words[0]) << 31 | int(words[1]) >> 1
    # Not `torch.manual_seed`, which asks every kind of device and takes a hundredth of a small step.
    torch.default_generator.manual_seed(number)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(number)

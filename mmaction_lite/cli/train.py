"""Command `train`."""

from pathlib import Path
from typing import Annotated

import typer

from mmaction_lite.cli.options import Data, Device, HangSeconds, Offline, Workers, console, show, start, track
from mmaction_lite.errors import UserError

Recipe = Annotated[
    str | None,
    typer.Argument(
        help="Name from `mmaction-lite list`, or my.py:my_recipe [default: chosen for data, device and "
        "weights, with the reasons]."
    ),
]
Out = Annotated[
    Path, typer.Option(help="Run folder: new or empty, or that of an interrupted run with --resume.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Change a field of the recipe, as in optimizer.lr=0.01; repeatable.",
    ),
]
FineTune = Annotated[
    bool, typer.Option("--finetune", help="Adapt the recipe to a small dataset; needs --init-from.")
]
Probe = Annotated[
    bool,
    typer.Option(
        "--probe",
        help="Train a classifier on stored features of the recipe's network, which stays frozen; needs "
        "--init-from.",
    ),
]
FeatureCache = Annotated[
    Path | None,
    typer.Option(help="Folder of the stored features of --probe [default: in the cache folder]."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out from its last checkpoint.")]
InitFrom = Annotated[
    str | None,
    typer.Option(
        help="Initial weights: a weights file, checkpoint, run folder, address, name from "
        "`mmaction-lite weights list`, or imagenet or kinetics400 for those that fit the recipe."
    ),
]
Shard = Annotated[
    bool,
    typer.Option(
        "--shard", help="Divide weights and optimizer state over the processes of torchrun (FSDP2)."
    ),
]


def train(
    data: Data,
    out: Out,
    recipe: Recipe = None,
    settings: Settings = None,
    finetune: FineTune = False,
    probe: Probe = False,
    feature_cache: FeatureCache = None,
    resume: Resume = False,
    init_from: InitFrom = None,
    offline: Offline = False,
    shard: Shard = False,
    wandb: Annotated[str | None, typer.Option(help="Weights & Biases project to log to.")] = None,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
) -> None:
    """Train a recipe and write a run folder. Without a recipe, choose one and print the full command."""
    from mmaction_lite.data.loading.cache import Caches
    from mmaction_lite.data.loading.workers import WorkerSettings
    from mmaction_lite.recipes import get_recipe
    from mmaction_lite.tasks.metrics import TITLES
    from mmaction_lite.training.automatic import adapt_recipe, choose_or_continue
    from mmaction_lite.training.loop import printer, train, was_restarted

    if probe and finetune:
        raise UserError("--probe and --finetune are both given; a probe leaves the network frozen. Pass one")
    method = "probe" if probe else "fine-tune" if finetune else None
    if recipe is None:
        choice = choose_or_continue(
            data,
            out,
            is_chosen=resume or was_restarted(out),
            init_from=init_from,
            device=device,
            report=printer(console()),
            method=method,
        )
        recipe, init_from, method = choice.recipe, choice.init_from, choice.method
        settings = [*choice.settings, *(settings or [])]
    chosen = get_recipe(recipe)
    if method in ("fine-tune", "lora") and init_from is None and not resume:
        raise UserError("--finetune starts from trained weights; pass them as --init-from")
    chosen = adapt_recipe(chosen, data, method, settings or [])
    if feature_cache is not None and chosen.probe is None:
        raise UserError("--feature-cache is given without a probe; add --probe, or omit --feature-cache")
    start(device, chosen.multigrid.num_shapes if chosen.compile and chosen.multigrid else 0)
    done = train(
        chosen,
        data,
        out,
        resume=resume,
        init_from=init_from,
        device=device,
        workers=WorkerSettings(num_workers=workers, hang_seconds=hang_seconds),
        stop_on_signals=True,
        shard=shard,
        wandb=wandb,
        seed=seed,
        caches=Caches(track=track),
        feature_cache=feature_cache,
        console=console(),
    )
    best = f"best val {TITLES[done.metric]} {done.best_score:.1%} at step {done.best_step}"
    show(f"{done.step} {'step' if done.step == 1 else 'steps'} done; {best}: {out}")

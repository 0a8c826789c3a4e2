"""Pre-train without labels, then train on 5 clips per class from the result and from random weights.

    python benchmarks/pretraining.py FOLDER docs/train/pretraining.json

VideoMAE with thin layers is pre-trained on clips of `motions` without their labels. Probes and fine-tuning
then use 5 labelled clips per class, other ones with each seed, and are tested on 200 clips. Finished
trainings are kept in FOLDER, and the same command continues with the next one.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from adaptation import train_and_test, write_list
from rich.console import Console

from mmaction_lite import get_recipe
from mmaction_lite.data.generated.motions import generate
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop
from mmaction_lite.models import probe_linear, videomae_pretrain_small, videomae_small
from mmaction_lite.optim import AdamW, WarmupCosine
from mmaction_lite.recipes.finetune import finetune
from mmaction_lite.recipes.probe import probe
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.tasks.reconstruction import CLASSES, Reconstruction
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import ModelCard, save_weights

UNLABELLED = {"train": range(10000, 11000), "val": range(11000, 11100)}
PER_CLASS, SEEDS = 5, (0, 1)
SIZE: dict[str, Any] = {"width": 96, "depth": 4, "heads": 4, "patch": 8}


def base() -> Recipe:
    """Return the training of a VideoMAE of 0.5 M parameters: 140 tokens of 2x8x8 pixels."""
    recipe = get_recipe("tsm_r10_1x1x8_12e_motions_rgb")
    views = replace(recipe.val, crop=CenterCrop(size=(40, 56)))
    return replace(
        recipe,
        model=Build(videomae_small, **SIZE),
        train=replace(recipe.train, crop=RandomCrop(size=(40, 56))),
        val=views,
        test=views,
    )


def pretraining() -> Recipe:
    """Return the pre-training, of 500 steps of 50 clips."""
    return replace(
        base(),
        model=Build(
            videomae_pretrain_small,
            **SIZE,
            decoder_width=64,
            decoder_depth=2,
            mask_ratio=0.75,
            target="clip",
        ),
        task=Reconstruction(),
        optimizer=AdamW(lr=2e-3, betas=(0.9, 0.95), groups="no_decay"),
        schedule=WarmupCosine(warmup_epochs=3, end=0.01),
        epochs=25,
        batch_size=50,
        max_grad_norm=5.0,
        val_every=5,
        label_smoothing=0.0,
    )


def ways() -> dict[str, Recipe]:
    """Return the trainings on few labelled clips. Fine-tuning is that of `--finetune` with fewer epochs."""
    clips = 10 * PER_CLASS
    attentive = probe(base(), clips)
    arguments = dict(attentive.model.arguments)
    assert attentive.probe is not None
    heads = replace(attentive.probe, learning_rates=(1e-4, 3e-4, 1e-3, 3e-3), weight_decays=(0.1,))
    short = replace(attentive, epochs=30, val_every=3, probe=heads)
    linear = replace(
        attentive,
        model=Build(probe_linear, encoder=arguments["encoder"], arguments=arguments["arguments"]),
        probe=replace(heads, learning_rates=(3e-4, 1e-3, 3e-3, 1e-2)),
    )
    return {
        "linear probe": linear,
        "attentive probe": replace(
            short, model=Build(attentive.model.builder, **arguments | {"depth": 1, "heads": 4})
        ),
        "fine-tuning": replace(finetune(base(), clips), epochs=40, val_every=4),
    }


def measure(folder: Path) -> dict[str, Any]:
    """Run the trainings that are not in the folder, and return all results."""
    console = Console(stderr=True)
    generate(folder / "motions", workers=0)
    generate(folder / "unlabelled", splits=UNLABELLED, workers=0)
    options: dict[str, Any] = {"console": console, "workers": IN_PROCESS}
    out = folder / "pretrained"
    if not (out / "weights.safetensors").exists():
        began = time.perf_counter()
        done = train(pretraining(), folder / "unlabelled", out, resume=out.exists(), **options)
        found = {"explained": done.best_score, "steps": done.step}
        found |= {"clips": len(UNLABELLED["train"]), "seconds": round(time.perf_counter() - began)}
        (folder / "pretrained.json").write_text(json.dumps(found))
    options["caches"] = Caches()
    starts = {"pre-trained": dict.fromkeys(SEEDS, out / "weights.safetensors"), "random": {}}
    card = ModelCard.of(pretraining(), CLASSES)
    for seed in SEEDS:
        torch.manual_seed(seed)
        starts["random"][seed] = folder / f"random_{seed}.safetensors"
        save_weights(starts["random"][seed], pretraining().model(num_classes=1).state_dict(), card)
    rows = []
    options["feature_cache"] = folder / "features"
    for way, recipe in ways().items():
        for seed in SEEDS:
            data = folder / f"own_{seed}"
            write_list(folder / "motions", data, PER_CLASS, seed)
            for start, weights in starts.items():
                given = recipe
                if way == "fine-tuning" and start == "random":  # no layer has useful weights to protect
                    assert isinstance(recipe.optimizer, AdamW)
                    given = replace(recipe, optimizer=replace(recipe.optimizer, layer_decay=1.0))
                row = {"way": way, "start": start, "seed": seed}
                from_weights = options | {"init_from": weights[seed], "seed": seed}
                rows.append(train_and_test(folder, row, given, data, from_weights))
    return {"pretraining": json.loads((folder / "pretrained.json").read_text()), "rows": rows}


if __name__ == "__main__":
    results = measure(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(results, indent=1) + "\n")

"""Compare four ways to train on few clips: a probe, LoRA, fine-tuning, and training from random weights.

    python benchmarks/adaptation.py FOLDER docs/train/adaptation

A thin VideoMAE is trained on clips of `motions` with other numbers. It is then adapted to 5, 20 and 50 clips
per class in each way, and tested on 200 clips. The trainings take about ten minutes on two cores. The results
are written to the second path with the suffixes .json and .png. With `--draw`, picture and table are made
from the JSON file again.
"""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
from rich.console import Console

from mmaction_lite import get_recipe
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.generated.motions import SPLITS, generate
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.models import videomae_small
from mmaction_lite.models.lora import LoRA
from mmaction_lite.optim import AdamW, WarmupCosine
from mmaction_lite.recipes.finetune import finetune
from mmaction_lite.recipes.probe import probe
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import card_of, load, save_weights

OTHERS = {"train": range(5000, 5400), "val": range(5400, 5450)}
CLIPS_PER_CLASS = (5, 20, 50)
ENCODER_EPOCHS, STEPS = 50, 200
COLORS = {"probe": "#2a78d6", "LoRA": "#1baf7a", "fine-tuning": "#eda100", "from nothing": "#898781"}

matplotlib.use("Agg")


def thin_videomae() -> Recipe:
    """Return the training of a VideoMAE of 0.5 M parameters on clips of `motions`: 48 tokens of 2x14x14."""
    return replace(
        get_recipe("tsm_r10_1x1x8_12e_motions_rgb"),
        model=Build(videomae_small, patch=14, width=96, depth=4, heads=4),
        optimizer=AdamW(lr=2e-3, groups="no_decay"),
        schedule=WarmupCosine(warmup_epochs=3, end=0.01),
        epochs=ENCODER_EPOCHS,
        batch_size=25,
        max_grad_norm=1.0,
        val_every=10,
    )


def trainings(clips: int) -> dict[str, Recipe]:
    """Return the recipe of each way; all but the probe take `STEPS` steps of the same batches."""
    base = thin_videomae()
    batch_size = min(25, clips // 5)
    epochs = STEPS * batch_size // clips
    common: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "val_every": max(1, epochs // 4)}
    tuned = replace(finetune(base, clips), **common)
    nothing = replace(base, **common, schedule=WarmupCosine(warmup_epochs=max(1, epochs // 10), end=0.01))
    lora = replace(
        tuned, lora=LoRA(targets=("qkv", "proj", "fc1", "fc2")), optimizer=AdamW(lr=2e-3, groups="no_decay")
    )
    probed = probe(base, clips)
    probed = replace(
        probed,
        model=Build(probed.model.builder, **probed.model.arguments | {"depth": 1, "heads": 4}),
        epochs=30,
        val_every=3,
    )
    return {"probe": probed, "LoRA": lora, "fine-tuning": tuned, "from nothing": nothing}


def write_list(motions: Path, folder: Path, per_class: int) -> None:
    """Write a data set with the first clips of every class of the training split."""
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        lines = (motions / f"{split}.txt").read_text().splitlines()
        counts: dict[str, int] = {}
        kept = []
        for line in lines:
            path, label = line.split()
            counts[label] = counts.get(label, 0) + 1
            if split != "train" or counts[label] <= per_class:
                kept.append(f"{(motions / path).resolve()} {Path(path).parent.name}")
        (folder / f"{split}.txt").write_text("\n".join(kept) + "\n")


def rename_classes(run: Path, out: Path) -> None:
    """Store the weights of a run with other class names, so that no training starts with its classifier."""
    model = load(run)
    card = card_of(model)
    names = tuple(f"other class {number}" for number in range(len(card.classes)))
    save_weights(out, model.state_dict(), replace(card, classes=names))


def measure(folder: Path) -> dict[str, Any]:
    """Run all trainings and return their results."""
    console, caches = Console(stderr=True), Caches()
    motions = folder / "motions"
    generate(motions)
    generate(folder / "others", splits=OTHERS)
    options: dict[str, Any] = {"console": console, "caches": caches, "workers": IN_PROCESS}
    began = time.perf_counter()
    done = train(thin_videomae(), folder / "others", folder / "encoder", **options)
    found: dict[str, Any] = {
        "encoder": {"val_top1": done.best_score, "clips": 400, "seconds": time.perf_counter() - began},
        "rows": [],
    }
    rename_classes(folder / "encoder", folder / "encoder.safetensors")
    for per_class in CLIPS_PER_CLASS:
        data = folder / f"own_{per_class}"
        write_list(motions, data, per_class)
        for name, recipe in trainings(10 * per_class).items():
            out = folder / f"{name.replace(' ', '_')}_{per_class}"
            start = None if name == "from nothing" else folder / "encoder.safetensors"
            began = time.perf_counter()
            done = train(recipe, data, out, init_from=start, feature_cache=folder / "features", **options)
            seconds = time.perf_counter() - began
            model = load(out)
            card = card_of(model)
            test = evaluate(model, read_split(motions, "test", card.classes), card.test, workers=IN_PROCESS)
            row = {
                "way": name,
                "clips_per_class": per_class,
                "top1": test.metrics["top1"],
                "steps": done.step,
            }
            found["rows"].append(row | {"seconds": round(seconds, 1)})
            found["protocol"] = str(test.protocol)
            found["videos"] = len(test.labels)
            print(json.dumps(found["rows"][-1]), flush=True)
    return found


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the accuracy over the clips per class."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for name, color in COLORS.items():
        rows = [row for row in found["rows"] if row["way"] == name]
        values = [100 * row["top1"] for row in rows]
        axes.plot([row["clips_per_class"] for row in rows], values, "o-", color=color, label=name)
    axes.axhline(10, color="#c3c2b7", lw=0.8, ls="--")
    axes.set(xscale="log", xlabel="training clips per class", ylabel="test top-1 (%)", ylim=(0, 102))
    axes.set_xticks(CLIPS_PER_CLASS, [str(count) for count in CLIPS_PER_CLASS])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(found: dict[str, Any]) -> str:
    """Return the results as a table in Markdown."""
    lines = ["| clips per class | " + " | ".join(COLORS) + " |", "|---|" + "---|" * len(COLORS)]
    for count in CLIPS_PER_CLASS:
        rows = {row["way"]: row for row in found["rows"] if row["clips_per_class"] == count}
        cells = [f"{100 * rows[name]['top1']:.1f} % ({rows[name]['seconds']:.0f} s)" for name in COLORS]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    if "--draw" in sys.argv:
        results = json.loads(out.with_suffix(".json").read_text())
    else:
        results = measure(folder)
        out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, out.with_suffix(".png"))
    print(table(results))

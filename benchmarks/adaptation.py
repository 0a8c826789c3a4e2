"""Compare four ways to train on few clips: a probe, LoRA, fine-tuning, and training from random weights.

    python benchmarks/adaptation.py FOLDER docs/train/adaptation

A thin VideoMAE is trained on clips of `motions` with other numbers. It is then adapted to 5, 20 and 50 clips
per class in each way, and tested on 200 clips. The learning rate of each way and number of clips is the best
of a small grid on the validation clips with seed 0; seed 1 uses it with other clips. The trainings take about
half an hour on one core. Finished trainings are kept in FOLDER, and the same command continues with the next
one. The results are written to the second path with the suffixes .json and .png. With `--draw`, picture and
table are made from the JSON file again.

    python benchmarks/adaptation.py FOLDER --check-probe

trains a small TSM on other clips and a linear probe on it, and fails unless the probe classifies 90 % of the
test clips correctly, less than a minute after its features are stored.
"""

import json
import shutil
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
SEEDS = (0, 1)
ENCODER_EPOCHS, STEPS = 50, 1000
LEARNING_RATES = {"LoRA": (2e-3, 6e-3), "fine-tuning": (1e-3, 3e-3), "from nothing": (1e-3, 3e-3)}
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


def trainings(clips: int) -> dict[str, list[Recipe]]:
    """Return the recipes of each way, one for each learning rate; a probe trains all of its own at once.

    All but the probe take `STEPS` steps of equal batches, and keep the best of their four validations.
    """
    base = thin_videomae()
    batch_size = min(25, clips // 5)
    epochs = STEPS * batch_size // clips
    tuned = replace(
        finetune(base, clips), batch_size=batch_size, epochs=epochs, val_every=max(1, epochs // 4)
    )
    lora = LoRA(targets=("qkv", "proj", "fc1", "fc2"))
    lora = replace(tuned, lora=lora, optimizer=AdamW(lr=2e-3, groups="no_decay"))
    schedule = WarmupCosine(warmup_epochs=max(1, epochs // 10), end=0.01)
    nothing = replace(
        base, batch_size=batch_size, epochs=epochs, val_every=max(1, epochs // 4), schedule=schedule
    )
    probed = probe(base, clips)
    assert probed.probe is not None
    model = Build(probed.model.builder, **probed.model.arguments | {"depth": 1, "heads": 4})
    heads = replace(probed.probe, learning_rates=(3e-4, 1e-3, 3e-3, 1e-2), weight_decays=(0.1,))
    found = {"probe": [replace(probed, model=model, probe=heads)]}
    for name, recipe in (("LoRA", lora), ("fine-tuning", tuned), ("from nothing", nothing)):
        assert isinstance(recipe.optimizer, AdamW)
        optimizers = [replace(recipe.optimizer, lr=lr) for lr in LEARNING_RATES[name]]
        found[name] = [replace(recipe, optimizer=optimizer) for optimizer in optimizers]
    return found


def write_list(motions: Path, folder: Path, per_class: int, seed: int) -> None:
    """Write a data set with some clips of every class of the training split, other ones for each seed."""
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        of_class: dict[str, list[str]] = {}
        for line in (motions / f"{split}.txt").read_text().splitlines():
            path = Path(line.split()[0])
            of_class.setdefault(path.parent.name, []).append(
                f"{(motions / path).resolve()} {path.parent.name}"
            )
        kept = []
        for lines in of_class.values():
            first = seed * per_class % len(lines) if split == "train" else 0
            kept += lines[first : first + per_class] if split == "train" else lines
        (folder / f"{split}.txt").write_text("\n".join(kept) + "\n")


def rename_classes(run: Path, out: Path) -> None:
    """Store the weights of a run with other class names, so that no training starts with its classifier."""
    model = load(run)
    card = card_of(model)
    names = tuple(f"other class {number}" for number in range(len(card.classes)))
    save_weights(out, model.state_dict(), replace(card, classes=names))


def train_and_test(
    folder: Path, row: dict[str, Any], recipe: Recipe, data: Path, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the result of a training on the test clips, from an earlier call if there is one.

    Args:
        folder: folder of the results, the runs and `motions`, whose test split gives the accuracy.
        row: what identifies the training, and the beginning of the result.
        recipe: recipe of the training.
        data: data set of the training.
        options: further arguments of `train`.
    """
    name = "_".join(str(value).replace(" ", "_") for value in row.values())
    record, out = folder / f"{name}.json", folder / "runs" / name
    if record.exists():
        return json.loads(record.read_text())
    began = time.perf_counter()
    done = train(recipe, data, out, resume=(out / "last.pt").exists(), **options)
    seconds = time.perf_counter() - began
    model = load(out)
    card = card_of(model)
    samples, views = read_split(folder / "motions", "test", card.classes), card.test.views
    cache = options["caches"].of(samples, views)
    test = evaluate(model, samples, card.test, workers=IN_PROCESS, cache=cache)
    row |= {"val_top1": done.best_score, "top1": test.metrics["top1"], "steps": done.step}
    row |= {"seconds": round(seconds, 1), "videos": len(test.labels), "protocol": str(test.protocol)}
    record.write_text(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    return row


def measure(folder: Path) -> dict[str, Any]:
    """Run the trainings that are not in the folder, and return all results."""
    console, caches = Console(stderr=True), Caches()
    motions, encoder = folder / "motions", folder / "encoder.safetensors"
    generate(motions, workers=0)
    generate(folder / "others", splits=OTHERS, workers=0)
    options: dict[str, Any] = {"console": console, "caches": caches, "workers": IN_PROCESS}
    row = train_and_test(folder, {"way": "encoder"}, thin_videomae(), folder / "others", options)
    found: dict[str, Any] = {"encoder": row | {"clips": len(OTHERS["train"])}}
    if not encoder.exists():
        rename_classes(folder / "runs" / "encoder", encoder)
    options["feature_cache"] = folder / "features"
    found["rows"] = []
    for per_class in CLIPS_PER_CLASS:
        best: dict[str, Recipe] = {}
        for seed in SEEDS:
            data = folder / f"own_{per_class}_{seed}"
            write_list(motions, data, per_class, seed)
            for way, recipes in trainings(10 * per_class).items():
                start = {"init_from": None if way == "from nothing" else encoder, "seed": seed}
                results = []
                for recipe in [best[way]] if way in best else recipes:
                    row = {"way": way, "clips_per_class": per_class, "seed": seed}
                    row |= {} if way == "probe" else {"lr": recipe.optimizer.lr}
                    results.append(train_and_test(folder, row, recipe, data, options | start))
                chosen = max(range(len(results)), key=lambda i: results[i]["val_top1"])
                best.setdefault(way, recipes[chosen])
                for number, row in enumerate(results):
                    found["rows"].append(row | {"is_chosen": number == chosen})
    return found


def chosen_rows(found: dict[str, Any], way: str, per_class: int) -> list[dict[str, Any]]:
    """Return the rows of a way with the chosen learning rate, one for each seed."""
    rows = [row for row in found["rows"] if row["way"] == way and row["is_chosen"]]
    return [row for row in rows if row["clips_per_class"] == per_class]


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the accuracies over the clips per class: a line through the means, and a point for each seed."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for name, color in COLORS.items():
        values = [[100 * row["top1"] for row in chosen_rows(found, name, n)] for n in CLIPS_PER_CLASS]
        means = [sum(of_seeds) / len(of_seeds) for of_seeds in values]
        axes.plot(CLIPS_PER_CLASS, means, "-", color=color, label=name)
        points = [(n, value) for n, seeds in zip(CLIPS_PER_CLASS, values, strict=True) for value in seeds]
        axes.plot(*zip(*points, strict=True), "o", color=color, ms=4)
    axes.axhline(10, color="#c3c2b7", lw=0.8, ls="--")
    axes.set(xscale="log", xlabel="training clips per class", ylabel="test top-1 (%)", ylim=(0, 102))
    axes.set_xticks(CLIPS_PER_CLASS, [str(count) for count in CLIPS_PER_CLASS])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(found: dict[str, Any]) -> str:
    """Return the accuracies of all seeds in percent as a table in Markdown."""
    lines = ["| clips per class | " + " | ".join(COLORS) + " |", "|---|" + "---|" * len(COLORS)]
    for count in CLIPS_PER_CLASS:
        values = [[row["top1"] for row in chosen_rows(found, name, count)] for name in COLORS]
        cells = [", ".join(f"{100 * value:.1f}" for value in of_seeds) for of_seeds in values]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def check_probe(folder: Path) -> None:
    """Train a probe on a frozen TSM of other clips, and check its accuracy and its time.

    Raises:
        SystemExit: the probe has less than 90 % of the test clips, or takes a minute after its features are
            stored.
    """
    options: dict[str, Any] = {"console": Console(stderr=True), "caches": Caches(), "workers": IN_PROCESS}
    motions, encoder = folder / "motions", folder / "tsm.safetensors"
    generate(motions, workers=0)
    generate(folder / "other clips", splits={"train": range(5000, 5800), "val": range(5800, 5850)}, workers=0)
    recipe = get_recipe("tsm_r10_1x1x8_12e_motions_rgb")
    train_and_test(folder, {"way": "tsm encoder"}, recipe, folder / "other clips", options)
    rename_classes(folder / "runs" / "tsm_encoder", encoder)
    options |= {"init_from": encoder, "feature_cache": folder / "features"}
    tuned = probe(recipe, len(read_split(motions, "train")))
    for way in ("stored features", "probe of the TSM"):  # the first one stores the features
        (folder / f"{way.replace(' ', '_')}.json").unlink(missing_ok=True)
        shutil.rmtree(folder / "runs" / way.replace(" ", "_"), ignore_errors=True)
        row = train_and_test(folder, {"way": way}, tuned, motions, options)
    if row["top1"] < 0.9 or row["seconds"] >= 60:
        raise SystemExit(f"the probe: {row['top1']:.1%} in {row['seconds']} s; expected 90 % within 60 s")
    print(f"the probe: {row['top1']:.1%} of {row['videos']} clips in {row['seconds']} s")


if __name__ == "__main__":
    if "--check-probe" in sys.argv:
        raise SystemExit(check_probe(Path(sys.argv[1])))
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    if "--draw" in sys.argv:
        results = json.loads(out.with_suffix(".json").read_text())
    else:
        results = measure(folder)
        out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    draw(results, out.with_suffix(".png"))
    print(table(results))

"""The fine-tuning experiment of docs/training.md: 20 clips per class, from a network trained on other clips.

    python benchmarks/finetune.py FOLDER

It takes a few minutes and prints one line per training.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from mmaction_lite import get_recipe, load
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.demo import generate_motions
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.recipes.finetune import finetune
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import card_of


def main(folder: Path) -> None:
    """Train on 30 clips per class, fine-tune on 20 others, and train on the same 20 from scratch."""
    console, caches = Console(stderr=True), Caches()
    generate_motions(folder / "motions", "video", console)
    samples = read_split(folder / "motions", "train")
    for name in ("first", "others"):
        lines = {split: [] for split in ("train", "val", "test")}
        for split in lines:
            for clip in sorted((folder / "motions" / split).rglob("*.mp4")):
                lines[split].append(f"{clip.resolve()} {clip.parent.name}")
        per_class = len(samples) // len(samples.classes)
        rows = lines["train"]
        first = [row for i, row in enumerate(rows) if i % per_class < per_class - 20]
        lines["train"] = first if name == "first" else [row for row in rows if row not in set(first)]
        (folder / name).mkdir(exist_ok=True)
        for split, found in lines.items():
            (folder / name / f"{split}.txt").write_text("\n".join(found) + "\n")
    base = get_recipe("tsm_r10_1x1x8_12e_motions_rgb")
    train(base, folder / "first", folder / "pretrained", console=console, caches=caches)
    clips = len(read_split(folder / "others", "train"))
    tuned = finetune(base, clips)
    for name, recipe, start in (
        ("tuned", tuned, folder / "pretrained"),
        ("from nothing", replace(base, epochs=tuned.epochs, batch_size=tuned.batch_size), None),
    ):
        began = time.perf_counter()
        out = folder / name.replace(" ", "_")
        done = train(recipe, folder / "others", out, init_from=start, console=console, caches=caches)
        seconds = time.perf_counter() - began
        model = load(out)
        card = card_of(model)
        test = evaluate(model, read_split(folder / "motions", "test", card.classes), card.test)
        print(
            f"{name}: {clips} clips, {done.step} steps, {seconds:.0f} s, test {test.metrics['top1']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

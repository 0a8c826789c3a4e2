"""Estimates of `training.estimates` beside measured training steps, on one core.

    python benchmarks/estimates.py OUT.json

Each network takes a step of fine-tuning on two random clips, in a process of its own. Times are CPU times of
one thread, so other programs disturb them little.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

RECIPES = (
    "tsm_r10_1x1x8_12e_motions_rgb",
    "tsm_online_mobilenetv2_8x4x1_50e_jester_rgb",
    "tsm_r50_1x1x8_50e_kinetics400_rgb",
    "slowfast_r50_4x16x1_256e_kinetics400_rgb",
    "videomae_small_16x4x1_150e_kinetics400_rgb",
    "videomae_base_16x4x1_75e_kinetics400_rgb",
)
CLIPS, STEPS = 2, 3


def measure(name: str) -> dict[str, float]:
    """Return CPU seconds of a step for each clip, and the growth of the peak memory in bytes."""
    import numpy as np
    import torch

    from mmaction_lite import get_recipe
    from mmaction_lite.recipes.finetune import finetune
    from mmaction_lite.training.gradients import Gradients

    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe = finetune(get_recipe(name), 1000)
    pixels = torch.randint(0, 256, (CLIPS, 1, *recipe.train.view_shape), dtype=torch.uint8)
    labels, rng = torch.arange(CLIPS), np.random.default_rng(0)
    targets = labels if recipe.mixing is None else recipe.task.dense(labels, 10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = recipe.model(num_classes=10).train()
    optimizer = recipe.optimizer.build(model)
    scaler = torch.amp.GradScaler(enabled=False)
    gradients = Gradients(model, recipe, None, scaler, may_shrink=False, report=print)
    seconds = []
    for _ in range(STEPS):
        began = time.process_time()
        optimizer.zero_grad()
        gradients.add(pixels, targets, rng)
        optimizer.step()
        seconds.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": sorted(seconds)[STEPS // 2] / CLIPS, "bytes": 1024 * (peak - before)}


def main(out: Path) -> None:
    """Measure every recipe in a process of its own, and write the file."""
    from mmaction_lite.benchmark.environment import environment

    rows = json.loads(out.read_text())["recipes"] if out.exists() else {}
    for name in RECIPES:
        if name in rows:
            continue
        command = [sys.executable, __file__, "--measure", name]
        done = subprocess.run(
            command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
        )
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, rows[name], flush=True)
        import torch

        found = {"environment": environment(torch.device("cpu")), "clips": CLIPS, "recipes": rows}
        out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        print(json.dumps(measure(sys.argv[2])))
    else:
        main(Path(sys.argv[1]))

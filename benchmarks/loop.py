"""Overhead of the training loop: time per iteration outside of the training step and the wait for data.

    python benchmarks/loop.py DATA

DATA is a directory that `mmaction-lite data generate` writes.
"""

import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from mmaction_lite import get_recipe
from mmaction_lite.training.gradients import Gradients
from mmaction_lite.training.loop import train


def main(data: Path) -> None:
    """Print the overhead as a fraction of the time per iteration, for three trainings of a small network."""
    spent = {"seconds": 0.0}

    def timed(function):
        def run(*arguments, **options):
            start = time.perf_counter()
            result = function(*arguments, **options)
            spent["seconds"] += time.perf_counter() - start
            return result

        return run

    Gradients.add = timed(Gradients.add)
    torch.optim.AdamW.step = timed(torch.optim.AdamW.step)
    recipe = replace(get_recipe("tsm_r10_1x1x8_12e_motions_rgb"), epochs=4, val_every=4)
    shares = []
    for _ in range(3):
        spent["seconds"] = 0.0
        with tempfile.TemporaryDirectory() as folder:
            done = train(recipe, data, Path(folder) / "run", console=Console(quiet=True))
            rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").open()]
        rows = [row for row in rows if "split" not in row]
        steps = done.step / len(rows)
        whole = sum(row["iteration_seconds"] for row in rows) * steps
        waited = sum(row["data_seconds"] for row in rows) * steps
        shares.append((whole - waited - spent["seconds"]) / whole)
        each = [seconds / done.step * 1000 for seconds in (whole, spent["seconds"], waited)]
        print("iteration {:.2f} ms: network {:.2f}, data {:.2f},".format(*each), f"the loop {shares[-1]:.2%}")
    print(f"median {statistics.median(shares):.2%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

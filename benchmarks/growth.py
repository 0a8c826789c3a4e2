"""Growth of the cost of training with clips in the list, frames per clip, classes and decoding workers.

    python benchmarks/growth.py docs/growth.json docs/growth.png

Each point is measured in a process of its own: start-up (list, network and first batch), peak memory, and
later iterations, as CPU time and memory of the training process without its workers. The picture shows each
relative to the first point. Networks are small and clips are generated, so only the shape of the curves is
meaningful.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mmaction_lite.benchmark import worker
from mmaction_lite.benchmark.worker import Work
from mmaction_lite.data.generated.motions import generate
from mmaction_lite.device import configure_process, peak_memory
from mmaction_lite.distributed import init_distributed
from mmaction_lite.files import write_atomically

TSM, SLOWONLY = "tsm_r10_1x1x8_12e_motions_rgb", "slowonly_r50_8x8x1_256e_kinetics400_rgb"
POINTS = {
    "clips in the list": (10**3, 10**4, 10**5, 10**6),
    "frames per clip": (4, 8, 16, 32, 64),
    "classes": (10, 10**2, 10**3, 10**4, 10**5),
    "decoding workers": (1, 2, 4, 8),
}
COSTS = ("start-up, CPU s", "memory, MiB", "iteration, CPU s")
STEPS = 6


def measure(what: str, value: int, clips: list[str]) -> dict[str, float]:
    """Measure one point in this process.

    Args:
        what: key of `POINTS`.
        value: number of clips, frames, classes or workers.
        clips: paths of generated videos.
    """
    configure_process(torch.device("cpu"))
    torch.set_num_threads(1)
    if what == "classes":
        worker.CLASSES = value
    before = peak_memory(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder, init_distributed("cpu") as context:
        options: dict[str, Any] = {"setting": TSM, "precision": "float32", "compile": None, "workers": 1}
        options |= {"batch_size": 4, "input": (4, 8, 42, 56), "video": None, "frames": None}
        if what == "frames per clip":
            options |= {"setting": SLOWONLY, "batch_size": 1, "input": (1, value, 64, 64)}
        if what in ("clips in the list", "decoding workers"):
            number = value if what == "clips in the list" else 1000
            file = Path(folder) / "train.txt"
            file.write_text("".join(f"{clips[i % len(clips)]} {i % 10}\n" for i in range(number)))
            options["video"] = folder
        if what == "decoding workers":
            options["workers"] = value
        began = time.process_time()
        work = Work(options, context)
        phase = "video" if options["video"] else "train"
        work.answer({"phase": phase, "steps": 1}, 0.0)
        start_up = time.process_time() - began
        began = time.process_time()
        work.answer({"phase": phase, "steps": STEPS}, 0.0)
        iteration = (time.process_time() - began) / STEPS
        memory = peak_memory(torch.device("cpu")) - before
        work.batches.clear()
    costs = (start_up, memory, iteration)
    return {cost: round(number, 4) for cost, number in zip(COSTS, costs, strict=True)}


def draw(found: dict[str, Any], file: Path) -> None:
    """Draw the costs relative to those of the first point, in one plot for each quantity."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, (what, points) in zip(figure.subplots(1, len(found)), found.items(), strict=True):
        values = [int(value) for value in points]
        for cost in COSTS:
            first = next(iter(points.values()))[cost]
            axes.plot(
                values,
                [point[cost] / first for point in points.values()],
                marker="o",
                label=cost.partition(",")[0],
            )
        axes.plot(values, [value / values[0] for value in values], "k:", linewidth=1, label="proportional")
        shares = [
            point[cost] / next(iter(points.values()))[cost] for point in points.values() for cost in COSTS
        ]
        top = max(2.0, 1.15 * max(shares))
        axes.set(xscale="log", yscale="log", ylim=(min(0.8, 0.9 * min(shares)), top), xlabel=what)
        axes.set_xticks(values, [f"{value:,}" for value in values], fontsize=7)
        ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50) if tick < top]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("relative to the first point")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    write_atomically(file, lambda out: figure.savefig(out, format="png", dpi=90))


def main(out: Path, picture: Path) -> None:
    """Measure every point in a process of its own, and write the numbers and the picture."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), splits={"train": range(120, 128)}, workers=1)
        clips = sorted(str(path) for path in Path(folder).rglob("*.mp4"))
        for what, values in POINTS.items():
            for value in values:
                command = [sys.executable, __file__, "--one", json.dumps([what, value, clips])]
                answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                found.setdefault(what, {})[str(value)] = json.loads(answer.splitlines()[-1])
                print(f"{what} {value}: {found[what][str(value)]}")
    write_atomically(out, lambda file: file.write(json.dumps(found, indent=1).encode()))
    draw(found, picture)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
    else:
        main(*map(Path, sys.argv[1:3]))

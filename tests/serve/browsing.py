"""A data set with scores and a run folder, as `serve --data --run` reads them."""

import json
from pathlib import Path

import numpy as np

from mmaction_lite.data.annotations.samples import absolute
from mmaction_lite.serve.corrections import Corrections
from mmaction_lite.serve.dataset import Dataset, match_predictions, read_samples
from mmaction_lite.serve.run_curves import RunCurves
from mmaction_lite.tasks.score_files import Scores
from mmaction_lite.tasks.single_label import SingleLabel
from tests.conftest import brightening, write_video

EVIL = '<img src=x onerror="alert(1)">'


def write_data(root: Path) -> Path:
    """A data set with clips in MP4, in AVI, and as a folder of frames, and with a script in names."""
    for number, name in enumerate(("up/0.mp4", "down/1.mp4", "up/2.avi", f"down/{EVIL}.mp4")):
        for split in ("train", "val"):
            write_video(root / split / name, brightening(number))
    return root


def dataset_of(data: Path) -> Dataset:
    samples = read_samples(data, "val")
    up = np.linspace(0.1, 0.9, len(samples), dtype=np.float32)
    scores = Scores(
        file=data.parent / "test.npz",
        paths=[absolute(samples.name(number)) for number in range(len(samples))],
        labels=samples.labels,
        scores=np.stack([1 - up, up], 1),
        class_names=["down", "up"],
        protocol=f"1 clip; 4 videos of {data}, 0 unreadable",
        task=SingleLabel(),
    )
    corrections = Corrections(data.with_name("corrections.jsonl"), (data,))
    return Dataset(samples, data.name, match_predictions(samples, scores), corrections)


def write_run(run: Path, steps: int) -> RunCurves:
    run.mkdir(exist_ok=True)
    rows = [{"step": n, "epoch": n / 4, "loss": 1 / n, "lr": 0.1} for n in range(1, steps + 1)]
    protocol = f"1 clip; 6 videos of {run.parent}, 0 unreadable"
    rows.append({"step": steps, "epoch": steps / 4, "split": "val", "top1": 0.5, "protocol": protocol})
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunCurves(run)

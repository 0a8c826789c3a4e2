"""Time of each stage of the training loader, beside other readers."""

import json

import numpy as np
import pytest
import torch

from mmaction_lite import get_recipe
from mmaction_lite.benchmark import loader as loader_module
from mmaction_lite.benchmark.loader import (
    STAGES,
    installed_readers,
    measure_loader,
    read_linear,
    read_planned,
)
from mmaction_lite.cli import app
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError


def test_the_loader_benchmark_names_every_stage_and_the_limit(tiny, capsys):
    command = [
        "benchmark",
        "loader",
        "--data",
        str(tiny),
        "--clips",
        "6",
        "--device",
        "cpu",
        "--workers",
        "0",
    ]
    recipe = ["--recipe", "tsm_r10_1x1x8_12e_motions_rgb"]
    app([*command, *recipe, "--json"], standalone_mode=False)
    report = json.loads(capsys.readouterr().out)
    assert list(report["stages"]) == [
        "open",
        "decode",
        "resize and crop",
        "augment",
        "collate",
        "copy to device",
    ]
    assert report["clips"] == 6
    assert report["limited_by"] in report["stages"]
    assert report["whole"] > 0
    assert report["clips_per_second"] > 0
    assert {"ours", "PyAV, linear"} <= report["peers"].keys()
    app([*command, *recipe], standalone_mode=False)
    assert "limited by:" in capsys.readouterr().out


@pytest.mark.parametrize("slowest", STAGES)
def test_the_stage_that_takes_longest_is_the_limit(tiny, monkeypatch, slowest):
    """By the median of processor times, of which the others are set to shorter ones."""
    times = {stage: 1.0 + 0.1 * number for number, stage in enumerate(STAGES)} | {slowest: 2.0}

    def timed(milliseconds, run, count=1):
        result = run()
        names = [name for name, kept in recorded.items() if kept is milliseconds]
        milliseconds.append(times.get(names[0], 1.0) if names else 1.0)
        return result

    recorded: dict[str, list[float]] = {}
    time_stages = loader_module._time_stages

    def record(found, *more):
        recorded.update(found)
        return time_stages(found, *more)

    monkeypatch.setattr(loader_module, "_timed", timed)
    monkeypatch.setattr(loader_module, "_time_stages", record)
    monkeypatch.setattr(loader_module, "_throughput", lambda *_: 1.0)
    recipe = get_recipe("tsm_r10_1x1x8_12e_motions_rgb")
    samples = read_split(tiny, "train")
    report = measure_loader(samples, recipe, torch.device("cpu"), 2, 0, lambda draws, *_: draws)
    assert report.stages == times
    assert report.limited_by == slowest


def test_readers_return_the_same_frames(tiny):
    clip = str(next((tiny / "train" / "up").iterdir()))
    frames = np.asarray(read_planned(clip, [0, 5, 5, 2]))
    assert frames.shape == (4, 48, 64, 3)
    for read in (read_linear, *installed_readers().values()):
        np.testing.assert_allclose(np.asarray(read(clip, [0, 5, 5, 2]), int), frames, atol=4)


def test_nothing_that_can_be_read_is_one_line(tmp_path):
    (tmp_path / "train.txt").write_text("gone.mp4 0\nlost.mp4 1\n")
    recipe = get_recipe("tsm_r10_1x1x8_12e_motions_rgb")
    samples = read_split(tmp_path, "train")
    with pytest.raises(UserError, match="none of 2 clips can be read"):
        measure_loader(samples, recipe, torch.device("cpu"), 2, 0, lambda draws, *_: draws)

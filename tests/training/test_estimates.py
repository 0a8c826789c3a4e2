"""Estimates of time and memory beside measured training steps."""

import json
from pathlib import Path

import pytest
import torch

from mmaction_lite import get_recipe
from mmaction_lite.training.estimates import TrainingCost, training_cost

MEASURED = json.loads((Path(__file__).parents[2] / "docs" / "estimates.json").read_text())


def estimate(name: str) -> TrainingCost:
    recipe = get_recipe(name)
    with torch.device("meta"):
        model = recipe.model(num_classes=10)
    frames, height, width, channels = recipe.train.view_shape
    return training_cost(model, (1, channels, frames, height, width), torch.device("cpu"), cores=1)


@pytest.mark.parametrize("name", MEASURED["recipes"])
def test_estimates_are_close_to_measured_steps(name):
    cost, row = estimate(name), MEASURED["recipes"][name]
    num_bytes = cost.fixed_bytes + MEASURED["clips"] * cost.clip_bytes
    assert 0.6 < num_bytes / row["bytes"] < 1.7
    if row["seconds"] > 0.1:  # shorter steps consist of calls of operators, not of arithmetic
        assert 0.6 < cost.seconds / row["seconds"] < 1.7


def test_networks_of_three_kinds_are_measured():
    kinds = {name.split("_")[0] for name in MEASURED["recipes"]}
    assert {"tsm", "slowfast", "videomae"} <= kinds


def test_cores_divide_the_time():
    with torch.device("meta"):
        model = get_recipe("tsm_r10_1x1x8_12e_motions_rgb").model(num_classes=10)
    shape, cpu = (1, 3, 8, 42, 56), torch.device("cpu")
    one, four = (training_cost(model, shape, cpu, cores=cores) for cores in (1, 4))
    assert one.seconds == pytest.approx(4 * four.seconds)
    assert one[1:] == four[1:]
    assert training_cost(model, shape, torch.device("cuda"), cores=1).seconds < one.seconds / 10

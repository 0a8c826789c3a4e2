"""The line that shows the progress of a training."""

import io
import re

import pytest
from rich.console import Console

from mmaction_lite.training.progress_line import ProgressLine, fit

ROW = {
    "step": 1234,
    "epoch": 12.3,
    "loss": 2.3456,
    "top1": 0.25,
    "lr": 0.01,
    "iteration_seconds": 0.123,
    "data_seconds": 0.001,
    "limited_by": "network",
    "memory_mib": 12345.0,
}


def show(width: int, is_terminal: bool) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=is_terminal, color_system=None)
    with ProgressLine(console, 100, 1200, 10_000) as line:
        for step in range(1201, 1235):
            line.step(step, step / 100)
        line.row(ROW)
        line.row(ROW)
    return re.split(r"[\r\n]|\x1b\[[0-9;?]*[A-Za-z]", file.getvalue())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_shows_epoch_step_loss_and_remaining_time(width):
    lines = [line.rstrip() for line in show(width, is_terminal=True) if "loss" in line]
    assert re.match(r"epoch 12\.3/100  step 1234/10000  loss 2\.346  ETA \d+:\d\d:\d\d", lines[-1])
    assert max(map(len, lines)) <= width
    assert ("memory 12345 MiB" in lines[-1]) == (width == 200)


def test_a_file_gets_one_line_in_half_a_minute():
    lines = [line for line in show(80, is_terminal=False) if line]
    assert len(lines) == 1
    assert lines[0].startswith("epoch 12.3/100  step 1234/10000  loss 2.346  ETA ")
    assert lines[0].endswith("limited by network  memory 12345 MiB")


def test_narrow_terminals_show_the_first_parts():
    assert fit(["epoch 1/2", "step 3/4", "loss 1"], 19) == "epoch 1/2  step 3/4"
    assert fit(["epoch 1/2", "step 3/4"], 5) == "epoch"

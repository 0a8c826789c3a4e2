"""The curves of a run folder: rows, state, and no path of the server."""

import json
import os
import socket
from pathlib import Path

import pytest

from mmaction_lite.serve.run_curves import RunCurves, without_source

PROTOCOL = "1 clip x 1 crop, average of probabilities; 24x24; 10 videos of /home/secret/my data, 0 unreadable"


def rows(count: int) -> list[dict]:
    training = [
        {"step": n, "epoch": n / 10, "loss": 1 / n, "lr": 0.1, "note": "/secret"} for n in range(1, count)
    ]
    return [*training, {"step": count, "epoch": 1.0, "split": "val", "top1": 0.5, "protocol": PROTOCOL}]


def write(run: Path, lines: list[dict], end: str = "") -> None:
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + end)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "mine"


def test_a_run_that_has_not_started(run):
    found = RunCurves(run).read()
    assert (found.name, found.state, found.training, found.updated_seconds) == ("mine", "waiting", [], None)


def test_rows_are_read_again_when_they_change(run):
    curves = RunCurves(run)
    write(run, rows(4))
    (run / "recipe.txt").write_text("# tsm_r10, seed 0\n# trained on /secret\nRecipe()\n")
    found = curves.read()
    assert found.recipe == "tsm_r10, seed 0"
    assert [row["step"] for row in found.training] == [1, 2, 3]
    assert found.validation == [
        {
            "step": 4,
            "epoch": 1.0,
            "top1": 0.5,
            "split": "val",
            "protocol": "1 clip x 1 crop, average of probabilities; 24x24; 10 videos, 0 unreadable",
        }
    ]
    assert "secret" not in str(found)
    write(run, [*rows(4), {"step": 5, "epoch": 1.1, "loss": float("nan")}], end='{"step": 6, "ep')
    found = curves.read()
    assert found.training[-1] == {"step": 5, "epoch": 1.1, "loss": None}


def test_a_damaged_file_keeps_the_last_rows(run):
    curves = RunCurves(run)
    write(run, rows(3))
    curves.read()
    (run / "metrics.jsonl").write_text("no JSON\n" + "x" * 100 + "\n")
    assert len(curves.read().training) == 2


@pytest.mark.parametrize(
    ("owner", "state"),
    [
        (f"process {os.getpid()} on {socket.gethostname()}\n", "training"),
        (f"process 999999999 on {socket.gethostname()}\n", "stopped"),
        (f"process {10**30} on {socket.gethostname()}\n", "training"),
        ("process 1 on another.host\n", "training"),
        ("something else", "stopped"),
    ],
    ids=["this process", "no process", "a number too large", "another host", "no owner"],
)
def test_the_owner_of_the_lock_shows_whether_a_run_trains(owner, state, run):
    write(run, rows(3))
    (run / ".lock").write_text(owner)
    assert RunCurves(run).read().state == state


def test_a_finished_run(run):
    write(run, rows(3))
    (run / "weights.safetensors").touch()
    assert RunCurves(run).read().state == "finished"


def test_long_curves_are_thinned(run):
    write(run, rows(2_600))
    training = RunCurves(run).read().training
    assert 1000 <= len(training) <= 2000
    assert (training[0]["step"], training[-1]["step"]) == (1, 2599)


def test_protocol_lines_lose_the_folder():
    assert without_source("a; 3 videos of C:/x of y, 1 unreadable") == "a; 3 videos, 1 unreadable"
    assert without_source("a; b") == "a; b"

"""Trainings that are killed at any moment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# One process imports everything; each training is a fork of it, killed after a random time. Checkpoints are
# written after every step, and a third of the kills waits for one.
DRIVER = """
import os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path

import torch

from mmaction_lite.weights.checkpoint import load_state
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.training.loop import train
from tests.conftest import brightening
from tests.training.test_processes import RECIPE

torch.set_num_threads(1)
data, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
scope = {}
exec(RECIPE, scope)
recipe = replace(scope["small"](), epochs=20, batch_norm="train")


def run(folder):
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        status = 1
        try:
            resume = (folder / "last.pt").exists()
            train(recipe, data, folder, resume=resume, workers=IN_PROCESS, save_seconds=0)
            status = 0
        finally:
            os._exit(status)
    return pid


pid = run(out / "whole")
assert os.waitpid(pid, 0)[1] == 0
whole = (out / "whole" / "weights.safetensors").read_bytes()
rng, killed, finished, number, during_saving = random.Random(0), 0, 0, 0, 0
while killed < kills or not finished:
    folder = out / str(number)
    pid = run(folder)
    if killed < kills:
        end = time.monotonic() + rng.uniform(0.1, 2.0)
        waits_for_saving = killed % 3 == 0
        while time.monotonic() < end and not (waits_for_saving and any(folder.glob(".*"))):
            time.sleep(0.0005 if waits_for_saving else max(0, end - time.monotonic()))
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    if status == 0:
        left_over = list(folder.glob(".*"))
        assert not left_over, left_over
        assert (folder / "weights.safetensors").read_bytes() == whole, "another result"
        finished += 1
        number += 1
        continue
    assert os.WIFSIGNALED(status), "the training failed"
    killed += 1
    during_saving += any(folder.glob(".*"))  # a file that was being written
    if (folder / "last.pt").exists():
        load_state(folder / "last.pt")
print(killed, finished, during_saving)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_run_killed_thirty_times_stays_usable(tiny, tmp_path):
    """Killed runs resume, and finished runs have the weights of an uninterrupted one."""
    (tmp_path / "runs").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, tiny, tmp_path / "runs", "30"],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    killed, finished, during_saving = map(int, done.stdout.split())
    assert killed == 30
    assert finished >= 1
    assert during_saving >= 1

"""Devices, decoding processes and the memory of a process."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmaction_lite.device import default_workers, peak_memory, pick_device
from mmaction_lite.errors import UserError
from mmaction_lite.training.loop import train

COUNT = """
import json, resource
import torch
from mmaction_lite.device import configure_process, pick_device, reusing_memory

def faults(megabytes):
    "Pages that the system clears and hands out whenever five tensors are made, from the second time on."
    found = []
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(megabytes << 18) for _ in range(5)]
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        del tensors
    return found[1:]

found = {"plain": faults(24)}
device = pick_device("cpu")
with reusing_memory(device):
    found["not asked for"] = faults(48)
configure_process(device)
found |= {"kept": faults(24), "largest": faults(48)}
with reusing_memory(device):
    found |= {"reused": faults(24), "largest reused": faults(48)}
found["larger"] = faults(64)
print(json.dumps(found))
"""


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc")
@pytest.mark.skipif(
    HUGE_PAGES.exists() and "[always]" in HUGE_PAGES.read_text(), reason="the system hands out huge pages"
)
@pytest.mark.slow
def test_memory_of_tensors_is_kept_for_the_next() -> None:
    process = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    found = json.loads(process.stdout)
    assert found["plain"][0] > 5000, found
    assert min(found["not asked for"]) > 5000, found
    assert min(found["largest"] + found["larger"]) > 5000, found
    assert max(found[name][-1] for name in ("kept", "reused", "largest reused")) < 500, found


@pytest.mark.slow
def test_peak_memory_excludes_that_of_the_parent_process():
    """`getrusage` of a child process starts with the peak of its parent."""
    code = (
        "import torch; from mmaction_lite.device import peak_memory; print(peak_memory(torch.device('cpu')))"
    )
    start = "import subprocess, sys\n{}subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    small, large = (
        float(subprocess.check_output([sys.executable, "-c", start.format(first), code]))
        for first in ("", "memory = b'x' * (1 << 30)\n")
    )
    assert large < small + 300


def test_a_device_is_found_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:99", "meta"):
        with pytest.raises(UserError, match=rf"--device {name}: not usable here \(.*\); use auto, cpu"):
            pick_device(name)


@pytest.mark.parametrize(("cores", "processes", "workers"), [(8, 1, 8), (8, 3, 2), (1, 2, 1), (64, 1, 16)])
def test_decoding_processes_share_the_cores(monkeypatch, cores, processes, workers):
    monkeypatch.setattr("mmaction_lite.device.available_cores", lambda: cores)
    assert default_workers(processes) == workers


def test_peak_memory_grows_with_what_is_allocated():
    before = peak_memory(torch.device("cpu"))
    kept = torch.ones(256 << 18)  # 256 MiB
    assert peak_memory(torch.device("cpu")) >= before
    assert peak_memory(torch.device("cpu")) >= 256
    assert kept.sum() > 0


OPTIONS = """
import os, signal, sys, warnings
from dataclasses import replace
from dataclasses import replace
from pathlib import Path
import torch
import torch._dynamo
from mmaction_lite import device

calls = []
class Allocator:
    def __getattr__(self, name):
        return lambda *arguments: calls.append((name, *arguments))
device._GLIBC = Allocator()

def options():
    return {
        "cudnn": [getattr(torch.backends.cudnn, n) for n in ("benchmark", "deterministic", "allow_tf32")],
        "compiler": torch._dynamo.config.get_config_copy(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "precision": torch.get_float32_matmul_precision(),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, sys.stdout, sys.stderr),
        "grad": torch.is_grad_enabled(),
    }

weights, clip, data, out = sys.argv[1:]
import av, rich, safetensors, tensorboardX  # other packages may set what they like
before = options()
from mmaction_lite import get_recipe, load, predict
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.training.loop import train
from mmaction_lite.weights.card import card_of
from tests.conftest import recipe
predict(weights, clip)
model = load(weights)
card = card_of(model)
evaluate(model, read_split(Path(data), "val", card.classes), card.val)
train(replace(recipe.__wrapped__(), epochs=1), Path(data), Path(out))
after = options()
assert not calls, calls
for name in before:
    assert before[name] == after[name], (name, before[name], after[name])
device.configure_process(torch.device("cpu"), compiled_shapes=20)
assert {call[0] for call in calls} == {"mallopt"}
assert torch._dynamo.config.cache_size_limit == 160
predict(weights, clip)
assert len(calls) == 4  # more around inference
"""


def test_only_configure_process_changes_options_of_the_process(tiny, recipe, tmp_path):
    """The import of the package, `predict`, `evaluate` and `train` leave all of them alone."""
    train(replace(recipe, epochs=1), tiny, tmp_path / "run")
    clip = next((tiny / "val" / "up").iterdir())
    arguments = [tmp_path / "run" / "weights.safetensors", clip, tiny, tmp_path / "other"]
    done = subprocess.run(
        [sys.executable, "-c", OPTIONS, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

"""Devices, decoding processes and the memory of a process."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmaction_lite.device import default_workers, peak_memory, pick_device
from mmaction_lite.errors import UserError

COUNT = """
import json, resource
import torch
from mmaction_lite.device import pick_device, reusing_memory

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
def test_memory_of_tensors_is_kept_for_the_next() -> None:
    process = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    found = json.loads(process.stdout)
    assert found["plain"][0] > 5000, found
    assert min(found["largest"] + found["larger"]) > 5000, found
    assert max(found[name][-1] for name in ("kept", "reused", "largest reused")) < 500, found


def test_a_process_counts_its_own_memory_and_not_that_of_its_parent():
    """The system hands a started process the peak of the one that started it."""
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

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

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

"""Machine and versions of a measurement, and the peak performance of the machine."""

import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import torch

from mmaction_lite.device import available_cores, synchronize
from mmaction_lite.models.fast.linear import linear


def environment(device: torch.device) -> dict[str, Any]:
    """Return device, processor, versions and commit, without the values that are not available."""
    found = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": _processor(),
        "cores": available_cores(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "clock_mhz": _clock_mhz(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "av": av.__version__,
        "system": platform.system(),
        "commit": _commit(),
    }
    if device.type == "cuda":
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {name: value for name, value in found.items() if value is not None}


def measure_limits(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Measure the peak performance of the device: multiply-adds of a matrix product and copied bytes.

    The fastest of several rounds, and of the libraries that the networks use. The operands are random,
    because GPUs are faster with constant ones.

    Returns:
        "multiply_adds" and "bytes_copied", in 10⁹ per second. A copied byte counts once, although it is read
        and written.
    """
    size, copied = (8192, 1 << 30) if device.type == "cuda" else (2048, 256 << 20)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.randint(256, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = min(_fastest(run, device) for run in (lambda: a @ b, lambda: linear(a, b)))
    return {
        "multiply_adds": size**3 / product / 1e9,
        "bytes_copied": copied / _fastest(lambda: target.copy_(source), device) / 1e9,
    }


def _fastest(run: Callable[[], object], device: torch.device, rounds: int = 8) -> float:
    times = []
    for _ in range(rounds):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _processor() -> str:
    """Return the name of the processor, or its architecture if the name is not available."""
    return _cpuinfo("model name") or platform.processor() or os.uname().machine


def _clock_mhz() -> float | None:
    """Return the current clock frequency of a core in MHz."""
    clock = _cpuinfo("cpu MHz")
    return float(clock) if clock else None


def _cpuinfo(name: str) -> str | None:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _commit() -> str | None:
    """Return the commit of the source checkout, with a + if files of the package were changed since."""
    root = Path(__file__).parents[2]
    try:
        answers = [
            subprocess.run(
                ["git", "-C", root, *what], capture_output=True, text=True, check=True
            ).stdout.strip()
            for what in (["rev-parse", "--short=9", "HEAD"], ["status", "--porcelain", "mmaction_lite"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return answers[0] + ("+" if answers[1] else "")

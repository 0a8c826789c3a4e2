"""What a measurement depends on besides the code: machine, versions, and how fast they can be at best."""

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


def environment(device: torch.device) -> dict[str, Any]:
    """Device, processor, versions and commit; what cannot be read is left out."""
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
    """What the device reaches at best, in 10^9 a second: multiply-adds of a matrix product, bytes copied.

    The fastest of several rounds, of random numbers: with equal ones GPUs run faster. A copy of one byte
    counts as one, though it is read and written.
    """
    size, copied = (8192, 1 << 30) if device.type == "cuda" else (2048, 256 << 20)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    source = torch.randint(256, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return {
        "multiply_adds": size**3 / _fastest(lambda: a @ b, device) / 1e9,
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
    """The processor's name, as far as the system tells."""
    return _cpuinfo("model name") or platform.processor() or os.uname().machine


def _clock_mhz() -> float | None:
    """The clock of a core at this moment."""
    clock = _cpuinfo("cpu MHz")
    return float(clock) if clock else None


def _cpuinfo(name: str) -> str | None:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _commit() -> str | None:
    """Of the checkout that this package runs from, with a + where files were changed since."""
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

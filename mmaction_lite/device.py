"""Which device and how many processes a run takes when it is not told."""

import os
import sys
from pathlib import Path
from typing import Literal

import torch

from mmaction_lite.errors import UserError

Precision = Literal["float32", "bfloat16", "float16"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
"""Of `torch.compile`; the last two record what a GPU is to do once and play it back."""


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes CUDA, else Apple's MPS, else the CPU.

    From then on cuDNN times its algorithms once for every shape of a convolution, and takes the fastest.

    Raises:
        UserError: no such device here.
    """
    torch.backends.cudnn.benchmark = True
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("networks do not run on it")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(
            f"--device {name}: not usable here ({reason}); use auto, cpu, cuda, cuda:N or mps"
        ) from None
    return device


def peak_memory(device: torch.device) -> float:
    """The most memory so far, in MiB: PyTorch's on a GPU, else the process's; 0 where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        # What `getrusage` says begins, in a started process, with the peak of the one that started it.
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(processes: int = 1) -> int:
    """One decoding process per core for each of the training `processes` of a machine, at most 16."""
    return max(1, min(available_cores() // processes, 16))

"""Which device and how many processes a run takes when it is not told."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch

from mmaction_lite.errors import UserError

Precision = Literal["float32", "bfloat16", "float16"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
"""Of `torch.compile`; the last two record what a GPU is to do once and play it back."""

_GLIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
# Parameters of its `mallopt`, and the largest threshold it takes (malloc.h, malloc.c).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_LARGEST_THRESHOLD, _DEFAULT_MMAP_MAX = 32 << 20, 1 << 16


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" takes CUDA, else Apple's MPS, else the CPU.

    The process is prepared for it: from then on cuDNN times its algorithms once for every shape of a
    convolution and takes the fastest, and on a processor freed memory of tensors is kept for the next.

    Raises:
        UserError: no such device here.
    """
    device = _find_device(name)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    if device.type == "cpu":
        # The system takes freed memory back and clears what it gives, page by page, which costs a training
        # step up to an eighth of its time. Kept in one heap, larger tensors would fit worse and worse.
        _set_malloc(_TRIM_THRESHOLD, -1)
        _set_malloc(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
    return device


@contextmanager
def reusing_memory(device: torch.device) -> Iterator[None]:
    """A block in which memory of even the largest tensors is kept for the next, if `device` is a processor.

    For inference, where tensors live too shortly to leave holes between them. Not to be nested.
    """
    if device.type != "cpu":
        yield
        return
    _set_malloc(_MMAP_MAX, 0)
    try:
        yield
    finally:
        _set_malloc(_MMAP_MAX, _DEFAULT_MMAP_MAX)


def give_memory_back() -> None:
    """Return what is kept and not in use to the system."""
    if _GLIBC:
        _GLIBC.malloc_trim(0)


def _set_malloc(parameter: int, value: int) -> None:
    if _GLIBC:
        _GLIBC.mallopt(parameter, value)


def _find_device(name: str) -> torch.device:
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

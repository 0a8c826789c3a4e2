"""Choice of the device, settings of the whole process, memory and processor cores."""

import ctypes
import math
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmaction_lite.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16", "float16"]
CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
"""Modes of `torch.compile`; on GPUs the last two replay CUDA graphs."""

_GLIBC = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
# Parameters of glibc's `mallopt`, and the largest threshold that it accepts (malloc.h, malloc.c).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_LARGEST_THRESHOLD, _DEFAULT_MMAP_MAX = 32 << 20, 1 << 16
# Whether `configure_process` made the allocator keep freed memory in this process.
_keeps_memory = False


def pick_device(name: str) -> "torch.device":
    """Return the device called `name`.

    Args:
        name: "cpu", "cuda", "cuda:N", "mps", or "auto": CUDA if available, else Apple's MPS, else the CPU.

    Raises:
        UserError: the device is not available.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if name.split(":")[0] not in ("cpu", "cuda", "mps"):
            raise RuntimeError("unsupported type of device")
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(
            f"--device {name}: not usable here ({reason}); use auto, cpu, cuda, cuda:N or mps"
        ) from None
    return device


def configure_process(device: "torch.device", compiled_shapes: int = 0) -> None:
    """Set global options of this process for speed on `device`. No result changes beyond rounding.

    Importing the package, `predict`, `evaluate` and `train` leave these options alone. The command line calls
    this function at its start; call it in a program of which no other part depends on these options.

    - CUDA: cuDNN times its algorithms once for every shape of a convolution and uses the fastest
      (`torch.backends.cudnn.benchmark`).
    - CPU with glibc: freed memory of tensors stays in the process for the next tensors (`mallopt`). The
      operating system otherwise clears every page that it hands out again, which costs up to an eighth of a
      training step. Inference keeps memory of the largest tensors too, see `reusing_memory`.
    - `torch.compile`: room for the compiled versions of all batch shapes
      (`torch.compiler.config.recompile_limit`).

    Args:
        device: device that the process computes on.
        compiled_shapes: number of batch shapes of a compiled network; 0 if nothing is compiled.
    """
    import torch

    global _keeps_memory
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    if device.type == "cpu":
        # Larger thresholds than these keep everything in one heap, where large tensors fit worse and worse.
        _set_malloc(_TRIM_THRESHOLD, -1)
        _set_malloc(_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
        _keeps_memory = True
    if compiled_shapes:
        torch.compiler.config.recompile_limit = max(
            torch.compiler.config.recompile_limit, 8 * compiled_shapes
        )


@contextmanager
def reusing_memory(device: "torch.device") -> Iterator[None]:
    """Keep memory of even the largest tensors for the next ones while the block runs.

    For inference, whose tensors live too briefly to fragment the heap. Has an effect only on a CPU and after
    `configure_process`. Must not be nested.
    """
    if device.type != "cpu" or not _keeps_memory:
        yield
        return
    _set_malloc(_MMAP_MAX, 0)
    try:
        yield
    finally:
        _set_malloc(_MMAP_MAX, _DEFAULT_MMAP_MAX)


def release_memory() -> None:
    """Return unused memory to the operating system, if `configure_process` made the process keep it."""
    if _GLIBC and _keeps_memory:
        _GLIBC.malloc_trim(0)


def _set_malloc(parameter: int, value: int) -> None:
    if _GLIBC:
        _GLIBC.mallopt(parameter, value)


def peak_memory(device: "torch.device") -> float:
    """Return the peak memory in MiB: of PyTorch's allocator on a GPU, else of the process; 0 if unknown."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    for line in lines:
        # `getrusage` starts, in a child process, with the peak of its parent.
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def free_memory(device: "torch.device") -> float:
    """Return the free memory of a device in bytes; that of the machine unless it is a GPU. inf if unknown."""
    import torch

    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return float(found[0]) if found else math.inf


def synchronize(device: "torch.device") -> None:
    """Wait until the device has completed all queued work."""
    import torch

    if device.type in ("cuda", "mps"):
        getattr(torch, device.type).synchronize()


def available_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(num_processes: int = 1) -> int:
    """Return one decoding worker per core, divided over `num_processes` training processes, at most 16."""
    return max(1, min(available_cores() // num_processes, 16))

"""Protocol of the worker processes that measure other frameworks.

`mmaction_lite.benchmark.processes` starts a worker with its options as one JSON argument, writes one JSON
request per line to its standard input, and reads one JSON answer per line from its standard output. Workers
run in other environments: they do not import mmaction-lite, and mmaction-lite does not import them.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import torch

# The answers go to what was the standard output; that of libraries goes to the log, from their import on.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def declare_torchvision():
    """Declare the operators that torchvision's CUDA wheel expects, which a PyTorch without CUDA lacks."""
    if torch.version.cuda is not None:
        return
    declare_torchvision.library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declare_torchvision.library.define(
            f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )


def peak_mib(device):
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # The peak that getrusage returns includes that of the parent process before the fork.
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def timed(device, run):
    start = time.perf_counter()
    result = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def end_with_benchmark():
    """End this process within about a second when the benchmark has ended, which may have been killed."""
    parent = int(os.environ.get("MMACTION_LITE_BENCHMARK_PID", os.getppid()))

    def wait():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def commit_of(folder):
    """Return the commit of a checkout, with a + if its code or configurations were changed since."""
    git = ["git", "-C", str(folder)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "--short=9", "HEAD"], text=True).strip()
        changed = subprocess.check_output([*git, "status", "--porcelain", "--", "*.py", "*.yaml"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "without commit"
    return commit + ("+" if changed.strip() else "")


def serve(framework, build, *, has_bfloat16=True):
    """Answer requests until standard input ends.

    Args:
        framework: name and version, for the answers.
        build: maps options to a dict of functions by phase. "train" and "infer" run one step; "video" runs
            one training step on clips from video files, "frames" from JPEG frames; both return the seconds
            that they waited for data. "check" saves weights, a clip and its logits to a file. A text in place
            of a function states why the framework does not support the phase.
        has_bfloat16: whether the framework supports bfloat16; otherwise it runs in float16, which the first
            answer states.
    """
    end_with_benchmark()

    def answer(value):
        print(json.dumps(value), file=ANSWERS, flush=True)

    options = json.loads(sys.argv[1])
    if options["precision"] == "bfloat16" and not has_bfloat16:
        options["precision"] = "float16"
    if options["precision"] != "float32":
        framework += f", {options['precision']}"
    torch.set_num_threads(options["threads"])
    importlib.import_module("torch._dynamo")  # by optimizers; not part of the memory of a step
    before = peak_mib(options["device"])
    try:
        phases = build(options)
    except Exception as error:
        traceback.print_exc()
        return answer({"error": f"{type(error).__name__}: {error}"})
    missing = {name: reason for name, reason in phases.items() if isinstance(reason, str)}
    answer({"framework": framework, "phases": sorted(phases.keys() - missing), "missing": missing})
    for line in sys.stdin:
        request = json.loads(line)
        phase = request["phase"]
        try:
            if phase == "memory":
                answer({"mib": peak_mib(options["device"]) - before})
            elif phase == "check":
                with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    phases[phase](request["file"])
                answer({})
            else:
                run, steps = phases[phase], []
                for _ in range(request["steps"]):
                    seconds, data = timed(options["device"], run)
                    steps.append({"iteration": seconds} | ({} if data is None else {"data": data}))
                answer({"steps": steps})
        except Exception as error:
            traceback.print_exc()
            answer({"error": f"{type(error).__name__}: {error}"})

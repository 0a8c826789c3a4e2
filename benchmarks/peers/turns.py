"""What a worker of another project does: build its network, then take turns with ours.

`mmaction_lite.benchmark.turns` starts it with the options as one JSON argument, writes one JSON request a
line and reads one JSON answer a line. Nothing of mmaction-lite is imported here, and nothing from here there.
"""

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

import torch


def declare_torchvision():
    """Its wheel brings operators for CUDA; beside a PyTorch without it imports once they are declared."""
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
    # What getrusage says begins with the peak of the process that started this one.
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


def serve(framework, build, *, has_bfloat16=True):
    """Answer requests for as long as they come.

    Without `has_bfloat16` a framework takes float16 instead; the answers say which.
    `build(options)` returns a function for each phase: "train" and "infer" take a step and return nothing,
    "video" takes a step and returns the seconds that it waited for data, "check" saves weights, clip and
    logits in a file.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not belong among the answers

    def answer(value):
        print(json.dumps(value), file=answers, flush=True)

    options = json.loads(sys.argv[1])
    if options["precision"] == "bfloat16" and not has_bfloat16:
        options["precision"] = "float16"
    if options["precision"] != "float32":
        framework += f", {options['precision']}"
    torch.set_num_threads(options["threads"])
    before = peak_mib(options["device"])
    try:
        phases = build(options)
    except Exception as error:
        traceback.print_exc()
        return answer({"error": f"{type(error).__name__}: {error}"})
    answer({"framework": framework, "phases": sorted(phases)})
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

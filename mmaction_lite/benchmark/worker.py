"""Measured process of the benchmark: builds a network and executes the requested steps.

`processes.Worker` starts it as `python -m mmaction_lite.benchmark.worker OPTIONS` and writes requests such as
{"phase": …, "steps": …}, one JSON object per line. Every answer is one line, too. The workers of other
frameworks use the same protocol.
"""

import contextlib
import importlib
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mmaction_lite import __version__
from mmaction_lite.benchmark.processes import PARENT
from mmaction_lite.benchmark.settings import find_setting
from mmaction_lite.data.annotations.samples import PackedStrings
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import Batch, VideoDataset, training_loader
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.device import configure_process, peak_memory, reusing_memory, synchronize
from mmaction_lite.distributed import DistributedContext, end_with_process, init_distributed, no_sync
from mmaction_lite.errors import UserError
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.recipes.recipe import Recipe
from mmaction_lite.training.run_folder import Progress
from mmaction_lite.training.state import TrainingState, build_state
from mmaction_lite.training.training import Training
from mmaction_lite.weights.converters import convert

CLASSES = 400
ENDLESS = 1_000_000  # steps
# With a normal learning rate, a random network that trains on noise reaches denormal numbers, with which CPUs
# are a hundred times slower. Its steps would not take the time of a real training.
LR = 1e-6
NAME = f"mmaction-lite {__version__}"


# Kinds of operators, and parts of the names of their operators and GPU kernels.
KINDS = {
    "products": ("conv", "mm", "linear_pointwise", "xmma", "cutlass", "nvjet"),
    "normalisation": ("batch_norm",),
}


def kind(operator: str) -> str:
    """Return the kind of an operator or kernel: a key of `KINDS`, or "other"."""
    name = operator.removeprefix("aten::")
    if not name.startswith(
        "triton"
    ):  # names of Triton kernels list fused operators, but they compute no products
        for found, parts in KINDS.items():
            if any(part in name for part in parts):
                return found
    return "other"


class Stopwatch:
    """Stopwatch with laps, in seconds by name.

    Args:
        device: device to synchronize with at every lap. If `is_exact` is set to False, laps are not
            synchronized and measure the time of the CPU only.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.is_exact = True
        self.start()

    def start(self) -> None:
        """Delete all laps and start."""
        synchronize(self.device)
        self.seconds: dict[str, float] = {}
        self.began = self.last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        if self.is_exact:
            synchronize(self.device)
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now

    def stop(self) -> dict[str, float]:
        """Return the laps, and the total time as "iteration"."""
        synchronize(self.device)
        return {"iteration": time.perf_counter() - self.began, **self.seconds}


class Work:
    """Network and data of one setting, and the phases that can be measured.

    Args:
        options: fields of `processes.WorkerConfig`.
        context: device, and processes of a distributed training.
    """

    def __init__(self, options: dict[str, Any], context: DistributedContext):
        self.options, self.context, device = options, context, context.device
        recipe = find_setting(options["setting"]).build()
        self.recipe: Recipe = replace(
            recipe,
            precision=options["precision"],
            compile=options["compile"],
            multigrid=None,
            optimizer=replace(recipe.optimizer, lr=LR),
        )
        self.batch_size = options["batch_size"] * context.world_size
        torch.manual_seed(0)
        self.state = build_state(
            self.recipe, self.recipe.model(num_classes=CLASSES), context, report=lambda line: None
        )
        self.model = self.state.model
        self.watch = Stopwatch(device)
        self.training = self.make_training(self.state)
        self.sharded_training: Training | None = None
        clips, *shape = options["input"]
        rng = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (clips, 1, *shape, 3), generator=rng, dtype=torch.uint8)
        if device.type == "cuda":
            pixels = pixels.pin_memory()  # as in batches of the loader
        self.made = Batch(pixels, torch.zeros(clips, 1, dtype=torch.long), list(range(clips)), [])
        self.batches: dict[str, Iterator[Batch]] = {}
        self.folded: nn.Module | None = None
        self.training_peak: float | None = None

    def make_training(self, state: TrainingState) -> Training:
        """Return the training steps of the recipe on a state."""
        return Training(
            self.recipe,
            state,
            Progress(),
            BatchPlan(ENDLESS * self.batch_size, self.batch_size),
            self.context,
            task=self.recipe.task,
            num_classes=CLASSES,
            seed=0,
            may_shrink=False,
            report=lambda line: None,
        )

    @property
    def phases(self) -> dict[str, Callable[[], None]]:
        """Phases that the worker supports: functions of one step, by name."""
        found = {"train": self.train, "stages": self.train, "infer": self.infer}
        for source in ("video", "frames"):
            if self.options[source]:
                found[source] = partial(self.feed, source)
        if self.context.world_size > 1:
            found |= {"apart": self.apart, "link": self.link, "sharded": self.sharded}
        return found

    def train(self) -> None:
        """Take a training step on the fixed batch."""
        self.step(self.made)

    def data(self, source: str) -> VideoDataset:
        """Return the training clips of a source, repeated if they fill fewer than four batches."""
        samples = read_split(Path(self.options[source]), "train")
        if len(samples) < 4 * self.options["batch_size"]:
            order = np.arange(4 * self.options["batch_size"]) % len(samples)
            paths = PackedStrings([samples.paths[i] for i in order])
            samples = replace(samples, paths=paths, labels=samples.labels[order])
        batch_plan = BatchPlan(len(samples), self.batch_size)
        return VideoDataset(
            samples, self.recipe.train, seed=0, batch_plan=batch_plan, target=self.recipe.task.target
        )

    def feed(self, source: str) -> None:
        """Take a training step on the next batch from files."""
        if source not in self.batches:
            self.batches.clear()  # ends the decoding workers of the other source
            self.batches[source] = iter(
                training_loader(
                    self.data(source),
                    0,
                    ENDLESS,
                    WorkerSettings(num_workers=self.options["workers"]),
                    pin=self.context.device.type == "cuda",
                    rank=self.context.rank,
                    world_size=self.context.world_size,
                )
            )
        batch = next(self.batches[source])
        if not batch.samples:
            raise UserError(f"no clip of a batch can be read; {batch.faults[0].reason}")
        self.watch.lap("data")
        self.step(batch)

    def step(self, batch: Batch) -> None:
        """Take a step of `Training`, with its stages as laps."""
        self.training.step(batch, self.watch.lap)

    def apart(self) -> None:
        """Take a training step without the exchange of gradients."""
        with no_sync(self.state.forward):
            self.step(self.made)

    def link(self) -> None:
        """Exchange as many values as the network has gradients, without a training step."""
        numbers = torch.zeros(sum(p.numel() for p in self.model.parameters()), device=self.context.device)
        self.watch.start()
        dist.all_reduce(numbers)

    def sharded(self) -> None:
        """Take a training step of a second network, whose parameters are sharded over the processes."""
        if self.sharded_training is None:
            build = partial(self.recipe.model, num_classes=CLASSES)
            state = build_state(self.recipe, build(), self.context, report=lambda line: None, unsharded=build)
            state.set_train_mode()
            self.sharded_training = self.make_training(state)
        self.sharded_training.step(self.made, self.watch.lap)

    def infer(self) -> None:
        """Compute the scores of the fixed batch as `test` does, with folded normalization layers."""
        if self.folded is None:
            self.training_peak = peak_memory(self.context.device)
            self.folded = optimize_for_inference(self.model)
            if self.recipe.compile is not None:
                self.folded.compile(mode=self.recipe.compile, dynamic=False)
        if self.recipe.compile is not None:
            torch.compiler.cudagraph_mark_step_begin()
        self.score(self.folded)

    @torch.no_grad()
    def score(self, model: nn.Module) -> None:
        """Compute the scores of the fixed batch."""
        device, dtype = self.context.device, getattr(torch, self.recipe.precision)
        pixels = self.made.pixels.to(device, non_blocking=True).flatten(0, 1)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32), reusing_memory(device):
            model(self.recipe.normalize(pixels)).softmax(1)

    def profile(self, phases: list[str]) -> dict[str, Any]:
        """Return the seconds spent in each kind of operators in one step of each phase."""
        activity = ProfilerActivity.CUDA if self.context.device.type == "cuda" else ProfilerActivity.CPU
        found = {}
        for phase in phases:
            with profile(activities=[activity]) as profiled:
                self.phases[phase]()
                synchronize(self.context.device)
            seconds = dict.fromkeys([*KINDS, "other"], 0.0)
            for operator in profiled.key_averages():
                seconds[kind(operator.key)] += 1e-6 * (
                    operator.self_device_time_total
                    if activity == ProfilerActivity.CUDA
                    else operator.self_cpu_time_total
                )
            found[phase] = seconds
        return found

    def read(self, source: str, clips: int) -> dict[str, Any]:
        """Return the median CPU time of reading a training clip of a source, in milliseconds."""
        dataset, spent = self.data(source), []
        for draw in range(clips + 1):  # the first one loads libraries
            start = time.process_time()
            dataset[draw, draw % len(dataset)]
            spent.append(1000 * (time.process_time() - start))
        return {"milliseconds": statistics.median(spent[1:])}

    @torch.no_grad()
    def check(self, file: str) -> dict[str, Any]:
        """Load weights of another framework; return the relative difference of the logits for its clip."""
        theirs = torch.load(file, map_location="cpu", weights_only=True)
        model = self.recipe.model(num_classes=CLASSES)
        source = convert(theirs["state_dict"], model).source
        ours = optimize_for_inference(model)(theirs["clip"])
        reference = theirs["logits"]
        return {"difference": float((ours - reference).abs().max() / reference.abs().max()), "source": source}

    def answer(self, request: dict[str, Any], before: float) -> dict[str, Any]:
        """Return the answer to a request.

        Args:
            request: phase and its arguments.
            before: memory before the network was built, in MiB.
        """
        phase = request["phase"]
        if phase == "memory":
            return {"mib": (self.training_peak or peak_memory(self.context.device)) - before}
        if phase == "check":
            return self.check(request["file"])
        if phase == "profile":
            return self.profile(request["of"])
        if phase == "read":
            return self.read(request["source"], request["clips"])
        self.watch.is_exact = phase == "stages" or self.context.device.type == "cpu"
        run, steps = self.phases[phase], []
        self.state.set_train_mode()
        for _ in range(request["steps"]):
            self.watch.start()
            run()
            steps.append(self.watch.stop())
        return {"steps": steps}


def failure(error: Exception) -> dict[str, str]:
    """Return an error as an answer, and print its traceback to the log."""
    traceback.print_exc()
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return {
        "error": " ".join([f"{type(error).__name__}:", *lines[:3]])
    }  # the first line of a compiler's message names no cause


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output of libraries goes to the log, not among the answers

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    end_with_process(int(os.environ.get(PARENT, os.getppid())))
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    with contextlib.suppress(KeyboardInterrupt), init_distributed(options["device"]) as context:
        configure_process(context.device)
        importlib.import_module("torch._dynamo")  # by optimizers; not part of the memory of a step
        before = peak_memory(context.device)
        try:
            work = Work(options, context)
        except Exception as error:
            return answer(failure(error))
        answer({"framework": NAME, "phases": [*work.phases, "check"]})
        for line in sys.stdin:
            try:
                answer(work.answer(json.loads(line), before))
            except Exception as error:
                answer(failure(error))
                if context.world_size > 1:  # the other processes would wait for this one forever
                    return


if __name__ == "__main__":
    main()

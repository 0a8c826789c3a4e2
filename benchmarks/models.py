"""Training step, inference and memory of the models, compared with a plain implementation.

    python benchmarks/models.py [NAME …] [--rounds 5] [--memory]

The plain implementation has the same network and weights and runs them like the reference implementations:
contiguous activations (B, C, T, H, W), PyTorch's conv3d for every convolution (conv2d in image networks), a
temporal shift that writes a new tensor, and no folded normalizations. Both alternate within one process, so
that load on the machine affects both. The script prints the ratio of the fastest rounds and the median of the
ratios per round. Memory is the increase of a separate process's peak during training steps.
"""

import argparse
import copy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite import models
from mmaction_lite.device import peak_memory
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.models.convolution import Conv2d, Conv2plus1d, Conv3d
from mmaction_lite.models.fast.memory_format import store_channels_last
from mmaction_lite.models.inflated import PairMax
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import Block, MaxPool, ResNet
from mmaction_lite.models.slowfast import SlowFast

CASES = {  # (B, T, H = W) of the clips
    "tsn_r50": (1, 8, 224),
    "tsm_r50": (1, 8, 224),
    "slowonly_r50": (2, 4, 224),
    "i3d_r50": (1, 32, 224),
    "i3d_r50_heavy": (1, 8, 224),
    "c2d_r50": (1, 8, 224),
    "r2plus1d_r34": (1, 8, 224),
    "r2plus1d_r18": (1, 16, 112),
    "r3d_r18": (1, 16, 112),
    "slowfast_r50_4x16": (1, 32, 224),
}


class Plain(nn.Module):
    """Plain implementation of a model: on (B, C, T, H, W), or on (B·T, C, H, W) in image networks."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model
        self.flat = any(isinstance(module, Conv2d) for module in model.modules())

    def forward(self, x: Tensor) -> Tensor:
        batch_size = x.shape[0]
        if self.flat:
            x = x.transpose(1, 2).flatten(0, 1).contiguous()
        x = self.run(self.model.backbone, x, batch_size)
        if self.flat:
            x = x.mean((2, 3)).unflatten(0, (batch_size, -1))
            return self.model.fc(self.model.dropout(x)).mean(1)
        return self.model.fc(self.model.dropout(x.mean((2, 3, 4)) if x.ndim == 5 else x))

    def run(self, module: Any, x: Tensor, batch_size: int) -> Tensor:
        if isinstance(module, SlowFast):
            return self.slowfast(module, x, batch_size)
        if isinstance(module, ResNet):
            x = self.stem(module, x, batch_size)
            for stage in module.stages:
                x = self.run(stage, x, batch_size)
            return x
        if isinstance(module, Block):
            identity = x
            if module.downsample is not None:
                identity = self.norm(module.downsample[1], self.run(module.downsample[0], x, batch_size))
            for number in range(1, module.length + 1):
                x = self.run(getattr(module, f"conv{number}"), x, batch_size)
                x = self.norm(getattr(module, f"bn{number}"), x)
                if number < module.length:
                    x = functional.relu_(x)
            return functional.relu_(x + identity)
        if isinstance(module, Conv2plus1d):
            x = functional.relu_(self.norm(module.bn, self.run(module.spatial, x, batch_size)))
            return self.run(module.temporal, x, batch_size)
        if isinstance(module, Conv3d):
            return functional.conv3d(x, module.weight, module.bias, module.stride, module.padding)  # pyright: ignore
        if isinstance(module, Conv2d):
            x = shift_plainly(x, batch_size, module.share, module.causal) if module.share else x
            return functional.conv2d(x, module.weight, module.bias, module.stride, module.padding)  # pyright: ignore
        if isinstance(module, MaxPool):
            if self.flat:
                return functional.max_pool2d(x, 3, 2, module.padding)
            pad = module.padding
            return functional.max_pool3d(x, (1, 3, 3), (module.stride_t, 2, 2), (0, pad, pad))
        if isinstance(module, PairMax):
            return functional.max_pool3d(x, (2, 1, 1), (2, 1, 1))
        for child in module:
            x = self.run(child, x, batch_size)
        return x

    def stem(self, net: ResNet, x: Tensor, batch_size: int) -> Tensor:
        x = functional.relu_(self.norm(net.bn1, self.run(net.conv1, x, batch_size)))
        return x if net.maxpool is None else self.run(net.maxpool, x, batch_size)

    def norm(self, module: Any, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x,
            module.running_mean,
            module.running_var,
            module.weight,
            module.bias,
            self.training,
            0.1,
            module.eps,
        )

    def slowfast(self, net: SlowFast, x: Tensor, batch_size: int) -> Tensor:
        picked = torch.linspace(0, x.shape[2] - 1, x.shape[2] // net.alpha).long()
        slow, fast = self.stem(net.slow, x[:, :, picked], batch_size), self.stem(net.fast, x, batch_size)
        for lateral, slow_stage, fast_stage in zip(
            net.lateral, net.slow.stages, net.fast.stages, strict=True
        ):
            joined: Any = lateral
            across = functional.relu_(self.norm(joined.bn, self.run(joined.conv, fast, batch_size)))
            slow = self.run(slow_stage, torch.cat([slow, across], dim=1), batch_size)
            fast = self.run(fast_stage, fast, batch_size)
        return torch.cat([slow.mean((2, 3, 4)), fast.mean((2, 3, 4))], dim=1)


def shift_plainly(x: Tensor, batch_size: int, share: int, causal: bool) -> Tensor:
    """Apply the temporal shift as its authors do; `causal` moves channels ahead only."""
    time = x.unflatten(0, (batch_size, -1))
    out = torch.zeros_like(time)
    if causal:
        out[:, 1:, :share] = time[:, :-1, :share]
        out[:, :, share:] = time[:, :, share:]
        return out.flatten(0, 1)
    out[:, :-1, :share] = time[:, 1:, :share]
    out[:, 1:, share : 2 * share] = time[:, :-1, share : 2 * share]
    out[:, :, 2 * share :] = time[:, :, 2 * share :]
    return out.flatten(0, 1)


def build(name: str) -> tuple[Recognizer, Tensor]:
    torch.manual_seed(0)
    batch, frames, size = CASES[name]
    return getattr(models, name)(), torch.randn(batch, 3, frames, size, size)


def train_step(model: nn.Module, x: Tensor) -> Callable[[], None]:
    labels = torch.zeros(len(x), dtype=torch.long)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step


def alternate(plain: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> tuple[float, float, float]:
    """Return the seconds of the fastest plain round, the ratio of the fastest rounds, the median ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for seconds, run in zip(times, (plain, ours), strict=True):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    theirs, own = (seconds[1:] for seconds in times)  # the first round warms up
    median = statistics.median(b / a for a, b in zip(theirs, own, strict=True))
    return min(theirs), min(own) / min(theirs), median


def compare(name: str, rounds: int) -> str:
    model, x = build(name)
    plain = Plain(model)
    plain.eval()
    optimized = optimize_for_inference(model)
    with torch.inference_mode():
        difference = (optimized(x) - plain(x)).abs().max() / plain(x).abs().max()
        inference = alternate(lambda: plain(x), lambda: optimized(x), rounds)
    plain.train()
    ours = copy.deepcopy(model)
    store_channels_last(ours, is_trained=True)
    training = alternate(train_step(plain, x), train_step(ours, x), rounds)
    cells = "  ".join(
        f"{label} {seconds:.2f} s {fastest:.2f} / {median:.2f}"
        for label, (seconds, fastest, median) in (("inference", inference), ("training", training))
    )
    return f"{name:18}  {cells}  difference {float(difference):.0e}"


def peak_mib(name: str, form: str) -> float:
    """Return the increase of this process's peak memory during three training steps, in MiB."""
    model, x = build(name)
    if form == "plain":
        model = Plain(model)
    else:
        store_channels_last(model, is_trained=True)
    step = train_step(model.train(), x)
    before = peak_memory(torch.device("cpu"))
    for _ in range(3):
        step()
    return peak_memory(torch.device("cpu")) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--form", choices=("plain", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    for name in arguments.names:
        if arguments.form:
            print(peak_mib(name, arguments.form))
        elif arguments.memory:
            peaks = [
                float(subprocess.check_output([sys.executable, __file__, name, "--form", form]))
                for form in ("plain", "ours")
            ]
            print(f"{name:18}  memory {peaks[0]:.0f} MiB  {peaks[1] / peaks[0]:.2f}", flush=True)
        else:
            print(compare(name, arguments.rounds), flush=True)


if __name__ == "__main__":
    main()

"""Optimizers, parameter groups and learning-rate schedules, as small frozen descriptions."""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmaction_lite.errors import UserError, nearest

Group = dict[str, Any]
BatchNormMode = Literal["train", "frozen", "partial", "sync"]
_LAYER = re.compile(r"\b(?:layer(?P<stage>\d+)|(?:blocks|lateral|layers)\.(?P<block>\d+))\b")


@dataclass(frozen=True, kw_only=True)
class SGD:
    """SGD with momentum; `lr` belongs to the recipe's `batch_size`, `layer_decay` see `decay_layers`."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    groups: Literal["uniform", "no_decay", "tsm"] = "uniform"
    layer_decay: float = 1.0

    def __post_init__(self):
        _check_rates(self)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over the parameter groups of `model`."""
        groups = decay_layers(model, GROUPS[self.groups](model, self.weight_decay), self.layer_decay)
        return torch.optim.SGD(
            groups, self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=_can_fuse(model)
        )


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); the arguments as for `SGD`."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    groups: Literal["uniform", "no_decay", "tsm"] = "uniform"
    layer_decay: float = 1.0

    def __post_init__(self):
        _check_rates(self)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer over the parameter groups of `model`."""
        groups = decay_layers(model, GROUPS[self.groups](model, self.weight_decay), self.layer_decay)
        return torch.optim.AdamW(groups, self.lr, betas=self.betas, fused=_can_fuse(model))


def _check_rates(optimizer: "SGD | AdamW") -> None:
    for name in ("lr", "weight_decay"):
        if not 0 <= getattr(optimizer, name) < math.inf:
            raise UserError(f"optimizer.{name} is {getattr(optimizer, name)}; expected a number, 0 or above")
    if not 0 < optimizer.layer_decay <= 1:
        raise UserError(f"optimizer.layer_decay is {optimizer.layer_decay}; expected above 0, at most 1")
    momenta = (optimizer.momentum,) if isinstance(optimizer, SGD) else optimizer.betas
    if not all(0 <= momentum < 1 for momentum in momenta):
        raise UserError(f"optimizer: momentum or betas are {momenta}; expected 0 or above, below 1")


def uniform_groups(model: nn.Module, weight_decay: float) -> list[Group]:
    """One group: every parameter that is trained, with the same lr and decay."""
    params = [p for p in model.parameters() if p.requires_grad]
    return [{"params": params, "lr_scale": 1.0, "weight_decay": weight_decay}]


def no_decay_groups(model: nn.Module, weight_decay: float) -> list[Group]:
    """Weight decay for matrices and kernels alone: none on biases and norms, which have one dimension."""
    params = [p for p in model.parameters() if p.requires_grad]
    parts = [p for p in params if p.ndim > 1], [p for p in params if p.ndim <= 1]
    return [
        {"params": part, "lr_scale": 1.0, "weight_decay": decay}
        for part, decay in zip(parts, (weight_decay, 0.0), strict=True)
        if part
    ]


def tsm_groups(model: nn.Module, weight_decay: float) -> list[Group]:
    """The groups of TSM's published training (mit-han-lab/temporal-shift-module, `get_optim_policies`).

    Convolution weights lr x1 with decay, their biases x2 without; norms x1 without decay; the classifier's
    weight x5 with decay and its bias x10 without. The first convolution has the same factors as the
    others when it sees RGB.
    """
    parts: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                lr_scale, decays = _tsm_factors(module, is_bias=name == "bias")
                parts.setdefault((lr_scale, weight_decay if decays else 0.0), []).append(parameter)
    return [
        {"params": params, "lr_scale": lr_scale, "weight_decay": decay}
        for (lr_scale, decay), params in parts.items()
    ]


def _tsm_factors(module: nn.Module, is_bias: bool) -> tuple[float, bool]:
    """(lr factor, whether weight decay applies) of one parameter."""
    if isinstance(module, nn.Linear):
        return (10.0, False) if is_bias else (5.0, True)
    if isinstance(module, nn.modules.conv._ConvNd):
        return (2.0, False) if is_bias else (1.0, True)
    return (1.0, False)


def decay_layers(model: nn.Module, groups: list[Group], decay: float) -> list[Group]:
    """Groups in which every layer below the classifier has `decay` times the lr of the one above it.

    Layers are those of `layer_numbers`. Early ones, which see what all videos have in common, change least
    in a fine-tuning (Howard & Ruder 2018, arXiv:1801.06146, section 3.2).
    """
    if decay == 1:
        return groups
    numbers = layer_numbers(model)
    top = max(numbers.values())
    split: dict[tuple[int, int], Group] = {}
    for index, group in enumerate(groups):
        for parameter in group["params"]:
            number = numbers[parameter]
            lr_scale = group["lr_scale"] * decay ** (top - number)
            part = split.setdefault((index, number), group | {"params": [], "lr_scale": lr_scale})
            part["params"].append(parameter)
    return list(split.values())


def layer_numbers(model: nn.Module) -> dict[nn.Parameter, int]:
    """The depth of every parameter: 0 in the stem, then stage or block by stage or block, the head last."""
    depths: dict[nn.Parameter, int | None] = {}
    deepest: dict[str, int] = {}  # inside each module that has numbered parts, so far
    for name, parameter in model.named_parameters():
        found = _LAYER.search(name)
        if found:
            depth = int(found["stage"]) if found["stage"] else int(found["block"]) + 1
            inside = name[: found.start()]
            deepest[inside] = max(depth, deepest.get(inside, 0))
            depths[parameter] = depth
        elif name.startswith("backbone."):
            depths[parameter] = deepest.get(name.rsplit(".", 2)[0] + ".", 0)
        else:
            depths[parameter] = None
    head = 1 + max((depth for depth in depths.values() if depth is not None), default=-1)
    return {parameter: head if depth is None else depth for parameter, depth in depths.items()}


GROUPS: dict[str, Callable[[nn.Module, float], list[Group]]] = {
    "uniform": uniform_groups,
    "no_decay": no_decay_groups,
    "tsm": tsm_groups,
}


@dataclass(frozen=True, kw_only=True)
class Steps:
    """lr times `gamma` at each of the epochs `milestones`, after an optional linear warm-up.

    The warm-up rises epoch by epoch from `warmup_start` to 1, which it reaches in the last of its
    `warmup_epochs`; or, `linear`, step by step to 1 at epoch `warmup_epochs`.
    """

    milestones: tuple[int, ...]
    gamma: float = 0.1
    warmup_epochs: int = 0
    warmup_start: float = 0.1
    linear: bool = False

    def factor(self, epoch: float, epochs: int) -> float:
        """What lr is multiplied with at `epoch`, a fraction counted from 0, of `epochs`."""
        decay = self.gamma ** bisect_right(self.milestones, epoch)
        if not self.warmup_epochs:
            return decay
        by_epoch = int(epoch) / max(1, self.warmup_epochs - 1)
        rise = min(1.0, epoch / self.warmup_epochs if self.linear else by_epoch)
        return decay * (self.warmup_start + (1 - self.warmup_start) * rise)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from 1 at epoch `begin` to 0 at the end, with an optional linear warm-up.

    The warm-up goes step by step from `warmup_start` at the first step to epoch `warmup_epochs`: as a factor
    of the cosine, up to 1, or, `linear`, in its place, up to the value that the cosine has there.
    """

    warmup_epochs: int = 0
    warmup_start: float = 0.1
    begin: int = 0
    linear: bool = False

    def factor(self, epoch: float, epochs: int) -> float:
        """What lr is multiplied with at `epoch`, a fraction counted from 0, of `epochs`."""
        rise = min(1.0, epoch / self.warmup_epochs) if self.warmup_epochs else 1.0
        if self.linear and rise < 1:
            return self.warmup_start + (self._cosine(self.warmup_epochs, epochs) - self.warmup_start) * rise
        return (self.warmup_start + (1 - self.warmup_start) * rise) * self._cosine(epoch, epochs)

    def _cosine(self, epoch: float, epochs: int) -> float:
        done = max(0.0, epoch - self.begin) / (epochs - self.begin)
        return (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Cosine rise from `start` to 1 in the first `rise` of the training, then cosine fall to `end`."""

    rise: float = 0.25
    start: float = 0.04
    end: float = 1e-5

    def factor(self, epoch: float, epochs: int) -> float:
        """What lr is multiplied with at `epoch`, a fraction counted from 0, of `epochs`."""
        done = epoch / epochs
        if done < self.rise:
            low, high, part = self.start, 1.0, done / self.rise
        else:
            low, high, part = 1.0, self.end, (done - self.rise) / (1 - self.rise)
        return low + (high - low) * (1 - math.cos(math.pi * part)) / 2


Optimizer = SGD | AdamW
Schedule = Steps | Cosine | OneCycle


def freeze(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    """Stop the training of modules; returns those whose running statistics must stay as well.

    Args:
        model: the network.
        names: of modules or parameters as `named_parameters` spells them, or beginnings at a dot:
            "backbone.stages.0", "backbone".

    Raises:
        UserError: there is none of that name, or nothing is left to train.
    """
    for name in names:
        frozen = [p for full, p in model.named_parameters() if f"{full}.".startswith(f"{name}.")]
        if not frozen:
            valid = {
                ".".join(full.split(".")[:depth])
                for full, _ in model.named_parameters()
                for depth in (1, 2, 3)
            }
            raise UserError(f"freeze: the network has nothing named {name!r}; {nearest(name, valid)}")
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError(f"freeze: {', '.join(names)} leave nothing to train")
    return [
        module
        for full, module in model.named_modules()
        if any(f"{full}.".startswith(f"{name}.") for name in names)
    ]


def set_batch_norm(model: nn.Module, mode: BatchNormMode) -> list[nn.Module]:
    """Which batch normalisations keep their running statistics; returns those that must stay in eval mode.

    Args:
        model: the network.
        mode: "train" and "sync": none. "frozen": all, their weights are trained. "partial": all but the
            first, weights and statistics (Wang et al. 2016, arXiv:1608.00859, section 3.2).
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if mode == "frozen":
        return list(norms)
    if mode == "partial":
        for norm in norms[1:]:
            norm.requires_grad_(False)
        return list(norms[1:])
    return []


@torch.no_grad()
def measure_statistics(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Set the running statistics of all batch normalisations to the mean over `inputs`, one batch each.

    "Precise" batch normalisation (Wu & Johnson 2021, arXiv:2105.07576, section 3): the running averages of a
    training belong to weights that have changed since. Other modules run as in evaluation.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    for batch in inputs:
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group `lr` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def _can_fuse(model: nn.Module) -> bool:
    """Whether PyTorch updates all parameters in one kernel here: 17 ms instead of 46 for 32 M on a CPU.

    Not where parameters are sharded, which some of these kernels do not know.
    """
    return all(
        p.device.type in ("cpu", "cuda") and p.is_floating_point() and not hasattr(p, "device_mesh")
        for p in model.parameters()
    )

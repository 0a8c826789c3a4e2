"""Estimates of the time and the memory that a training takes, before it begins.

The time of a pass is that of its multiply-adds and of its memory traffic, each at a fixed rate. The rates of
a CPU core are fitted to measured training steps; `docs/estimates.json` compares them
(`benchmarks/estimates.py`).
"""

from typing import NamedTuple

import torch
from torch import nn

from mmaction_lite.models.complexity import Shape, multiply_adds, parameters, traffic

# Rates of one CPU core and of a GPU: multiply-adds per second, and bytes per second.
CORE_SPEED, CORE_BANDWIDTH = 170e9, 8.8e9
GPU_SPEED, GPU_BANDWIDTH = 60e12, 1.5e12
PASSES = 3  # the backward pass takes twice the forward pass
STATE_BYTES = 16  # of a parameter: weight, gradient and two averages of AdamW in float32
LIBRARY_BYTES = 1e8  # of kernels and buffers
# Share of the traffic of a forward pass that is kept for the backward pass. Transformers compute attention
# weights, normalizations and activations again.
KEPT_TRAFFIC, KEPT_BY_TRANSFORMERS = 0.3, 0.07


class TrainingCost(NamedTuple):
    """Estimated cost of a training.

    Args:
        seconds: time of one clip in a step.
        fixed_bytes: memory of weights, gradients and optimizer.
        clip_bytes: memory of the activations of one clip.
    """

    seconds: float
    fixed_bytes: float
    clip_bytes: float


def training_cost(model: nn.Module, input_shape: Shape, device: torch.device, *, cores: int) -> TrainingCost:
    """Estimate the cost of training all weights of a network.

    Args:
        model: the network, also on the meta device.
        input_shape: (1, C, T, H, W) of one view.
        device: the device of the training.
        cores: processor cores that compute together, for a CPU.

    Returns:
        the cost of one view.
    """
    kept = KEPT_BY_TRANSFORMERS if is_transformer(model) else KEPT_TRAFFIC
    adds, moved = multiply_adds(model, input_shape), traffic(model, input_shape)
    is_gpu = device.type == "cuda"
    speed, bandwidth = (GPU_SPEED, GPU_BANDWIDTH) if is_gpu else (CORE_SPEED * cores, CORE_BANDWIDTH * cores)
    return TrainingCost(
        seconds=PASSES * (adds / speed + moved / bandwidth),
        fixed_bytes=LIBRARY_BYTES + STATE_BYTES * parameters(model),
        clip_bytes=kept * moved,
    )


def is_transformer(model: nn.Module) -> bool:
    """Whether a network has the linear layers of self-attention."""
    return any(name.endswith("qkv") for name, _ in model.named_modules())

"""Optimizers, learning-rate schedules, parameter groups, freezing and batch normalization of a training."""

from mmaction_lite.optim.batch_norm import BatchNormMode, measure_statistics, set_batch_norm
from mmaction_lite.optim.freezing import freeze
from mmaction_lite.optim.optimizers import SGD, AdamW, Optimizer, set_lr
from mmaction_lite.optim.parameter_groups import decay_layers, layer_numbers
from mmaction_lite.optim.schedules import Cosine, OneCycle, Schedule, Steps, WarmupCosine
from mmaction_lite.optim.unfreezing import FrozenBackbone, Unfreeze, freeze_backbone

__all__ = [
    "SGD",
    "AdamW",
    "BatchNormMode",
    "Cosine",
    "FrozenBackbone",
    "OneCycle",
    "Optimizer",
    "Schedule",
    "Steps",
    "Unfreeze",
    "WarmupCosine",
    "decay_layers",
    "freeze",
    "freeze_backbone",
    "layer_numbers",
    "measure_statistics",
    "set_batch_norm",
    "set_lr",
]

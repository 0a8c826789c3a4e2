"""Weights and optimizer state divided over processes (FSDP2), and put together again for files and tests.

Imported where it is used: PyTorch's part of it takes more than half a second to load.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mmaction_lite.distributed import DistributedContext


def shard(model: nn.Module, context: DistributedContext) -> None:
    """Divide weights, and so gradients and optimizer state, over the processes, in place.

    Every stage is gathered when it is needed, and the rest with the whole network.
    """
    mesh = init_device_mesh(context.device.type, (context.world_size,))
    for module in [m for m in model.modules() if isinstance(m, nn.Sequential)]:  # stages are
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)


class FullState:
    """The state of a sharded network, or of its optimizer, as one process would have it; see `shard`.

    All processes must ask for it together; only the first one gets it.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None):
        self.model = model
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """By the names of parameters and buffers, in the memory of the processor."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        if self.optimizer is None:
            return get_model_state_dict(self.model, options=options)
        return get_optimizer_state_dict(self.model, self.optimizer, options=options)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give every process its part."""
        options = StateDictOptions(full_state_dict=True)
        if self.optimizer is None:
            set_model_state_dict(self.model, state, options=options)
        else:
            set_optimizer_state_dict(self.model, self.optimizer, state, options=options)


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Weights and running statistics of a sharded network, for every process, on its device."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))

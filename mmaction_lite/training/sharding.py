"""Sharded training: parameters, gradients and optimizer state divided over the processes (FSDP2).

`torch.distributed.fsdp` takes more than half a second to import, so this module is imported where it is used.
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
from mmaction_lite.models.network import layer_modules, layers


def shard(model: nn.Module, context: DistributedContext) -> None:
    """Divide the parameters of a network over the processes, in place.

    The parameters of each layer between stem and head are gathered when the layer runs, those of the stem and
    the head when the network runs. Layers are those of `models.network.layers`; a network of one layer is
    gathered as a whole.

    Args:
        model: the network, on the device of the process.
        context: the processes.
    """
    mesh = init_device_mesh(context.device.type, (context.world_size,))
    # Not the stem: its normalization runs again in the backward pass, before FSDP gathers its parameters.
    for layer in layers(model)[1:-1]:
        modules = [module for module in layer_modules(layer) if any(True for _ in module.parameters())]
        if modules:
            fully_shard(modules, mesh=mesh)
    fully_shard(model, mesh=mesh)


class FullState:
    """State dict of a sharded network or of its optimizer, in the format of a single process; see `shard`.

    All processes must call its methods together.

    Args:
        model: the sharded network.
        optimizer: its optimizer; None for the state of the network.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer | None = None):
        self.model = model
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return the full state on the CPU in the process of rank 0, an empty dict in the others."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        if self.optimizer is None:
            return get_model_state_dict(self.model, options=options)
        return get_optimizer_state_dict(self.model, self.optimizer, options=options)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a full state, which every process holds; each keeps its shard."""
        options = StateDictOptions(full_state_dict=True)
        if self.optimizer is None:
            set_model_state_dict(self.model, state, options=options)
        else:
            set_optimizer_state_dict(self.model, self.optimizer, state, options=options)


def whole_weights(model: nn.Module) -> dict[str, Any]:
    """Return parameters and buffers of a sharded network, unsharded, in every process and on its device."""
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))

"""Several processes as one training: who they are, and what they tell each other.

`torchrun` starts the processes and says in the environment which each one is; without it there is one.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import PrefixStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mmaction_lite.device import pick_device
from mmaction_lite.errors import UserError

T = TypeVar("T")


class DistributedContext:
    """This process among those of one training or test; alone unless `torchrun` started several.

    Args:
        rank: which process this is.
        world_size: number of processes.
        local_world_size: number of processes on this machine.
        device: what this one computes on.
    """

    def __init__(self, rank: int, world_size: int, local_world_size: int, device: torch.device):
        self.rank = rank
        self.world_size = world_size
        self.local_world_size = local_world_size
        self.device = device
        # What processes say goes its own way: gradients travel from another thread, at any time.
        self._talk = dist.new_group(backend="gloo") if world_size > 1 else None
        self._asked: tuple[torch.Tensor, Any] | None = None

    def __str__(self) -> str:
        return f"{self.device}" if self.world_size == 1 else f"{self.world_size} × {self.device.type}"

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether any process raised it: all get the same answer.

        Of several processes it is the answer to the call before this one, so nobody waits for it.
        """
        if self._talk is None:
            return list(flags)
        asked = torch.tensor(flags, dtype=torch.uint8)
        work = dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._talk, async_op=True)
        before, self._asked = self._asked, (asked, work)
        if before is None:
            return [False] * len(flags)
        before[1].wait()
        return [bool(flag) for flag in before[0].tolist()]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in their order."""
        if self._talk is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._talk)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        self.gather(None)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The network as training calls it: gradients are averaged over all processes."""
        if self.world_size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):
            # The newer name of `broadcast_buffers` is not known to the oldest PyTorch. Running statistics are
            # not sent at every step: `share_statistics` does it before they are used.
            return DistributedDataParallel(model, ids, broadcast_buffers=False)

    def share_statistics(self, model: nn.Module) -> None:
        """Give all processes the first one's running statistics, which are those that are saved."""
        for buffer in model.buffers() if self.world_size > 1 else ():
            dist.broadcast(buffer, 0)

    def average_statistics(self, model: nn.Module) -> None:
        """Give all processes the mean of their running statistics."""
        for buffer in model.buffers() if self.world_size > 1 else ():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.world_size


def without_exchange(model: nn.Module) -> AbstractContextManager[object]:
    """A context in which gradients of a wrapped network stay in their process, for all but the last part."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def join(device: str) -> Iterator[DistributedContext]:
    """Join the other processes, if `torchrun` started several, for as long as the block lasts.

    Args:
        device: see `pick_device`; of several processes each takes the GPU of its number on the machine.

    Raises:
        UserError: no such device, or fewer GPUs than processes.
    """
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1 or dist.is_initialized():
        yield DistributedContext(0, 1, 1, pick_device(device))
        return
    target = pick_device(device)
    if target.type == "mps":
        raise UserError("several processes need GPUs or processors; --device mps is for one")
    local_rank = int(os.environ["LOCAL_RANK"])
    if target.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"{os.environ['LOCAL_WORLD_SIZE']} processes on a machine with {torch.cuda.device_count()} "
                "GPUs; start one for each: torchrun --nproc-per-node=gpu"
            )
        target = torch.device("cuda", local_rank)
        torch.cuda.set_device(target)
    backend = "nccl" if target.type == "cuda" else "gloo"
    # torchrun keeps one store for all its attempts: without a prefix, processes that were started again find
    # the addresses of those that died.
    store, rank, _ = next(rendezvous("env://"))
    store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    timeout = timedelta(minutes=30)
    dist.init_process_group(backend, store=store, rank=rank, world_size=number, timeout=timeout)
    try:
        yield DistributedContext(rank, number, int(os.environ["LOCAL_WORLD_SIZE"]), target)
    finally:
        dist.destroy_process_group()

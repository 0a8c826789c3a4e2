"""Several processes that train or test together: their ranks, and the communication between them.

`torchrun` starts the processes and sets their ranks in the environment. Without it there is one process.
"""

import os
import pickle
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from threading import Thread
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
    """Rank, device and communication of this process.

    Args:
        rank: rank of this process.
        world_size: number of processes.
        local_world_size: number of processes on this machine.
        device: device of this process.
    """

    def __init__(self, rank: int, world_size: int, local_world_size: int, device: torch.device):
        self.rank = rank
        self.world_size = world_size
        self.local_world_size = local_world_size
        self.device = device
        # A group for flags and objects: another thread exchanges gradients in the default group at any time.
        self._group = dist.new_group(backend="gloo") if world_size > 1 else None
        self._pending: tuple[torch.Tensor, Any] | None = None

    def __str__(self) -> str:
        return f"{self.device}" if self.world_size == 1 else f"{self.world_size} × {self.device.type}"

    @property
    def is_main_process(self) -> bool:
        """Whether this process prints and writes files: rank 0 does."""
        return self.rank == 0

    def all_reduce_flags(self, *flags: bool) -> list[bool]:
        """Return for each flag whether it is set in any process.

        With several processes the result belongs to the flags of the previous call, so that no process waits
        for the communication. All processes get the same result.
        """
        if self._group is None:
            return list(flags)
        tensor = torch.tensor(flags, dtype=torch.uint8)
        work = dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group, async_op=True)
        previous, self._pending = self._pending, (tensor, work)
        if previous is None:
            return [False] * len(flags)
        previous[1].wait()
        return [bool(flag) for flag in previous[0].tolist()]

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def barrier(self) -> None:
        """Wait until all processes reach this call."""
        self.all_gather(None)

    def wrap_model(self, model: nn.Module) -> nn.Module:
        """Return the model for forward passes; its gradients are averaged over all processes."""
        if self.world_size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):
            # The lowest supported PyTorch does not know the newer name of `broadcast_buffers`. Running
            # statistics are not sent at every step: `broadcast_buffers` does it before they are used.
            return DistributedDataParallel(model, ids, broadcast_buffers=False)

    def broadcast_buffers(self, model: nn.Module) -> None:
        """Copy the buffers (running statistics) of rank 0, which are the saved ones, to all processes."""
        for buffer in model.buffers() if self.world_size > 1 else ():
            dist.broadcast(buffer, 0)

    def average_buffers(self, model: nn.Module) -> None:
        """Set the floating-point buffers (running statistics) of all processes to their mean."""
        for buffer in model.buffers() if self.world_size > 1 else ():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.world_size


def no_sync(model: nn.Module) -> AbstractContextManager[object]:
    """Return a context without gradient exchange, for all but the last part of a batch."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


@contextmanager
def init_distributed(device: str) -> Iterator[DistributedContext]:
    """Join the other processes while the block runs, if `torchrun` started several.

    Args:
        device: see `pick_device`. With several processes each uses the GPU of its local rank.

    Raises:
        UserError: the device is not available, or there are fewer GPUs than processes.
    """
    world_size = num_processes()
    if world_size == 1 or dist.is_initialized():
        yield DistributedContext(0, 1, 1, pick_device(device))
        return
    target = pick_device(device)
    if target.type == "mps":
        raise UserError("--device mps supports a single process; expected cpu or cuda, or no torchrun")
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
    store, rank = _shared_store("attempt")
    timeout = timedelta(minutes=30)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_process(os.getppid())
    try:
        yield DistributedContext(rank, world_size, int(os.environ["LOCAL_WORLD_SIZE"]), target)
    finally:
        dist.destroy_process_group()


def num_processes(*, on_machine: bool = False) -> int:
    """Return how many processes `torchrun` started, in total or on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE" if on_machine else "WORLD_SIZE", "1"))


def share_from_main(make: Callable[[], T]) -> T:
    """Return what `make` returns in the process of rank 0, in all processes that `torchrun` started.

    It works before `init_distributed`; one call for each start of the processes.

    Args:
        make: called by rank 0 only. Its result is sent as a pickle.

    Raises:
        UserError: `make` raised one. All processes get its text.
    """
    if num_processes() == 1:
        return make()
    store, rank = _shared_store("shared")
    if rank == 0:
        try:
            result: tuple[Any, str | None] = make(), None
        except UserError as error:
            result = None, str(error)
        store.set("value", pickle.dumps(result).hex())
    store.wait(["value"], timedelta(minutes=30))
    value, message = pickle.loads(bytes.fromhex(store.get("value").decode()))
    _kept.append(store)  # rank 0 may serve the others, which read later
    if message is not None:
        raise UserError(message)
    return value


_kept: list[PrefixStore] = []


def _shared_store(name: str) -> tuple[PrefixStore, int]:
    """Return a part of the store of all processes, and the rank of this one.

    torchrun keeps one store for all restarts. Without a prefix, restarted processes would find values of the
    processes that died.
    """
    store, rank, _ = next(rendezvous("env://"))
    return PrefixStore(f"{name} {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store), rank


def end_with_process(parent: int) -> None:
    """End this process within about a second when its parent process has ended, which may have been killed.

    Args:
        parent: id of the parent process.
    """

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if os.name == "posix":  # elsewhere the id of the parent never changes
        Thread(target=wait, name="parent watch", daemon=True).start()

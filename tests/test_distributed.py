"""Two processes exchange flags, objects, gradients and running statistics.

Trainings in several processes are in tests/training/test_processes.py.
"""

import json
import multiprocessing
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from mmaction_lite import distributed
from mmaction_lite.distributed import DistributedContext, init_distributed, no_sync, share_from_main
from mmaction_lite.errors import UserError

needs_distributed = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
)


def norm_of(rank: int) -> nn.BatchNorm1d:
    """A normalization whose statistics differ between processes."""
    norm = nn.BatchNorm1d(1)
    norm.load_state_dict(
        norm.state_dict()
        | {
            "running_mean": torch.tensor([1.0 + rank]),
            "running_var": torch.tensor([2.0 + 4 * rank]),
            "num_batches_tracked": torch.tensor(3 + rank),
        }
    )
    return norm


def statistics(norm: nn.BatchNorm1d) -> list[float]:
    return [float(buffer) for buffer in norm.buffers()]


def gradient(model: nn.Module, linear: nn.Linear, rank: int) -> float:
    model.zero_grad()
    model(torch.full((1, 1), 1.0 + rank)).sum().backward()
    assert linear.weight.grad is not None
    return float(linear.weight.grad)


def work(rank: int, port: int, folder: Path) -> None:
    """Run one of two processes, which writes its results to `folder`."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    chosen = share_from_main(lambda: {"rank": rank})
    with init_distributed("cpu") as context:
        seen: dict[str, Any] = {
            "chosen": chosen,
            "place": [context.rank, context.world_size, str(context), context.is_main_process],
        }
        seen["flags"] = [context.all_reduce_flags(rank == 1, False) for _ in range(2)]
        seen["gathered"] = context.all_gather(f"rank {rank}")
        context.average_buffers(averaged := norm_of(rank))
        context.broadcast_buffers(shared := norm_of(rank))
        seen["averaged"], seen["shared"] = statistics(averaged), statistics(shared)
        linear = nn.Linear(1, 1, bias=False)
        model = context.wrap_model(linear)
        seen["gradient"] = gradient(model, linear, rank)
        with no_sync(model):
            seen["own gradient"] = gradient(model, linear, rank)
    (folder / f"{rank}.json").write_text(json.dumps(seen))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the results of both processes."""
    folder, threads = tmp_path_factory.mktemp("processes"), torch.get_num_threads()
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    other = multiprocessing.get_context("spawn").Process(target=work, args=(1, port, folder))
    other.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            patch.setenv(name, "")  # restored afterwards
        work(0, port, folder)  # this process is the first one
    torch.set_num_threads(threads)
    other.join(100)
    assert other.exitcode == 0
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@needs_distributed
def test_processes_know_their_rank(seen):
    assert [each["place"] for each in seen] == [[0, 2, "2 × cpu", True], [1, 2, "2 × cpu", False]]


@needs_distributed
def test_all_processes_get_the_value_of_the_first(seen):
    assert [each["chosen"] for each in seen] == [{"rank": 0}] * 2


@needs_distributed
def test_all_processes_get_the_error_of_the_first(monkeypatch):
    store = HashStore()
    monkeypatch.setenv("WORLD_SIZE", "2")

    def fail() -> int:
        raise UserError("no clips")

    for rank in (0, 1):
        monkeypatch.setattr(distributed, "_shared_store", lambda name, rank=rank: (store, rank))
        with pytest.raises(UserError, match="no clips"):
            share_from_main(fail if rank == 0 else lambda: 1)


@needs_distributed
def test_flags_of_any_process_arrive_one_call_later(seen):
    assert [each["flags"] for each in seen] == [[[False, False], [True, False]]] * 2


@needs_distributed
def test_objects_are_gathered_in_the_order_of_ranks(seen):
    assert [each["gathered"] for each in seen] == [["rank 0", "rank 1"]] * 2


@needs_distributed
def test_running_statistics_are_averaged_over_processes(seen):
    """The number of batches is an integer buffer and does not change."""
    assert [each["averaged"] for each in seen] == [[1.5, 4.0, 3.0], [1.5, 4.0, 4.0]]


@needs_distributed
def test_running_statistics_of_the_first_process_are_shared(seen):
    assert [each["shared"] for each in seen] == [[1.0, 2.0, 3.0]] * 2


@needs_distributed
def test_gradients_are_averaged_unless_the_exchange_is_off(seen):
    assert [each["gradient"] for each in seen] == [1.5, 1.5]
    assert [each["own gradient"] for each in seen] == [1.0, 2.0]


def test_a_single_process_exchanges_nothing():
    with init_distributed("cpu") as context:
        assert (context.rank, context.world_size, str(context)) == (0, 1, "cpu")
        assert context.is_main_process
        assert context.all_reduce_flags(True, False) == [True, False]
        assert context.all_gather("value") == ["value"]
        context.barrier()
        norm = norm_of(0)
        assert context.wrap_model(norm) is norm
        context.average_buffers(norm)
        context.broadcast_buffers(norm)
        assert statistics(norm) == [1.0, 2.0, 3.0]


def test_a_context_names_its_device():
    assert str(DistributedContext(0, 1, 1, torch.device("cuda", 1))) == "cuda:1"


def test_several_processes_are_not_for_mps(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("mmaction_lite.distributed.pick_device", torch.device)
    with pytest.raises(UserError, match="--device mps supports a single process"), init_distributed("mps"):
        pass


def test_a_process_ends_with_its_parent(monkeypatch):
    """The id of the parent changes when the parent ends."""
    ended = threading.Event()
    monkeypatch.setattr(distributed.os, "_exit", lambda code: ended.set())
    distributed.end_with_process(os.getppid())
    assert not ended.wait(0.1)
    distributed.end_with_process(os.getppid() + 1)
    assert ended.wait(5)

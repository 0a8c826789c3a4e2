"""Sharded modules and the full state of a sharded network; `test_distributed` trains on two processes."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from mmaction_lite.distributed import DistributedContext
from mmaction_lite.models import slowfast_r50_4x16, tsm_mobilenetv2, tsm_r10
from mmaction_lite.models.network import layer_modules, layers

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"
)


@pytest.fixture
def context() -> Iterator[DistributedContext]:
    """A group of one process."""
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # pyright: ignore
    yield DistributedContext(0, 1, 1, torch.device("cpu"))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "builder",
    [tsm_r10, *(pytest.param(each, marks=pytest.mark.slow) for each in (tsm_mobilenetv2, slowfast_r50_4x16))],
)
def test_layers_between_stem_and_head_are_sharded(builder, context):
    from torch.distributed.fsdp import FSDPModule

    from mmaction_lite.training.sharding import FullState, shard, whole_weights

    torch.manual_seed(0)
    model, plain = (builder(num_classes=2, width=8, dropout=0.0) for _ in range(2))
    plain.load_state_dict(model.state_dict())
    expected = {module for layer in layers(model)[1:-1] for module in layer_modules(layer)}
    shard(model, context)
    assert {module for module in model.modules() if isinstance(module, FSDPModule)} == expected | {model}
    for state in (FullState(model).state_dict(), whole_weights(model)):
        torch.testing.assert_close(state, plain.state_dict(), rtol=0, atol=0)

    x = torch.rand(2, 3, 8, 32, 32)
    for network in (model, plain):
        network(x).square().sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.full_tensor(), theirs.grad)

    FullState(model).load_state_dict({name: value + 1 for name, value in plain.state_dict().items()})
    torch.testing.assert_close(whole_weights(model)["fc.bias"], plain.fc.bias.detach() + 1)


def test_the_state_of_an_optimizer_survives(context):
    from mmaction_lite.training.sharding import FullState, shard

    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    shard(model, context)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.rand(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    state = FullState(model, optimizer).state_dict()
    other = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    FullState(model, other).load_state_dict(state)
    torch.testing.assert_close(FullState(model, other).state_dict()["state"], state["state"])

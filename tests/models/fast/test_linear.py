"""Linear layers by oneDNN equal PyTorch's operator."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mmaction_lite.models.fast import linear as module
from mmaction_lite.models.fast.linear import Linear, linear
from mmaction_lite.models.fast.operators import has_onednn_linear
from mmaction_lite.models.vit import Block

needs_onednn = pytest.mark.skipif(not has_onednn_linear(), reason="no oneDNN with AVX-512 on this CPU")


@pytest.fixture
def calls(monkeypatch):
    """The products that run in oneDNN; small ones do, too."""
    found = []
    multiply = module.multiply_onednn
    monkeypatch.setattr(module, "LEAST_WORK", 0)
    monkeypatch.setattr(module, "is_mkl_faster", lambda: False)  # also on processors of Intel
    monkeypatch.setattr(module, "multiply_onednn", lambda *tensors: found.append(1) or multiply(*tensors))
    return found


@needs_onednn
@pytest.mark.parametrize("frozen", [(), ("x",), ("weight",), ("bias",)])
def test_values_and_gradients_are_those_of_pytorch(calls, frozen):
    generator = torch.Generator().manual_seed(0)
    tensors = {"x": (2, 5, 24), "weight": (16, 24), "bias": (16,)}
    ours = {name: torch.randn(shape, generator=generator) for name, shape in tensors.items()}
    theirs = {name: tensor.clone() for name, tensor in ours.items()}
    results = []
    for values, run in ((ours, linear), (theirs, functional.linear)):
        for name, tensor in values.items():
            tensor.requires_grad_(name not in frozen)
        results.append(run(**{"x" if run is linear else "input": values.pop("x"), **values}))
        results[-1].square().sum().backward()
    torch.testing.assert_close(results[0], results[1])
    for name in ("weight", "bias"):
        assert (ours[name].grad is None) == (name in frozen)
        if name not in frozen:
            torch.testing.assert_close(ours[name].grad, theirs[name].grad, rtol=1e-4, atol=1e-4)
    assert len(calls) == 3 - len(set(frozen) & {"x", "weight"})
    with torch.no_grad():
        torch.testing.assert_close(linear(results[0], torch.eye(16)), results[0])


@needs_onednn
def test_a_block_has_the_same_gradients(calls):
    torch.manual_seed(0)
    block, x = Block(24, 2, hidden=48), torch.randn(2, 6, 24, requires_grad=True)
    gradients = []
    for least in (0, 1 << 60):
        module.LEAST_WORK = least
        gradients.append(torch.autograd.grad(block(x).square().sum(), [x, *block.parameters()]))
    assert len(calls) == 4 * 3
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_other_types_and_small_products_run_in_pytorch(calls):
    layer, x = Linear(8, 4), torch.randn(3, 8)
    assert isinstance(layer, nn.Linear)
    layer.double()(x.double())
    Linear(8, 4, device="meta")(x.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        Linear(8, 4)(x)
    torch.compile(Linear(8, 4), backend="eager", fullgraph=True)(x)
    module.LEAST_WORK = 1 << 60
    Linear(8, 4)(x)
    assert calls == []


def test_all_products_run_in_pytorch_where_mkl_is_faster(calls, monkeypatch):
    monkeypatch.setattr(module, "is_mkl_faster", lambda: True)
    x = torch.randn(3, 8, requires_grad=True)
    Linear(8, 4)(x).sum().backward()
    assert calls == []

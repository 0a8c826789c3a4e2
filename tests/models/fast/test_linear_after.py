"""Linear layers that recompute their input equal those that store it."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmaction_lite.models.fast import linear, linear_after
from mmaction_lite.models.fast.linear import Linear
from mmaction_lite.models.rotary import tiled_rotation
from mmaction_lite.models.vit import Block

BEFORE = {
    "norm": lambda: nn.LayerNorm(12, 1e-3),
    "norm without bias": lambda: nn.LayerNorm(12, bias=False),
    "norm without parameters": lambda: nn.LayerNorm(12, elementwise_affine=False),
    "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU("tanh"),
}
FORWARD_HOOKS = ("register_forward_hook", "register_forward_pre_hook")


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setattr(linear, "LEAST_WORK", 0)
    monkeypatch.setattr(linear_after, "LEAST_WORK", 0)


@pytest.fixture
def calls(monkeypatch):
    """The layers that recompute their input."""
    found = []
    apply = linear_after._LinearAfter.apply
    monkeypatch.setattr(linear_after._LinearAfter, "apply", lambda *a: found.append(1) or apply(*a))
    return found


def build(name: str = "norm", dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Linear, Tensor, Tensor]:
    """Return a module, a layer, its input and the gradient of its output."""
    torch.manual_seed(0)
    before, layer = BEFORE[name](), Linear(12, 7)
    for parameter in before.parameters():
        nn.init.normal_(parameter)
    x, grad = torch.randn(2, 5, 12, dtype=dtype), torch.randn(2, 5, 7, dtype=dtype)
    return before.to(dtype), layer.to(dtype), x.requires_grad_(), grad


def gradients(out: Tensor, grad: Tensor, *parts: nn.Module | Tensor) -> list[Tensor | None]:
    """Return the gradients of a tensor and of the parameters of modules."""
    out.backward(grad.to(out.dtype))
    tensors = [t for part in parts for t in ([part] if isinstance(part, Tensor) else part.parameters())]
    found = [tensor.grad for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    return found


def stored_bytes(run) -> int:
    """Return the bytes of tensors, other than parameters, that `run` stores for the backward pass."""
    stored = {}

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if not isinstance(base, nn.Parameter):
            stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    assert out.requires_grad
    return sum(stored.values())


@pytest.mark.parametrize("frozen", [(), ("x",), ("before",), ("x", "before"), ("bias",)])
@pytest.mark.parametrize("name", BEFORE)
def test_values_and_gradients_are_those_of_the_modules(calls, name, frozen):
    before, layer, x, grad = build(name)
    x.requires_grad_("x" not in frozen)
    before.requires_grad_("before" not in frozen)
    layer.bias.requires_grad_("bias" not in frozen)
    expected = layer(before(x))
    found = linear_after.linear_after(before, x, layer)
    assert len(calls) == 1
    assert torch.equal(found, expected)
    parts = (x, before, layer)
    for ours, theirs in zip(gradients(found, grad, *parts), gradients(expected, grad, *parts), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ["norm", "gelu"])
def test_under_autocast_gradients_are_those_of_the_modules(calls, name):
    before, layer, x, grad = build(name, torch.float32)
    parts = (x, before, layer)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = linear_after.linear_after(before, x, layer), layer(before(x))
        again = layer(before(x))  # the cache of autocast holds no weight without gradient
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    assert all(g is not None for g in gradients(again, grad, *parts))
    for ours, theirs in zip(gradients(found, grad, *parts), gradients(expected, grad, *parts), strict=True):
        assert ours is not None
        assert theirs is not None
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.02, atol=0.02)


def test_the_bias_of_a_layer_without_one():
    before, layer, x, grad = build()
    plain, bias = Linear(12, 7, bias=False).double(), nn.Parameter(layer.bias.detach() * 2)
    expected = plain(before(x)) + bias
    found = linear_after.linear_after(before, x, plain, bias)
    torch.testing.assert_close(found, expected)
    parts = (x, before, plain, bias)
    for ours, theirs in zip(gradients(found, grad, *parts), gradients(expected, grad, *parts), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(linear_after.linear_after(None, x, plain, bias), plain(x) + bias)


def test_the_input_of_the_layer_is_not_stored(calls):
    before, layer, x, _ = build()
    one = x.nbytes
    assert stored_bytes(lambda: linear_after.linear_after(before, x, layer)) == one
    assert stored_bytes(lambda: layer(before(x))) > 2 * one
    assert len(calls) == 1


@pytest.mark.parametrize("is_rotated", [False, True])
def test_a_block_stores_ten_times_its_input(is_rotated):
    """Inputs of both norms, q, k and v, output of attention, and the input of the activation (four times)."""
    torch.manual_seed(0)
    block, x = Block(64, 2, hidden=256), torch.randn(1, 64, 64, requires_grad=True)
    rotate = tiled_rotation((4, 4, 4), 32, x) if is_rotated else None
    tables = 2 * 64 * 32 * 4 if is_rotated else 0
    small = 1024 + 2 * 4 * 64  # log-sums of attention, states of its generator
    found = stored_bytes(lambda: block(x, rotate)) - tables
    assert 10 * x.nbytes <= found <= 10 * x.nbytes + small


def test_blocks_have_the_same_gradients_when_they_run_again(calls):
    torch.manual_seed(0)
    block, x = Block(12, 3, hidden=24, qkv_bias="qv").double(), torch.randn(2, 6, 12).double()
    x.requires_grad_()
    grad = torch.randn_like(x)
    expected = gradients(block(x), grad, x, block)
    assert len(calls) == 3
    found = gradients(checkpoint(block, x, use_reentrant=False), grad, x, block)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("hook", FORWARD_HOOKS)
@pytest.mark.parametrize("where", [0, 1])
def test_hooks_run_in_the_graph(calls, hook, where):
    before, layer, x, _ = build()
    seen = []
    getattr((before, layer)[where], hook)(lambda *given: seen.append(given[-1]))
    linear_after.linear_after(before, x, layer)
    assert len(seen) == 1
    assert calls == []


def test_other_cases_run_as_they_are(calls, monkeypatch):
    before, layer, x, _ = build()
    linear_after.linear_after(nn.ReLU(), x, layer)
    linear_after.linear_after(before, x, nn.Linear(12, 7).double())
    with torch.no_grad():
        linear_after.linear_after(before, x, layer)
    torch.func.vmap(lambda one: linear_after.linear_after(before, one, layer))(x)
    torch.compile(linear_after.linear_after, backend="eager", fullgraph=True)(before, x, layer)
    on_meta = linear_after.linear_after(before.to("meta"), x.to("meta"), layer.to("meta"))
    assert on_meta.shape == (2, 5, 7)
    assert calls == [1]
    calls.clear()
    before, layer, x, _ = build()
    layer.weight.requires_grad_(False)
    linear_after.linear_after(before, x, layer)
    monkeypatch.setattr(linear_after, "LEAST_WORK", 1 << 60)
    linear_after.linear_after(*build()[:1], x, build()[1])
    assert calls == []

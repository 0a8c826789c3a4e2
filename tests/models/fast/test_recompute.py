"""Recomputation of activations in the backward pass."""

import weakref
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from mmaction_lite import models
from mmaction_lite.models.fast import recompute
from mmaction_lite.models.fast.recompute import checkpoint_forward


@pytest.mark.parametrize(
    "name", ["tsm_r50", "tsm_mobilenetv2", "tsm_online_r10", "slowfast_r50_4x16", "r2plus1d_r18"]
)
def test_recomputed_activations_are_bitwise_equal(name: str, monkeypatch: Any) -> None:
    """Against keeping them: same loss, gradients and running statistics, and nothing keeps them alive."""
    results = []
    for keep in (True, False):
        if keep:
            monkeypatch.setattr(recompute, "saved_tensors_hooks", lambda *_: nullcontext())
        else:
            monkeypatch.undo()
        torch.manual_seed(0)
        model = getattr(models, name)(num_classes=3, width=16)
        x = torch.rand(2, 3, 32 if "slowfast" in name else 8, 32, 32)
        activations = [
            watch_inputs(module)
            for path, module in model.named_modules()
            if path.endswith(("conv2", "temporal")) and "mobilenet" not in name
        ]
        loss = functional.cross_entropy(model(x), torch.tensor([0, 1]))
        assert all((found[0]() is not None) == keep for found in activations)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([*gradients, *model.buffers(), loss.detach()])
    for kept, again in zip(*results, strict=True):
        assert torch.equal(kept, again)


def watch_inputs(module: nn.Module) -> list[Any]:
    """Return a list that receives a weak reference to the memory of the module's input."""
    found: list[Any] = []
    module.register_forward_pre_hook(lambda _, inputs: found.append(weakref.ref(inputs[0].untyped_storage())))
    return found


@pytest.mark.parametrize("name", ["tsn_r50", "tsn_r18", "tsm_r50", "i3d_r50", "r2plus1d_r18"])
def test_a_recomputed_block_stores_no_output_of_a_convolution(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=3, width=16)
    for stage in model.backbone.stages:
        stage.recompute = True
    stored = [
        watch_inputs(module)
        for path, module in model.named_modules()
        if path.startswith("backbone.layer") and isinstance(module, nn.BatchNorm2d)
    ]
    loss = functional.cross_entropy(model(torch.rand(2, 3, 8, 32, 32)), torch.tensor([0, 1]))
    assert len(stored) > 8
    assert not [found for found in stored if found[0]() is not None]
    loss.backward()


def test_a_forward_pass_without_a_backward_pass_leaves_no_memory() -> None:
    """As after running out of memory, when the step is repeated with a smaller batch."""
    torch.manual_seed(0)
    model = models.tsn_r50(num_classes=3, width=16)
    outputs = watch_inputs(model.get_submodule("backbone.layer2.0.conv1"))
    loss = functional.cross_entropy(model(torch.rand(2, 3, 4, 64, 64)), torch.tensor([0, 1]))
    assert outputs[0]() is not None
    del loss
    assert outputs[0]() is None


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_running_statistics_see_a_batch_once(kind: type[nn.BatchNorm2d]) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = kind(4)

        def forward(self, x: torch.Tensor, batch_size: int) -> torch.Tensor:
            return self.norm(x).sin()

    torch.manual_seed(0)
    x = torch.randn(6, 4, *(3,) * int(kind.__name__[-2]), requires_grad=True)
    found = []
    for is_again in (False, True):
        block = Block()
        out = checkpoint_forward(block, x, 2) if is_again else block(x, 2)
        found.append((*torch.autograd.grad(out.square().sum(), x), *block.buffers()))
        assert block.norm.momentum == 0.1
    for kept, again in zip(*found, strict=True):
        assert torch.equal(kept, again)


def test_only_the_input_of_a_function_is_stored() -> None:
    """Against calling it: bitwise the same, and its intermediate results are not kept."""
    torch.manual_seed(0)
    x = torch.rand(8, 4, 5, 5)
    results, stored = [], []
    for call in (lambda function, x, _: function(x), recompute.recompute):
        norm, conv = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        with torch.no_grad():
            conv.weight.fill_(0.5)
            conv.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]
        found = watch_inputs(conv)
        leaf = x.clone().requires_grad_()
        y = call(lambda x, norm=norm, conv=conv: conv(norm(x).sigmoid()), leaf, norm)
        stored.append(found[0]() is not None)
        y.square().sum().backward()
        assert norm.num_batches_tracked == 1
        results.append([leaf.grad, norm.weight.grad, conv.weight.grad, norm.running_mean, norm.running_var])
    assert stored == [True, False]
    for plain, again in zip(*results, strict=True):
        assert torch.equal(plain, again)

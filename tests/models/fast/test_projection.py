"""1×1 convolution, batch normalization, shortcut and ReLU in one kernel, against the separate operators."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from mmaction_lite import models
from mmaction_lite.models import resnet
from mmaction_lite.models.convolution import Conv2d, Conv3d, conv2d
from mmaction_lite.models.fast import recompute
from mmaction_lite.models.fast.operators import has_fused
from mmaction_lite.models.fast.projection import can_fold, project

pytestmark = pytest.mark.skipif(not has_fused(), reason="this PyTorch has no fused convolutions on CPUs")


def layers(seed: int = 0) -> tuple[Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(seed)
    norm = nn.BatchNorm2d(32)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return Conv2d(8, 32, 1, 1), norm


def frames(channels: int = 8, mean: float = 0.0) -> Tensor:
    x = torch.randn(4, channels, 9, 8) + mean
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("with_shortcut", [True, False])
def test_output_gradients_and_statistics_are_those_of_float64(with_shortcut: bool, mean: float) -> None:
    conv, norm = layers()
    x, shortcut = frames(mean=mean), frames(32)
    exact_conv, exact_norm = (layer.double() for layer in layers())
    exact_x, exact_shortcut = (
        x.detach().double().requires_grad_(),
        shortcut.detach().double().requires_grad_(),
    )
    assert can_fold(x, conv, norm)
    out = project(x, conv, norm, shortcut if with_shortcut else None)
    exact = exact_norm(exact_conv(exact_x, 1))
    if with_shortcut:
        exact = (exact + exact_shortcut).relu()
    weights = torch.randn(out.shape)
    (out * weights).sum().backward()
    (exact * weights).sum().backward()
    pairs = [
        (out, exact),
        (x.grad, exact_x.grad),
        *zip(
            [p.grad for p in (*conv.parameters(), *norm.parameters())],
            [p.grad for p in (*exact_conv.parameters(), *exact_norm.parameters())],
            strict=True,
        ),
        *zip(norm.buffers(), exact_norm.buffers(), strict=True),
    ]
    if with_shortcut:
        pairs.append((shortcut.grad, exact_shortcut.grad))
    # A mean of 100 standard deviations costs two digits in the sums of any method.
    tolerance = 2e-6 if mean == 0 else 1e-4
    for ours, theirs in pairs:
        assert ours is not None
        assert theirs is not None
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


def test_the_statistics_are_counted_as_batch_normalization_does() -> None:
    conv, norm = layers()
    norm.momentum = None  # the average of all batches
    plain = nn.BatchNorm2d(32, momentum=None)
    for _ in range(3):
        x = frames()
        project(x, conv, norm)
        plain(functional.conv2d(x, conv.weight))
    for ours, theirs in zip(norm.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("frozen", ["nothing", "input", "convolution", "normalization"])
def test_frozen_parts_and_other_memory_formats(frozen: str, memory_format: torch.memory_format) -> None:
    conv, norm = layers()
    x, shortcut = frames().detach().contiguous(memory_format=memory_format), frames(32)
    x.requires_grad_(frozen != "input")
    conv.requires_grad_(frozen != "convolution")
    norm.requires_grad_(frozen != "normalization")
    leaves = [leaf for leaf in (x, shortcut, *conv.parameters(), *norm.parameters()) if leaf.requires_grad]
    weights = torch.randn(4, 32, 9, 8).contiguous(memory_format=memory_format)
    ours = torch.autograd.grad((project(x, conv, norm, shortcut) * weights).sum(), leaves)
    plain = torch.autograd.grad(((norm(conv(x, 1)) + shortcut).relu() * weights).sum(), leaves)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    # The gradient of a mean has no memory of its own.
    ours = torch.autograd.grad(project(x, conv, norm, shortcut).mean(), leaves)
    plain = torch.autograd.grad((norm(conv(x, 1)) + shortcut).relu().mean(), leaves)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


def test_weights_that_nearly_cancel_the_input_cost_no_more_digits_than_otherwise() -> None:
    conv, norm = layers()
    with torch.no_grad():
        conv.weight -= conv.weight.mean(1, keepdim=True)
        x = torch.randn(4, 1, 9, 8) + 1e-3 * torch.randn(4, 8, 9, 8)
    out, plain = project(x.requires_grad_(), conv, norm), norm(conv(x, 1))
    exact = copy.deepcopy(norm).double()(copy.deepcopy(conv).double()(x.double(), 1))
    assert (out - exact).abs().max() < 2 * (plain - exact).abs().max()


def test_a_channel_without_variance_stays_finite() -> None:
    conv, norm = layers()
    nn.init.zeros_(conv.weight)
    x = frames()
    project(x, conv, norm, frames(32)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (x, *conv.parameters()))


def test_other_cases_use_the_separate_operators() -> None:
    conv, norm = layers()
    x = frames()
    assert can_fold(x, conv, norm)
    assert not can_fold(x.double(), conv.double(), norm.double())
    conv, norm = layers()
    assert not can_fold(x, conv, norm.eval())
    conv, norm = layers()
    with torch.no_grad():
        assert not can_fold(x, conv, norm)
    with torch.autocast("cpu", torch.bfloat16):
        assert not can_fold(x, conv, norm)
    assert not can_fold(x[:, :, :2, :2], conv, norm)  # fewer pixels than the covariance is worth
    assert not can_fold(x, conv, nn.SyncBatchNorm(32))
    for other in (
        Conv2d(8, 32, 3, 1),
        Conv2d(8, 32, 1, 2),
        Conv2d(8, 32, 1, 1, share=1),
        Conv2d(8, 16, 1, 1),
    ):
        assert not can_fold(x, other, norm)
    assert not can_fold(x, Conv3d(8, 32, (3, 1)), norm)
    assert not can_fold(x, Conv3d(8, 32, (1, 1), bias=True), norm)
    assert can_fold(x, Conv3d(8, 32, (1, 1)), norm)
    for other in ({"affine": False}, {"track_running_stats": False}):
        assert not can_fold(x, conv, nn.BatchNorm2d(32, **other))
    for register in (  # somebody reads or changes what passes through a layer
        conv.register_forward_hook,
        norm.register_forward_pre_hook,
        norm.register_full_backward_hook,
        nn.modules.module.register_module_forward_hook,
    ):
        handle = register(lambda *_: None)
        is_folded = can_fold(x, conv, norm)
        handle.remove()
        assert not is_folded
        assert can_fold(x, conv, norm)


def test_a_block_with_another_activation_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    block = resnet.bottleneck(64, 16, 1, [conv2d(1), conv2d(3), conv2d(1), conv2d(1)], nn.BatchNorm2d)
    x = torch.randn(2, 64, 16, 16)
    block.activation = nn.SiLU()
    out = block(x, 2)
    monkeypatch.setattr(resnet, "can_fold", lambda *_: False)
    torch.testing.assert_close(out, block(x, 2), rtol=1e-4, atol=1e-5)
    assert out.min() < 0


@pytest.mark.parametrize("name", ["tsn_r50", "tsm_r50", "i3d_r50", "slowfast_r50_4x16"])
def test_a_training_step_is_the_same_and_stores_less(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory: dict[int, int] = {}  # address to number of values

    def counting(pack: Callable[[Tensor], Any], unpack: Callable[[Any], Tensor]) -> saved_tensors_hooks:
        def count(tensor: Tensor) -> Any:
            packed = pack(tensor)
            if isinstance(packed, Tensor):
                memory[tensor.data_ptr()] = tensor.numel()
            return packed

        return saved_tensors_hooks(count, unpack)

    def step(dtype: torch.dtype) -> tuple[Tensor, int]:
        torch.manual_seed(0)
        model = getattr(models, name)(num_classes=3, width=16, dropout=0.0).to(dtype)
        memory.clear()
        with counting(lambda tensor: tensor, lambda tensor: tensor):
            loss = functional.cross_entropy(model(clip.to(dtype)), torch.tensor([0, 1]))
        stored = sum(memory.values())
        loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        statistics = [buffer.flatten() for buffer in model.buffers()]
        return torch.cat([loss.detach().view(1), *gradients, *statistics]), stored

    monkeypatch.setattr(recompute, "saved_tensors_hooks", counting)
    torch.manual_seed(2)
    clip = torch.rand(2, 3, 32 if "slowfast" in name else 8, 64, 64)
    ours, few = step(torch.float32)
    exact, _ = step(torch.float64)
    monkeypatch.setattr(resnet, "can_fold", lambda *_: False)
    plain, many = step(torch.float32)
    assert few < 0.95 * many
    assert (ours - exact).norm() < 2 * (plain - exact).norm()

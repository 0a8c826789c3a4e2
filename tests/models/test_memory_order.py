"""How activations, gradients and weights lie in memory, which must change no number."""

import copy

import pytest
import torch
from torch.nn import functional

from mmaction_lite.models.convolution import store_channels_last, subsample_frames
from mmaction_lite.models.fast.stem import convolve_deep
from mmaction_lite.models.inflated import PairMax
from tests.models.test_models import build, clip


@pytest.mark.parametrize(
    ("taps", "side", "stride_t", "frames", "size"),
    [
        (5, 7, 2, 8, (16, 18)),
        (5, 7, 1, 3, (15, 16)),
        (1, 7, 1, 2, (9, 11)),
        (5, 7, 4, 9, (8, 8)),
        (3, 5, 2, 4, (6, 7)),
    ],
)
def test_the_deep_convolution_is_the_stem(
    taps: int, side: int, stride_t: int, frames: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2 * frames, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, taps, side, side, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    batch_size = x.unflatten(0, (2, -1)).transpose(1, 2)
    padding = (taps // 2, side // 2, side // 2)
    plain = (
        functional.conv3d(batch_size, weight, bias, (stride_t, 2, 2), padding).transpose(1, 2).flatten(0, 1)
    )
    deep = convolve_deep(x, weight, bias, 2, stride_t)
    torch.testing.assert_close(deep, plain)
    for ours, theirs in zip(
        *(torch.autograd.grad(out.sin().sum(), (x, weight, bias)) for out in (deep, plain)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_dropped_and_paired_frames_leave_gradients_in_the_order_of_memory() -> None:
    """Zeros in another order would be carried through all layers before, several times more slowly."""
    torch.manual_seed(0)
    x = torch.randint(3, (2 * 5, 6, 3, 4)).double()  # many are equal
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    batch_size = x.unflatten(0, (2, -1)).transpose(1, 2)
    for ours, plain in (
        (subsample_frames(x, 2, 2), batch_size[:, :, ::2]),
        (PairMax()(x, 2), functional.max_pool3d(batch_size, (2, 1, 1))),
    ):
        assert torch.equal(ours, plain.transpose(1, 2).flatten(0, 1))
        weights = torch.rand_like(ours)
        (grad,) = torch.autograd.grad((ours * weights).sum(), x)
        plain_weights = weights.unflatten(0, (2, -1)).transpose(1, 2)
        (expected,) = torch.autograd.grad((plain * plain_weights).sum(), x)
        assert torch.equal(grad, expected)
        assert grad.is_contiguous(memory_format=torch.channels_last)


def test_the_layout_of_weights_changes_no_number() -> None:
    torch.manual_seed(0)
    for name in ("i3d_r50", "tsm_r50"):
        model, x = build(name), clip(name)
        laid_out = copy.deepcopy(model)
        store_channels_last(laid_out, is_trained=True)
        assert any(not p.is_contiguous() for p in laid_out.parameters())
        found = []
        for each in (model.double(), laid_out.double()):
            each.train()
            torch.manual_seed(0)
            logits = each(x.double())
            found.append((logits, *torch.autograd.grad(logits.logsumexp(1).sum(), list(each.parameters()))))
        for expected, got in zip(*found, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)

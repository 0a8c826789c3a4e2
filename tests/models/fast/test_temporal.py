"""Convolutions along time and the temporal shift, as matrix products, and frames left out."""

import pytest
import torch
from torch.nn import functional

from mmaction_lite.models.fast import temporal
from mmaction_lite.models.fast.temporal import subsample_frames
from mmaction_lite.models.inflated import PairMax


@pytest.mark.parametrize(("kernel", "batch_size", "frames"), [(3, 2, 4), (3, 1, 1), (5, 2, 2), (7, 3, 8)])
def test_matrix_products_are_the_convolution_along_time(kernel: int, batch_size: int, frames: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch_size * frames, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 6, kernel, 1, 1, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    clip = x.unflatten(0, (batch_size, frames)).transpose(1, 2)
    plain = torch.nn.functional.conv3d(clip, weight, bias, padding=(kernel // 2, 0, 0))
    expected = plain.transpose(1, 2).flatten(0, 1)
    gradients = torch.autograd.grad(expected.sin().sum(), (x, weight, bias))
    for path in ("native", "products"):
        out = temporal.convolve_time(x, weight, bias, batch_size, 1, path)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(torch.autograd.grad(out.sin().sum(), (x, weight, bias)), gradients)


def test_the_shift_is_the_published_one() -> None:
    x = torch.randn(2, 4, 8, 3, 3)  # (B, T, C, H, W)
    expected = torch.zeros_like(x)
    expected[:, :-1, :2] = x[:, 1:, :2]
    expected[:, 1:, 2:4] = x[:, :-1, 2:4]
    expected[:, :, 4:] = x[:, :, 4:]
    assert torch.equal(temporal.shift(x.flatten(0, 1), 2, 2), expected.flatten(0, 1))


def test_the_causal_shift_is_that_of_the_online_network() -> None:
    """The first channels come from the frame before, all others stay."""
    x = torch.randn(2, 4, 8, 3, 3)  # (B, T, C, H, W)
    expected = x.clone()
    expected[:, 1:, :2] = x[:, :-1, :2]
    expected[:, 0, :2] = 0
    assert torch.equal(temporal.shift(x.flatten(0, 1), 2, 2, causal=True), expected.flatten(0, 1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("batch_size", "frames"), [(2, 4), (3, 1), (1, 2)])
def test_matrix_products_are_the_shift_and_its_convolution(
    batch_size: int, frames: int, causal: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch_size * frames, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 8, 1, 1, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    outs, grads = [], []
    for path in ("native", "products"):
        out = temporal.shift_and_project(x, weight, bias, batch_size, 2, path, causal=causal)
        outs.append(out)
        grads.append(torch.autograd.grad(out.sin().sum(), (x, weight, bias)))
    torch.testing.assert_close(outs[0], outs[1])
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("are_products_faster", [False, True])
def test_the_faster_way_to_shift_and_project_is_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, are_products_faster: bool, causal: bool
) -> None:
    monkeypatch.setattr(temporal, "are_products_faster", lambda x, **_: are_products_faster)
    torch.manual_seed(0)
    x = torch.randn(2 * 4, 8, 3, 4, requires_grad=True)
    weight, bias = torch.randn(5, 8, 1, 1, requires_grad=True), torch.randn(5, requires_grad=True)
    found = []
    for path in ("auto", "native"):
        out = temporal.shift_and_project(x, weight, bias, 2, 2, path, causal=causal)
        found.append([out, *torch.autograd.grad(out.sin().sum(), (x, weight, bias))])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    "pixels", [(3, 4), (9, 9)]
)  # gradient of the weight by products, and by convolutions
@pytest.mark.parametrize(("kernel", "batch_size", "frames"), [(3, 2, 4), (3, 1, 2), (5, 2, 2), (7, 3, 8)])
def test_the_fast_gradients_are_those_of_the_convolution_along_time(
    monkeypatch: pytest.MonkeyPatch, kernel: int, batch_size: int, frames: int, pixels: tuple[int, int]
) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("a PyTorch without oneDNN")
    monkeypatch.setattr(temporal, "has_onednn_linear", lambda: True)  # also without AVX-512
    monkeypatch.setattr(temporal, "LEAST_VALUES", 1)
    torch.manual_seed(0)
    x = torch.randn(batch_size * frames, 32, *pixels).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.randn(16, 32, kernel, 1, 1), torch.randn(16)
    found = []
    for dtype, path in ((torch.float32, "auto"), (torch.float64, "native")):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in (x, weight, bias)]
        out = temporal.convolve_time(leaves[0], leaves[1], leaves[2], batch_size, 1, path)
        grads = torch.autograd.grad(out.sin().sum(), leaves)
        found.append([out, *grads])
    for ours, exact in zip(*found, strict=True):
        assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()
    assert found[0][0].is_contiguous(memory_format=torch.channels_last)
    out = temporal.convolve_time(x, weight.requires_grad_(), None, batch_size, 1)
    assert out.relu_() is out  # networks without normalization activate in place


def test_the_gradient_of_the_shift_is_the_opposite_shift() -> None:
    x = torch.randn(2 * 4, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    for causal in (False, True):
        assert torch.autograd.gradcheck(lambda x, causal=causal: temporal.shift(x, 2, 2, causal), x)


def test_convolutions_replace_products_only_where_they_are_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = torch.randn(8, 64, 16, 16), torch.randn(8, 64, 4, 4)
    for has_onednn, of_intel in ((True, False), (True, True), (False, True)):
        monkeypatch.setattr(temporal, "has_onednn_linear", lambda found=has_onednn: found)
        monkeypatch.setattr(temporal, "is_mkl_faster", lambda found=of_intel: found)
        assert temporal.are_products_faster(large) != has_onednn
        assert temporal.are_products_faster(large, after_shift=True) == of_intel
        assert temporal.are_products_faster(small)
        assert temporal.are_products_faster(large.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not temporal.are_products_faster(small)


def test_dropped_and_paired_frames_leave_gradients_in_the_order_of_memory() -> None:
    """Another memory format of the gradient would slow down all earlier layers."""
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

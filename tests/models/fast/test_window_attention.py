"""Attention in windows: the chunked form, its gradients, windows, regions and masks."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmaction_lite.models.fast import window_attention as module
from mmaction_lite.models.fast.window_attention import (
    join_windows,
    shift_mask,
    split_windows,
    window_attention,
    window_groups,
)


def test_windows_are_joined_again():
    x = torch.arange(4 * 6 * 9 * 2).reshape(1, 4, 6, 9, 2)
    windows = split_windows(x, (2, 3, 3))
    assert windows.shape == (1, 12, 18, 2)
    assert torch.equal(windows[0, 0, :3, 0], x[0, 0, 0, :3, 0])
    assert torch.equal(windows[0, 1, :, 0].flatten(), x[0, :2, :3, 3:6, 0].flatten())
    assert torch.equal(join_windows(windows, (2, 3, 3), (4, 6, 9)), x)


def test_masks_separate_tokens_that_a_shift_brings_together():
    mask = shift_mask((1, 2, 2), (0, 1, 1), (2, 4, 4), torch.device("cpu"))
    assert mask.shape == (8, 1, 4, 4)
    assert not mask[0].any()  # the first window of a frame holds neighbors only
    assert mask[3, 0].tolist() == [[0 if i == j else -100 for j in range(4)] for i in range(4)]
    assert torch.equal(mask[:4], mask[4:])  # time does not shift


def inputs(batch: int = 2, grid: tuple[int, ...] = (4, 6, 6), **options: Any) -> tuple[Tensor, Tensor]:
    """Random q, k and v of two heads, and a bias for windows of 2x3x3 tokens, float64."""
    torch.manual_seed(0)
    options = {"dtype": torch.float64, "requires_grad": True} | options
    return torch.randn(batch, *grid, 3 * 8, **options), torch.randn(2, 18, 18, **options)


def gradients(qkv: Tensor, bias: Tensor, attend: Any, shift: tuple[int, ...]) -> list[Tensor]:
    """Output and gradients."""
    out = attend(qkv, bias, 2, (2, 3, 3), shift)
    weights = torch.arange(out.numel(), dtype=out.dtype).reshape(out.shape).sin()
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), (qkv, bias))]


@pytest.mark.parametrize("shift", [(0, 0, 0), (1, 1, 1), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("windows_at_once", [1, 3, 1000])
def test_chunks_compute_the_attention_and_its_gradients(shift, windows_at_once, monkeypatch):
    qkv, bias = inputs()
    monkeypatch.setattr(module, "CHUNK_BYTES", windows_at_once * bias.numel() * 8)
    found = gradients(qkv, bias, window_attention, shift)
    expected = gradients(qkv, bias, module._attend_at_once, shift)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.inference_mode():
        torch.testing.assert_close(window_attention(qkv, bias, 2, (2, 3, 3), shift), expected[0])


def test_a_frozen_bias_has_no_gradient():
    qkv, bias = inputs()
    bias.requires_grad_(False)
    expected = inputs()
    window_attention(qkv, bias, 2, (2, 3, 3), (1, 1, 1)).sum().backward()
    module._attend_at_once(*expected, 2, (2, 3, 3), (1, 1, 1)).sum().backward()
    assert bias.grad is None
    torch.testing.assert_close(qkv.grad, expected[0].grad)


def test_scores_are_not_stored_for_the_backward_pass():
    qkv, bias = inputs(batch=8)
    stored: list[Tensor] = []

    def note(x: Tensor) -> Tensor:
        stored.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        window_attention(qkv, bias, 2, (2, 3, 3), (1, 1, 1))
    assert sum(x.numel() for x in stored) == qkv.numel() + bias.numel()


@pytest.mark.parametrize("kind", ["bfloat16", pytest.param("compiled", marks=pytest.mark.slow), "counted"])
def test_other_arithmetic_uses_the_operators_of_pytorch(kind, monkeypatch):
    def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(module, "window_groups", fail)
    qkv, bias = (x.detach() for x in inputs(dtype=torch.float32))
    expected = module._attend_at_once(qkv, bias, 2, (2, 3, 3), (1, 1, 1))
    if kind == "bfloat16":
        found = window_attention(qkv.bfloat16(), bias, 2, (2, 3, 3), (1, 1, 1))
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    elif kind == "compiled":
        compiled = torch.compile(window_attention, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(qkv, bias, 2, (2, 3, 3), (1, 1, 1)), expected)
    else:
        with FlopCounterMode(display=False) as counter:
            window_attention(qkv, bias, 2, (2, 3, 3), (1, 1, 1))
        assert counter.get_total_flops() == 2 * 2 * qkv.numel() // 3 * 18


def test_groups_hold_every_token_once_and_windows_of_one_mask():
    groups = window_groups((4, 6, 9), (2, 3, 3), (1, 0, 1))
    assert len(groups) == 4  # the last window in time or not, and across or not
    index = torch.cat([group.places.flatten() for group in groups])
    assert torch.equal(index.sort().values, torch.arange(4 * 6 * 9))
    assert [group.regions is None for group in groups] == [True, False, False, False]
    mask = shift_mask((2, 3, 3), (1, 0, 1), (4, 6, 9), torch.device("cpu"))
    assert len(mask.flatten(1).unique(dim=0)) == 4
    (group,) = window_groups((4, 6, 9), (2, 3, 3), (0, 0, 0))
    assert group.places.shape == (12, 18)


def test_windows_are_cached_outside_of_inference_mode():
    window_groups.cache_clear()
    qkv, bias = inputs()
    with torch.inference_mode():
        window_attention(qkv, bias, 2, (2, 3, 3), (1, 1, 1))
    window_attention(qkv, bias, 2, (2, 3, 3), (1, 1, 1)).sum().backward()
    assert qkv.grad is not None


def test_gradients_are_those_of_finite_differences():
    qkv, bias = inputs(batch=1, grid=(2, 3, 6))
    assert torch.autograd.gradcheck(
        lambda qkv, bias: window_attention(qkv, bias, 2, (2, 3, 3), (0, 0, 1)),
        (qkv, bias),
        fast_mode=True,
    )

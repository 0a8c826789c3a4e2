"""Which implementation runs a convolution."""

from functools import partial
from typing import Any

import pytest
import torch

from mmaction_lite.models.fast import dispatch
from mmaction_lite.models.fast.dispatch import convolve_clips, convolve_frames


@pytest.fixture
def called(monkeypatch: Any) -> list[str]:
    """Names of the implementations that ran, in order."""
    names: list[str] = []

    def watch(name: str, run: Any, *arguments: Any, **options: Any) -> Any:
        names.append(name)
        return run(*arguments, **options)

    for name in ("convolve", "convolve_deep", "convolve_onednn", "convolve_time", "shift_and_project"):
        monkeypatch.setattr(dispatch, name, partial(watch, name, getattr(dispatch, name)))
    monkeypatch.setattr(dispatch, "has_onednn", lambda: True)
    return names


@pytest.mark.parametrize(
    ("kernel", "stride", "in_training", "expected"),
    [
        ((3, 1, 1), (1, 1, 1), True, "convolve_time"),
        ((3, 1, 1), (2, 1, 1), True, "convolve_time"),
        ((3, 1, 1), (1, 2, 2), True, "convolve"),
        ((1, 3, 3), (2, 2, 2), True, "convolve"),
        ((3, 3, 3), (1, 1, 1), True, "convolve"),
        ((3, 3, 3), (1, 1, 1), False, "convolve_onednn"),
    ],
)
def test_clips(kernel: Any, stride: Any, in_training: bool, expected: str, called: list[str]) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("a PyTorch without oneDNN")
    x, weight = torch.randn(2 * 4, 6, 5, 5), torch.randn(4, 6, *kernel)
    with torch.set_grad_enabled(in_training):
        convolve_clips(x, weight, None, stride, 2)
    assert called == [expected]


@pytest.mark.parametrize(
    ("side", "share", "expected"),
    [(1, 0, "convolve"), (3, 0, "convolve"), (1, 2, "shift_and_project"), (3, 2, "convolve")],
)
def test_frames(side: int, share: int, expected: str, called: list[str]) -> None:
    x, weight = torch.randn(2 * 4, 6, 5, 5), torch.randn(4, 6, side, side)
    convolve_frames(x, weight, None, (1, 1), 2, share=share)
    assert called == [expected]

"""Rotary positions, compared with a slow form that turns one channel after the other."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.models.rotary import interleaved_rotation, tiled_rotation

GRID = (2, 3, 4)


def slowly(x: Tensor, grid: tuple[int, int, int], tiled: bool) -> Tensor:
    """Turn x (tokens, head_dim) by loops over tokens, axes and channels."""
    head_dim = x.shape[1]
    part = 2 * ((head_dim // 3) // 2)
    turned = x.clone()
    for token in range(len(x)):
        t, rest = divmod(token, grid[1] * grid[2])
        places: list[float] = [t, *divmod(rest, grid[2])]
        if not tiled:
            places[1:] = [p * 15 / max(n - 1, 1) for p, n in zip(places[1:], grid[1:], strict=True)]
        for axis, place in enumerate(places):
            for channel in range(part):
                exponent = (channel % (part // 2) if tiled else channel // 2) / (part // 2)
                angle = place * 10000**-exponent
                own = axis * part + channel
                companion = -x[token, own + 1] if channel % 2 == 0 else x[token, own - 1]
                turned[token, own] = x[token, own] * math.cos(angle) + companion * math.sin(angle)
    return turned


@pytest.mark.parametrize("head_dim", [6, 16, 64])
@pytest.mark.parametrize(("rotation", "tiled"), [(tiled_rotation, True), (interleaved_rotation, False)])
def test_the_slow_form_gives_the_same(rotation: Callable, tiled: bool, head_dim: int) -> None:
    x = torch.randn(2, 3, 24, head_dim, dtype=torch.float64)
    turned = rotation(GRID, head_dim, x)(x)
    torch.testing.assert_close(turned[1, 2], slowly(x[1, 2], GRID, tiled), rtol=1e-12, atol=1e-12)


def test_only_the_interleaved_form_is_a_rotation() -> None:
    x = torch.randn(1, 1, 24, 64)
    norms = x.unflatten(-1, (-1, 2)).norm(dim=-1)
    lengths = {
        rotation: rotation(GRID, 64, x)(x).unflatten(-1, (-1, 2)).norm(dim=-1)
        for rotation in (tiled_rotation, interleaved_rotation)
    }
    torch.testing.assert_close(lengths[interleaved_rotation], norms)
    assert float((lengths[tiled_rotation] - norms).abs().max()) > 0.1


@pytest.mark.parametrize("rotation", [tiled_rotation, interleaved_rotation])
def test_the_channels_that_fill_no_part_and_the_first_token_stay(rotation: Callable) -> None:
    x = torch.randn(1, 1, 24, 64)
    turned = rotation(GRID, 64, x)(x)
    assert torch.equal(turned[..., 60:], x[..., 60:])
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


def test_one_row_of_tokens_has_finite_positions() -> None:
    x = torch.randn(1, 1, 2, 64)
    assert interleaved_rotation((2, 1, 1), 64, x)(x).isfinite().all()


def test_angles_have_at_least_single_precision() -> None:
    x = torch.randn(1, 1, 300, 64)
    low = tiled_rotation((300, 1, 1), 64, x.bfloat16())(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), tiled_rotation((300, 1, 1), 64, x)(x), rtol=0.03, atol=0.05)


@pytest.mark.parametrize("head_dim", [4, 15])
def test_a_head_without_room_for_three_axes_is_refused(head_dim: int) -> None:
    with pytest.raises(UserError, match=rf"a head has {head_dim} channels; expected an even number"):
        tiled_rotation(GRID, head_dim, torch.zeros(1))

"""Tokens of networks with and without a method `tokens`, and their pooling."""

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite.models import slowonly_r50, tsm_r10
from mmaction_lite.models.tokens import frame_codes, pooled_tokens


class Patches(nn.Module):
    """Two layers of tokens: the pixels of 2x4x4 cells, and their negative values."""

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return frames // 2, height // 4, width // 4

    def tokens(self, x: Tensor) -> Tensor:
        cells = nn.functional.avg_pool3d(x, (2, 4, 4)).flatten(2).transpose(1, 2)
        return torch.cat([cells, -cells], 1)


@pytest.mark.parametrize(("pool", "count"), [("none", 2 * 24), ("space", 2 * 4), ("time", 2 * 6), ("all", 2)])
def test_pooling_of_tokens(pool, count):
    x = torch.rand(2, 3, 8, 8, 12)
    found = pooled_tokens(Patches(), x, pool)
    assert found.shape == (2, count, 3)
    grid = nn.functional.avg_pool3d(x, (2, 4, 4))
    axes = {"none": (), "space": (3, 4), "time": (2,), "all": (2, 3, 4)}[pool]
    expected = grid.mean(axes, keepdim=True) if axes else grid
    expected = expected.flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, torch.cat([expected, -expected], 1))


def test_tokens_of_other_networks_are_the_input_of_the_classifier():
    x = torch.rand(2, 3, 8, 32, 40)
    for builder, count in ((tsm_r10, 8), (slowonly_r50, 1)):
        model = builder(num_classes=3, width=8).eval()
        features = model.features(x)
        assert torch.equal(pooled_tokens(model, x, "space"), features)
        assert features.shape[1] == count
        torch.testing.assert_close(pooled_tokens(model, x, "all"), features.mean(1, keepdim=True))


def test_frame_codes_make_the_order_of_frames_visible():
    codes = frame_codes(6, 5)
    assert codes.shape == (6, 5)
    assert torch.equal(codes[0], torch.tensor([0.0, 0, 0, 1, 1]))
    torch.testing.assert_close(codes[:, 0], torch.arange(6.0).sin())
    x = torch.rand(1, 3, 8, 8, 12)
    added = pooled_tokens(Patches(), x, "none", frame_code=True) - pooled_tokens(Patches(), x, "none")
    expected = frame_codes(4, 3).repeat_interleave(6, 0).repeat(2, 1)[None]
    torch.testing.assert_close(added, expected)
    with_code = pooled_tokens(Patches(), x, "space", frame_code=True)
    assert with_code.shape == (1, 8, 3)

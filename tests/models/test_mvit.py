"""MViT: stages, positions for other sizes, class token, and the parts of the network interface."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models import mvit_v1_base, mvit_v2_base, mvit_v2_small
from mmaction_lite.models.mvit import MultiscaleBlock, MViT, PositionalEncoding
from mmaction_lite.recipes.recipe import Build

BOTH = pytest.mark.parametrize("builder", [mvit_v1_base, mvit_v2_small])


def thin(builder: Any = mvit_v2_small, **options: Any) -> MViT:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_classes": 5, "width": 8, "depths": (1, 1, 1, 1), "crop": 64, "frames": 8}
    return builder(**sizes | options).eval()


def test_blocks_of_the_published_networks():
    with torch.device("meta"):
        v1, small, base = mvit_v1_base(width=8), mvit_v2_small(width=8), mvit_v2_base(width=8)
    for model, starts, depth in ((v1, (1, 3, 14), 16), (small, (1, 3, 14), 16), (base, (2, 5, 21), 24)):
        blocks = [block for block in model.blocks if isinstance(block, MultiscaleBlock)]
        assert len(blocks) == depth
        assert tuple(n for n, block in enumerate(blocks) if block.q_stride == 2) == starts
        stages = [sum(n >= start for start in starts) for n in range(depth)]
        assert [block.attn.heads for block in blocks] == [2**stage for stage in stages]
        assert [block.attn.pool_k.pool.stride[1] for block in blocks] == [8 >> stage for stage in stages]
        assert [block.attn.pool_q is not None for block in blocks] == [
            model is not v1 or n in starts for n in range(depth)
        ]


@BOTH
@pytest.mark.parametrize("size", [(8, 64, 64), (4, 48, 80), (5, 33, 70), (1, 16, 16)])
def test_any_size_of_clips(builder, size):
    model, x = thin(builder), torch.rand(2, 3, *size)
    with torch.inference_mode():
        tokens = model.tokens(x)
        assert tokens.shape == (2, torch.tensor(model.grid(*size)).prod(), 64)
        assert model.features(x).shape == (2, 1, 64)
        assert model(x).shape == (2, 5)


def test_positions_of_another_size_are_resized():
    positions = PositionalEncoding(6, (2, 3, 3), absolute=True)
    table = positions.positions((2, 3, 3)).detach()
    expected = (positions.temporal_pos[:, None] + positions.spatial_pos).flatten(0, 1)
    torch.testing.assert_close(table, expected.detach())
    resized = positions.positions((4, 5, 6)).detach()
    clip = table.unflatten(0, (2, 3, 3)).permute(3, 0, 1, 2)[None]
    expected = functional.interpolate(clip, (4, 5, 6), mode="trilinear")[0].permute(1, 2, 3, 0)
    torch.testing.assert_close(resized, expected.flatten(0, 2))
    with torch.no_grad():
        tokens = positions(torch.zeros(1, 18, 6), (2, 3, 3))
    torch.testing.assert_close(tokens[0, 1:], table)
    torch.testing.assert_close(tokens[0, 0], (positions.class_token + positions.class_pos).detach())


@BOTH
def test_tables_of_other_sizes(builder):
    model = thin(builder)
    assert model.build_positions(4, 16) == {}
    arguments = model.build_positions(2, 24)
    assert arguments == {"frames": 4, "crop": 96}
    same = thin(builder, **arguments)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in same.state_dict().items()}


def test_drop_path_rises_linearly():
    blocks = thin(drop_path=0.3).blocks
    rates = [block.drop_path.probability for block in blocks if isinstance(block, MultiscaleBlock)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


@BOTH
def test_the_class_token_depends_on_all_frames(builder):
    model, x = thin(builder), torch.rand(1, 3, 8, 64, 64)
    changed = x.clone()
    changed[:, :, -1] += 1
    with torch.inference_mode():
        assert not torch.allclose(model(x), model(changed))


def test_empty_depths_are_refused():
    with pytest.raises(UserError, match="mvit_v2_small: depths is"):
        Build(mvit_v2_small, depths=())

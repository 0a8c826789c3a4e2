"""Non-local blocks."""

import torch
from torch import nn
from torch.nn import functional

from mmaction_lite.models import non_local
from mmaction_lite.models.i3d import i3d_r50
from mmaction_lite.models.tsm import tsm_r50


def test_non_local_blocks_start_as_the_identity() -> None:
    torch.manual_seed(0)
    block, x = non_local.NonLocal(8, "embedded_gaussian").train(), torch.randn(6, 8, 4, 4)
    assert torch.equal(block(x, 2), x)


def test_non_local_attention_is_the_published_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 8, 4, 4)  # two clips of three frames
    for mode in ("dot_product", "embedded_gaussian"):
        block = non_local.NonLocal(8, mode).eval()
        nn.init.ones_(block.bn.weight)
        assert block.theta is not None
        assert block.phi is not None
        maps = [block.theta(x, 2), functional.max_pool2d(block.phi(x, 2), 2)]
        maps.append(functional.max_pool2d(block.g(x, 2), 2))
        query, key, value = (y.unflatten(0, (2, 3)).transpose(1, 2).flatten(2) for y in maps)  # (B, C, N)
        pairs = query.transpose(1, 2) @ key
        pairs = pairs / pairs.shape[2] if mode == "dot_product" else pairs.softmax(2)
        attended = (value @ pairs.transpose(1, 2)).unflatten(2, (3, 4, 4)).transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(block(x, 2), x + block.bn(block.out(attended, 2)))


def test_five_non_local_blocks_are_at_the_published_positions():
    """In I3D after every second block of stages 2 and 3, in TSM after the others."""
    for builder, places in (
        (i3d_r50, [(2, 1), (2, 3), (3, 1), (3, 3), (3, 5)]),
        (tsm_r50, [(2, 0), (2, 2), (3, 0), (3, 2), (3, 4)]),
    ):
        model = builder(num_classes=2, width=8, non_local="dot_product")
        found = [name for name, module in model.named_modules() if isinstance(module, non_local.NonLocal)]
        assert found == [f"backbone.layer{stage}.non_local{block}" for stage, block in places]


def test_gaussian_attention_has_no_embeddings_of_its_similarity():
    block = non_local.NonLocal(8, "gaussian")
    assert block.theta is None
    assert block.phi is None
    nn.init.ones_(block.bn.weight)
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 4)
    assert not torch.equal(block.eval()(x, 1), x)

"""Video Swin: windows, shifts, padding, relative positions, initial weights and sizes of clips."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.inference.gradcam import default_layers, gradcam, layer_map
from mmaction_lite.models import swin3d_base, swin3d_tiny
from mmaction_lite.models.lora import LoRA, add_adapters
from mmaction_lite.models.network import recompute_layers
from mmaction_lite.models.swin3d import (
    PatchMerging,
    SwinEmbedding,
    VideoSwin,
    WindowAttention,
    clip_window,
    relative_positions,
)


def thin(**options: Any) -> VideoSwin:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_classes": 5, "width": 8, "depths": (2, 1)}
    return swin3d_tiny(**sizes | options)


def test_a_window_is_clipped_to_the_tokens_and_then_does_not_shift():
    assert clip_window((8, 7, 7), (16, 14, 15), True) == ((8, 7, 7), (4, 3, 3))
    assert clip_window((8, 7, 7), (16, 14, 15), False) == ((8, 7, 7), (0, 0, 0))
    assert clip_window((8, 7, 7), (8, 4, 8), True) == ((8, 4, 7), (0, 0, 3))
    assert clip_window((16, 7, 7), (8, 7, 7), True) == ((8, 7, 7), (0, 0, 0))


def test_relative_positions_are_those_of_the_pairs():
    found = relative_positions((2, 3, 2), torch.device("cpu"))
    assert found.shape == (12, 12)
    assert len(found.unique()) == 3 * 5 * 3
    assert found[0, 0] == found[11, 11] == 1 * 15 + 2 * 3 + 1
    assert found[11, 0] == 2 * 15 + 4 * 3 + 2
    assert found[0, 11] == 0


def direct(attention: WindowAttention, x: Tensor) -> Tensor:
    """The attention of one clip, token by token, from the definition of shifted windows."""
    grid, heads = x.shape[1:4], attention.heads
    window, shift = clip_window(attention.window, grid, attention.is_shifted)
    padded = [-(-length // side) * side for length, side in zip(grid, window, strict=True)]
    places = [(t, h, w) for t in range(padded[0]) for h in range(padded[1]) for w in range(padded[2])]
    tokens = x.new_zeros(*padded, x.shape[-1])
    tokens[: grid[0], : grid[1], : grid[2]] = x[0]
    q, k, v = attention.qkv(tokens).unflatten(-1, (3, heads, -1)).unbind(-3)
    table, whole = attention.relative_position_bias_table, attention.window
    rows = relative_positions(whole, x.device)
    out = torch.zeros_like(tokens)
    # Windows begin at the shift; what is before it is a window with the end of the axis, but apart from it.
    windows: dict[Any, list[Any]] = {}
    for place in places:
        moved = [(a - s) % n for a, s, n in zip(place, shift, padded, strict=True)]
        at = tuple(m // w for m, w in zip(moved, window, strict=True))
        inside = [m % w for m, w in zip(moved, window, strict=True)]
        number = (inside[0] * window[1] + inside[1]) * window[2] + inside[2]
        side = tuple(a < s for a, s in zip(place, shift, strict=True))
        windows.setdefault(at, []).append((number, side, place))
    for members in windows.values():
        for number, side, place in members:
            scores = torch.stack(
                [
                    (q[place] * k[other]).sum(-1) / q.shape[-1] ** 0.5
                    + table[rows[number, theirs]]
                    - 100 * (side != their_side)
                    for theirs, their_side, other in members
                ]
            )
            values = torch.stack([v[other] for _, _, other in members])
            out[place] = (scores.softmax(0)[..., None] * values).sum(0).flatten()
    return attention.proj(out)[None, : grid[0], : grid[1], : grid[2]]


@pytest.mark.parametrize(
    ("grid", "is_shifted"),
    [((2, 3, 6), False), ((4, 6, 6), True), ((3, 5, 7), True), ((2, 2, 7), True), ((1, 2, 2), True)],
)
def test_attention_is_that_of_the_definition(grid, is_shifted):
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, (2, 3, 3), is_shifted=is_shifted).double()
    torch.nn.init.normal_(attention.relative_position_bias_table)
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    found = attention(x, torch.nn.Identity())
    torch.testing.assert_close(found[:1], direct(attention, x[:1]))
    torch.testing.assert_close(found[1:], attention(x[1:], torch.nn.Identity()))


def test_merging_takes_columns_first_and_pads_odd_sides():
    merging = PatchMerging(1)
    merging.norm = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    merging.reduction = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    x = torch.arange(1.0, 7).reshape(1, 1, 2, 3, 1)
    assert merging(x)[0, 0].tolist() == [[[1, 4, 2, 5], [3, 6, 0, 0]]]


def test_clips_are_padded_with_zeros_at_their_ends():
    embedding = SwinEmbedding(8, (2, 4, 4))
    x = torch.randn(1, 3, 3, 9, 8)
    whole = torch.zeros(1, 3, 4, 12, 8)
    whole[:, :, :3, :9] = x
    assert embedding(x).shape == (1, 2, 3, 2, 8)
    torch.testing.assert_close(embedding(x), embedding(whole))


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 37, 50), (8, 32, 32), (40, 64, 33)])
def test_every_size_of_clips_is_accepted(size):
    model = thin(depths=(1, 2, 1)).eval()
    x = torch.rand(1, 3, *size)
    with torch.inference_mode():
        tokens = model.tokens(x)
        t, h, w = model.grid(*size)
        assert tokens.shape == (1, t * h * w, 32)
        assert model(x).isfinite().all()
        torch.testing.assert_close(model(x), model.head(tokens.mean(1)))


def test_gradcam_takes_the_last_block_whose_map_is_large_enough():
    model, clip = thin(depths=(1, 1, 1)).eval(), torch.randn(1, 3, 4, 64, 60)
    layers = default_layers(model, clip)
    assert layers == ("stages.1.blocks.0",)
    found = layer_map(model, clip, 1, layers[0])
    assert found.shape == (2, 8, 8)
    assert gradcam(model, clip, 1, layers).shape == (4, 64, 60)
    with torch.inference_mode():
        kept = model.patch_embed(clip)
        assert torch.equal(model.token_map(kept, clip.shape)[0, :, 1, 2, 3], kept[0, 1, 2, 3])  # pyright: ignore
    assert model.token_map(kept.flatten(1, 3), clip.shape) is None


def test_adapters_of_rank_8_train_queries_and_values():
    model = thin().train()
    adapted = add_adapters(model, LoRA())
    assert adapted.layers == 3
    model(torch.rand(2, 3, 4, 40, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_recomputed_layers_have_the_same_gradients():
    x, gradients = torch.rand(1, 3, 4, 40, 32), []
    for recompute in (False, True):
        model = thin(depths=(2, 2)).train()
        if recompute:
            recompute_layers(model)
        model(x).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_window_of_something_something():
    model = swin3d_base(width=8, depths=(1,), window=(16, 7, 7))
    assert model.get_parameter("stages.0.blocks.0.attn.relative_position_bias_table").shape == (31 * 169, 1)


def test_initial_weights_are_the_published_ones():
    model = thin(width=64, num_classes=500)
    for name, std in (
        ("head.weight", 0.01),
        ("stages.0.blocks.0.attn.qkv.weight", 0.02),
        ("stages.0.blocks.1.attn.relative_position_bias_table", 0.02),
        ("stages.0.downsample.reduction.weight", 0.02),
    ):
        assert float(model.get_parameter(name).detach().std()) == pytest.approx(std, rel=0.1), name
    assert not model.get_parameter("stages.0.blocks.0.mlp.fc1.bias").any()


def test_drop_path_rises_linearly_over_all_stages():
    model = thin(depths=(2, 2, 1), drop_path=0.2)
    blocks = [block for stage in model.stages for block in stage.blocks]  # pyright: ignore
    assert [block.drop_path.probability for block in blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_heads_have_32_channels_and_double():
    model = swin3d_tiny(num_classes=2)
    attentions = [module for module in model.modules() if isinstance(module, WindowAttention)]
    assert [attention.heads for attention in attentions] == [3, 3, 6, 6, *[12] * 6, 24, 24]
    assert [attention.is_shifted for attention in attentions] == [False, True] * 6


def test_heads_divide_the_channels():
    with pytest.raises(UserError, match="width is 8; expected a multiple of the 3 heads"):
        thin(heads=3)


def test_a_window_far_larger_than_the_clip_needs_no_more_memory():
    whole = relative_positions((3, 4, 5), torch.device("cpu"))
    assert torch.equal(relative_positions((3, 4, 5), torch.device("cpu"), 7), whole[:7, :7])
    window = (16, 64, 64)  # all pairs of its tokens would take 32 GiB
    with torch.inference_mode():
        assert thin(window=window)(torch.rand(1, 3, 4, 32, 32)).shape == (1, 5)

"""V-JEPA: what both forms share, and what distinguishes them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.models.network import layers, recompute_layers
from mmaction_lite.models.vjepa import VJepa
from mmaction_lite.models.vjepa2 import vjepa2_large
from mmaction_lite.models.vjepa21 import vjepa21_base

BUILDERS = [vjepa2_large, vjepa21_base]


def build(builder: Any, **arguments: Any) -> VJepa:
    torch.manual_seed(0)
    return builder(**{"num_classes": 5, "width": 32, "depth": 2, "pool_depth": 2, **arguments})


def clip(frames: int = 4, batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, frames, 32, 48, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("builder", BUILDERS)
def test_logits_features_tokens_and_grid_agree(builder: Any) -> None:
    model, x = build(builder).eval(), clip()
    tokens, features = model.tokens(x), model.features(x)
    assert model.grid(4, 32, 48) == (2, 2, 3)
    assert tokens.shape == (2, 12, 32)
    torch.testing.assert_close(features[:, 0], model.pooler(tokens))
    torch.testing.assert_close(model(x), model.head(features[:, 0]))


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_trained_parameter_gets_a_gradient_and_is_in_a_layer(builder: Any) -> None:
    model = build(builder, dropout=0.3, drop_path=0.1).train()
    model(clip()).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in model.named_parameters() if p.grad is not None}
    kinds = [type(layer).__name__ for layer in layers(model)]
    assert kinds[1:] == ["Block", "ModuleList", "AttentivePool", "Linear"]
    assert layers(model)[-1] is model.head


@pytest.mark.parametrize("builder", BUILDERS)
def test_segments_are_encoded_separately_and_pooled_together(builder: Any) -> None:
    model, x = build(builder, segments=2).eval(), clip(8)
    whole = build(builder).eval()
    whole.load_state_dict(model.state_dict())
    tokens = torch.cat([whole.tokens(x[:, :, :4]), whole.tokens(x[:, :, 4:])], dim=1)
    torch.testing.assert_close(model.tokens(x), tokens)
    torch.testing.assert_close(model(x), whole.head(whole.pooler(tokens)))
    assert model.grid(8, 32, 48) == (4, 2, 3)
    with pytest.raises(UserError, match="clips have 7 frames; expected a multiple of the 2 segments"):
        model(clip(7))


@pytest.mark.parametrize("builder", BUILDERS)
def test_logits_depend_on_the_order_of_frames_and_on_no_other_clip(builder: Any) -> None:
    model, x = build(builder).eval(), clip()
    torch.testing.assert_close(model(x)[:1], model(x[:1]))
    assert not torch.allclose(model(x), model(x.flip(2)), rtol=1e-4)


@pytest.mark.parametrize("builder", BUILDERS)
def test_recomputed_activations_give_the_same_gradients(builder: Any) -> None:
    gradients = []
    for recompute in (False, True):
        model = build(builder).double().train()
        if recompute:
            recompute_layers(model)
        model(clip().double()).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-12)


def test_an_image_has_another_embedding() -> None:
    model, x = build(vjepa21_base).eval(), clip(1)
    assert model.grid(1, 32, 48) == (1, 2, 3)
    assert model.tokens(x).shape == (2, 6, 32)
    before = model.tokens(x)
    with torch.no_grad():
        model.encoder.patch_embed.proj.weight.zero_()
        model.encoder.video_mod_embed.fill_(3)
    assert torch.equal(model.tokens(x), before)
    with pytest.raises(UserError, match="1 frames of 32x48 pixels; expected multiples of 2 frames"):
        build(vjepa2_large)(x)


@pytest.mark.parametrize("shape", [(3, 32, 32), (4, 30, 32), (4, 32, 40)])
def test_sizes_that_are_no_whole_tokens_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="expected multiples of 2 frames and 16x16 pixels"):
        build(vjepa2_large)(torch.zeros(1, 3, *shape))


def test_levels_are_the_normalized_tokens_of_several_blocks() -> None:
    model, x = build(vjepa2_large, depth=3, levels=(0, 2)).eval(), clip()
    last = build(vjepa2_large, depth=3).eval()
    last.load_state_dict(model.state_dict())
    tokens = model.tokens(x)
    assert tokens.shape == (2, 24, 32)
    assert model.grid(4, 32, 48) == (4, 2, 3)
    torch.testing.assert_close(tokens[:, 12:], last.tokens(x))
    last.encoder.blocks = last.encoder.blocks[:1]
    last.encoder.levels = (0,)
    torch.testing.assert_close(tokens[:, :12], last.tokens(x))


@pytest.mark.parametrize("levels", [(2, 1), (0, 1), (0, 0, 2), (0, 3)])
def test_levels_must_ascend_to_the_last_block(levels: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="expected ascending numbers of blocks that end with the last one, 2"):
        build(vjepa2_large, depth=3, levels=levels)


def test_hierarchical_tokens() -> None:
    model = build(vjepa21_base, depth=4)
    tokens = model.encoder.hierarchical(clip())
    assert tokens.shape == (2, 12, 128)
    torch.testing.assert_close(tokens[..., 96:], model.tokens(clip()))
    with pytest.raises(UserError, match="V-JEPA 2 has no hierarchical output"):
        build(vjepa2_large).encoder.hierarchical(clip())

"""Names of Hiera's repository."""

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models import hiera_base
from mmaction_lite.models.hiera import Hiera
from mmaction_lite.weights.converters import classifier_size, convert, hiera


def thin(num_classes: int = 3, frames: int = 2) -> Hiera:
    """A thin network whose values differ from all initial ones."""
    torch.manual_seed(0)
    model = hiera_base(num_classes=num_classes, width=8, depths=(1, 1, 1, 1), frames=frames, size=32)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def published(model: Hiera) -> dict:
    """The weights under the names of the project."""
    return {name.replace("head.", "head.projection."): value for name, value in model.state_dict().items()}


def test_fine_tuned_files():
    model, other = thin(), thin()
    torch.nn.init.zeros_(other.head.weight)
    conversion = convert({"model_state": published(model)}, other)
    assert conversion.source == "Hiera"
    assert conversion.reinitialized == conversion.unused == []
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_pre_trained_files_start_a_training():
    model, other = thin(), thin(num_classes=7)
    torch.nn.init.constant_(other.norm.weight, 5)
    weights = published(model)
    encoder = {name: value for name, value in weights.items() if not name.startswith(("norm", "head"))}
    of_pretraining = {
        "encoder_norm.weight": torch.ones(64),
        "multi_scale_fusion_heads.0.weight": torch.ones(64, 8, 1, 8, 8),
        "decoder_pos_embed": torch.ones(1, 1, 4),
        "decoder_blocks.0.attn.qkv.bias": torch.ones(12),
        "mask_token": torch.ones(1, 1, 4),
    }
    checkpoint = {"model_state": encoder | of_pretraining}
    conversion = convert(checkpoint, other)
    assert conversion.source == "Hiera"
    assert sorted(conversion.reinitialized) == ["head.bias", "head.weight", "norm.bias", "norm.weight"]
    assert set(hiera.untrained(checkpoint["model_state"], ())) == {"norm.weight", "norm.bias"}
    assert sorted(conversion.unused) == sorted(of_pretraining)
    assert torch.equal(other.pos_embed_spatial, model.pos_embed_spatial)
    assert bool((other.norm.weight == 5).all())
    assert classifier_size(checkpoint, other) is None


def test_positions_of_another_clip_length_are_refused():
    message = "1 differ in shape or type .pos_embed_temporal is float32 .1, 2, 8., expected float32 .1, 1, 8."
    with pytest.raises(UserError, match=message):
        convert(published(thin(frames=4)), thin())


def test_an_image_network_of_hiera_is_not_a_video_network():
    weights = published(thin())
    weights["pos_embed"] = weights.pop("pos_embed_spatial")
    with pytest.raises(UserError, match=r"^Hiera's .* 1 have no place here \(pos_embed;"):
        convert(weights, thin())


def test_mvit_without_class_token_is_not_taken_for_hiera():
    keys = ["patch_embed.proj.weight", "blocks.0.attn.qkv.bias", "blocks.1.proj.weight"]
    assert hiera.matches(keys)
    assert not hiera.matches([*keys, "blocks.0.attn.pool_k.weight"])

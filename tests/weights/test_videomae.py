"""Names of VideoMAE's repositories."""

import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models import videomae_small
from mmaction_lite.models.videomae import VideoMAE
from mmaction_lite.weights.converters import classifier_size, convert, videomae


def thin(num_classes: int = 3) -> VideoMAE:
    """A thin network whose values differ from all initial ones."""
    torch.manual_seed(0)
    model = videomae_small(num_classes=num_classes, width=8, depth=2, heads=2, patch=4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def encoder(model: VideoMAE, prefix: str) -> dict:
    """The weights without classifier and its normalization."""
    return {
        f"{prefix}{name}": value
        for name, value in model.state_dict().items()
        if not name.startswith(("head.", "fc_norm."))
    }


@pytest.mark.parametrize("holder", ["model", "module"])
@pytest.mark.parametrize("prefix", ["", "backbone.", "encoder."])
def test_fine_tuned_files_of_both_versions(holder, prefix):
    model, other = thin(), thin()
    torch.nn.init.zeros_(other.head.weight)
    weights = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    conversion = convert({holder: weights, "epoch": 3}, other)
    assert conversion.reinitialized == conversion.unused == []
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_pre_trained_files_start_a_training():
    model, other = thin(), thin(num_classes=7)
    torch.nn.init.constant_(other.head.weight, 5)
    torch.nn.init.constant_(other.fc_norm.weight, 5)
    of_pretraining = {
        "encoder.norm.weight": torch.ones(8),
        "encoder.norm.bias": torch.ones(8),
        "decoder.blocks.0.attn.q_bias": torch.ones(4),
        "decoder.head.weight": torch.ones(4, 4),
        "encoder_to_decoder.weight": torch.ones(4, 8),
        "mask_token": torch.ones(1, 1, 4),
    }
    checkpoint = {"model": encoder(model, "encoder.") | of_pretraining}
    conversion = convert(checkpoint, other)
    assert conversion.source == "VideoMAE"
    assert sorted(conversion.reinitialized) == ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"]
    assert sorted(conversion.unused) == sorted(of_pretraining)
    torch.testing.assert_close(encoder(other, ""), encoder(model, ""), rtol=0, atol=0)
    assert bool((other.fc_norm.weight == 5).all())
    assert bool((other.head.weight == 5).all())
    assert classifier_size(checkpoint, other) is None


@pytest.mark.parametrize("name", ["q_bias", "v_bias"])
def test_an_absent_bias_is_an_error(name):
    weights = thin().state_dict()
    del weights[f"blocks.1.attn.{name}"]
    with pytest.raises(UserError, match=rf"1 are missing \(blocks\.1\.attn\.{name}"):
        convert(weights, thin())
    weights = {key: value for key, value in thin().state_dict().items() if not key.endswith(name)}
    with pytest.raises(UserError, match=rf"2 are missing \(blocks\.0\.attn\.{name}"):
        convert(weights, thin())


def test_a_classifier_on_another_normalization_is_an_error():
    weights = thin().state_dict()
    for name in ("weight", "bias"):
        weights[f"norm.{name}"] = weights.pop(f"fc_norm.{name}")
    with pytest.raises(UserError, match=r"2 have no place here \(norm\."):
        convert(weights, thin())


def test_names():
    keys = ["encoder.patch_embed.proj.weight", "encoder.blocks.0.attn.q_bias", "decoder.norm.bias", "x"]
    assert videomae.NAME == "VideoMAE"
    assert videomae.matches(keys)
    assert not videomae.matches([key.replace("q_bias", "qkv.bias") for key in keys])
    assert videomae.rename(keys) == {
        "encoder.patch_embed.proj.weight": "patch_embed.proj.weight",
        "encoder.blocks.0.attn.q_bias": "blocks.0.attn.q_bias",
        "decoder.norm.bias": None,
        "x": "x",
    }

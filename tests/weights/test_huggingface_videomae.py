"""Names of VideoMAE in transformers, and its folders on the Hugging Face Hub."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mmaction_lite import load
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.models.vit import Attention
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.weights.card import card_of
from mmaction_lite.weights.conversion import convert_file
from mmaction_lite.weights.converters import convert, huggingface_videomae
from tests.weights.test_videomae import encoder, thin

NAMES = {
    r"patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
    r"blocks\.(\d+)\.attn\.(q_bias|v_bias)": r"encoder.layer.\1.attention.attention.\2",
    r"blocks\.(\d+)\.attn\.proj\.": r"encoder.layer.\1.attention.output.dense.",
    r"blocks\.(\d+)\.mlp\.fc1\.": r"encoder.layer.\1.intermediate.dense.",
    r"blocks\.(\d+)\.mlp\.fc2\.": r"encoder.layer.\1.output.dense.",
    r"blocks\.(\d+)\.norm1\.": r"encoder.layer.\1.layernorm_before.",
    r"blocks\.(\d+)\.norm2\.": r"encoder.layer.\1.layernorm_after.",
}


def in_transformers(weights: dict[str, Tensor], prefix: str = "videomae.") -> dict[str, Tensor]:
    """Weights of this package under the names of transformers."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.weight", name):
            stem = f"{prefix}encoder.layer.{match[1]}.attention.attention."
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            renamed |= {f"{stem}{part}.weight": one.clone() for part, one in parts}
            continue
        for ours, theirs in NAMES.items():
            if re.match(ours, name):
                name = prefix + re.sub(ours, theirs, name)
                break
        renamed[name.replace("head.", "classifier.")] = value
    return renamed


@pytest.mark.parametrize("prefix", ["videomae.", ""])
def test_published_files(prefix):
    model, other = thin(), thin()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    conversion = convert(in_transformers(model.state_dict(), prefix), other)
    assert conversion.source == huggingface_videomae.NAME
    assert conversion.reinitialized == conversion.unused == []
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def with_linear_biases(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the versions 5.7 to 5.17, with a trained bias of k."""
    renamed = {
        key.replace(".q_bias", ".query.bias").replace(".v_bias", ".value.bias"): value
        for key, value in weights.items()
    }
    return renamed | {
        key.replace("query.bias", "key.bias"): torch.randn_like(value)
        for key, value in renamed.items()
        if key.endswith("query.bias")
    }


def test_the_bias_of_k_is_dropped_exactly():
    model, other = thin(), thin()
    for block in other.blocks:
        torch.nn.init.zeros_(block.get_parameter("attn.q_bias"))
    weights = with_linear_biases(in_transformers(model.state_dict()))
    conversion = convert(weights, other)
    assert [key.rpartition("attention.")[2] for key in conversion.unused] == ["key.bias"] * 2
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)

    attention = model.blocks[0].get_submodule("attn").double()
    with_bias = Attention(8, 2, qkv_bias="qkv").double()
    theirs, stem = attention.state_dict(), "videomae.encoder.layer.0.attention.attention."
    bias = [theirs.pop("q_bias"), weights[f"{stem}key.bias"].double(), theirs.pop("v_bias")]
    with_bias.load_state_dict(theirs | {"qkv.bias": torch.cat(bias)})
    x = torch.randn(2, 5, 8).double()
    torch.testing.assert_close(with_bias(x), attention(x), rtol=0, atol=1e-12)


def test_files_without_biases_are_an_error():
    weights = {
        key: value
        for key, value in in_transformers(thin().state_dict()).items()
        if not key.endswith(("q_bias", "v_bias"))
    }
    with pytest.raises(UserError, match=r"4 are missing \(blocks\.0\.attn\.q_bias"):
        convert(weights, thin())
    both = in_transformers(thin().state_dict())
    both |= with_linear_biases(both)
    with pytest.raises(UserError, match=r"4 have no place here \(videomae.*query\.bias"):
        convert(both, thin())


def test_pre_trained_files_start_a_training():
    model, other = thin(), thin(num_classes=7)
    of_pretraining = {
        "videomae.layernorm.weight": torch.ones(8),
        "decoder.decoder_layers.0.output.dense.bias": torch.ones(4),
        "encoder_to_decoder.weight": torch.ones(4, 8),
        "mask_token": torch.ones(1, 1, 4),
    }
    conversion = convert(in_transformers(encoder(model, "")) | of_pretraining, other)
    assert sorted(conversion.reinitialized) == ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"]
    assert sorted(conversion.unused) == sorted(of_pretraining)
    torch.testing.assert_close(encoder(other, ""), encoder(model, ""), rtol=0, atol=0)


def test_incomplete_projections_and_image_networks():
    weights = in_transformers(thin().state_dict())
    del weights["videomae.encoder.layer.1.attention.attention.key.weight"]
    with pytest.raises(UserError, match="names or shapes that are not known"):
        convert(weights, thin())
    image = {key.removeprefix("videomae."): value for key, value in weights.items()}
    assert huggingface_videomae.matches(image)
    assert not huggingface_videomae.matches(image | {"embeddings.cls_token": torch.ones(1)})


def test_a_folder_of_the_hub_becomes_weights_with_its_settings(tmp_path):
    model = thin()
    torch.nn.init.normal_(model.head.weight)
    settings = {
        "preprocessor_config": {
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.25, 0.25, 0.25],
            "size": {"shortest_edge": 28},
            "crop_size": {"height": 24, "width": 24},
        },
        "config": {"num_frames": 8, "id2label": {"0": "a", "1": "b", "2": "c"}},
    }
    (tmp_path / "hub").mkdir()
    weights = {key: value.contiguous() for key, value in in_transformers(model.state_dict()).items()}
    save_file(weights, tmp_path / "hub" / "model.safetensors")
    for name, content in settings.items():
        (tmp_path / "hub" / f"{name}.json").write_text(json.dumps(content))
    sizes = ["model.width=8", "model.depth=2", "model.heads=2", "model.patch=4"]
    recipe = apply_overrides(get_recipe("videomae_small_16x4x1_150e_kinetics400_rgb"), sizes)
    conversion = convert_file(tmp_path / "hub", recipe, tmp_path / "weights.safetensors")
    assert conversion.source == huggingface_videomae.NAME
    loaded = load(tmp_path / "weights.safetensors")
    card = card_of(loaded)
    assert card.classes == ("a", "b", "c")
    for protocol in (card.val, card.test):
        assert protocol.normalize == Normalize(
            mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 63.75)
        )  # the file, not a default
        assert protocol.views.crop.size == (24, 24)
        assert protocol.views.clips.clip_len == 8
    assert card.val.views.short_side == 28
    x = torch.rand(2, 3, 8, 24, 24)
    with torch.inference_mode():
        assert torch.equal(loaded(x), model.eval()(x))

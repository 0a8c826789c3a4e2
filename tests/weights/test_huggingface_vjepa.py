"""Names of V-JEPA 2 in transformers, and the form of its pooler."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.models.vjepa2 import vjepa2_giant
from mmaction_lite.models.vjepa21 import vjepa21_base
from mmaction_lite.weights.converters import convert, huggingface_vjepa
from tests.weights.test_vjepa import assert_same, thin

NAMES = {
    r"^encoder\.patch_embed\.": "vjepa2.encoder.embeddings.patch_embeddings.",
    r"^encoder\.blocks\.(\d+)\.attn\.": r"vjepa2.encoder.layer.\1.attention.",
    r"^encoder\.blocks\.(\d+)\.": r"vjepa2.encoder.layer.\1.",
    r"^encoder\.norm\.": "vjepa2.encoder.layernorm.",
    r"^pooler\.blocks\.(\d+)\.attn\.proj": r"pooler.self_attention_layers.\1.self_attn.out_proj",
    r"^pooler\.blocks\.(\d+)\.attn\.": r"pooler.self_attention_layers.\1.self_attn.",
    r"^pooler\.blocks\.(\d+)\.": r"pooler.self_attention_layers.\1.",
    r"^pooler\.cross_attention_block\.xattn\.q\.": "pooler.cross_attention_layer.cross_attn.q_proj.",
    r"^pooler\.cross_attention_block\.xattn\.": "pooler.cross_attention_layer.cross_attn.",
    r"^pooler\.cross_attention_block\.": "pooler.cross_attention_layer.",
    r"^head\.": "classifier.",
}


def in_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of this package under the names of transformers."""
    renamed: dict[str, Tensor] = {"vjepa2.predictor.layer.0.attention.query.weight": torch.zeros(3)}
    for name, value in weights.items():
        ours, theirs = next(((o, t) for o, t in NAMES.items() if re.match(o, name)), ("^", ""))
        key = re.sub(ours, theirs, name)
        if key.startswith("pooler."):
            key = re.sub(r"\.norm(\d)\.", r".layer_norm\1.", key)
        if match := re.fullmatch(r"(.+)\.(qkv|kv)\.(weight|bias)", key):
            letters = ["query", "key", "value"] if "attention.qkv" in key else ["q_proj", "k_proj", "v_proj"]
            letters = letters[-len(match[2]) :]
            for letter, part in zip(letters, value.chunk(len(letters)), strict=True):
                renamed[f"{match[1]}.{letter}.{match[3]}"] = part.clone()
        else:
            renamed[key] = value
    return renamed


def test_a_classifier_fills_the_network_and_the_predictor_is_unused() -> None:
    model, other = thin(pool_heads=1), thin()
    conversion = convert(in_transformers(model.state_dict()), other)
    assert conversion.source == huggingface_vjepa.NAME
    assert conversion.reinitialized == []
    assert conversion.unused == ["vjepa2.predictor.layer.0.attention.query.weight"]
    assert conversion.arguments == {"pool_heads": 1, "pool_eps": 1e-6}
    assert_same(other, model)
    x = torch.randn(1, 3, 4, 32, 32)
    torch.testing.assert_close(other(x), thin_with(model.state_dict(), **conversion.arguments)(x))
    assert not torch.allclose(other(x), thin_with(model.state_dict())(x), rtol=1e-4)


def thin_with(weights: dict[str, Tensor], **arguments: Any) -> torch.nn.Module:
    model = thin(**arguments)
    model.load_state_dict(weights)
    return model


def test_an_encoder_alone_keeps_pooler_and_head() -> None:
    model, other = thin(), thin()
    encoder = {
        key.removeprefix("vjepa2."): value
        for key, value in in_transformers(model.state_dict()).items()
        if key.startswith("vjepa2.")
    }
    conversion = convert(encoder, other)
    assert conversion.unused == ["predictor.layer.0.attention.query.weight"]
    assert all(name.startswith(("pooler.", "head.")) for name in conversion.reinitialized)
    assert conversion.arguments == {}
    torch.testing.assert_close(other.encoder.state_dict(), model.encoder.state_dict(), rtol=0, atol=0)


def test_giant_probes_keep_sixteen_heads_unless_the_user_chooses_others() -> None:
    shape: Any = {"width": 352, "depth": 1, "heads": 22, "pool_depth": 1, "num_classes": 5}
    model = vjepa2_giant(**shape)
    weights = in_transformers(model.state_dict())
    other = vjepa2_giant(**shape)
    conversion = convert(weights, other)
    assert conversion.arguments["pool_heads"] == other.pooler.heads == 16
    assert "Build(..., pool_heads=22)" in str(conversion)
    chosen = vjepa2_giant(**shape, pool_heads=22)
    conversion = convert(weights, chosen)
    assert conversion.arguments["pool_heads"] == chosen.pooler.heads == 22
    assert "pool_heads" not in "".join(conversion.notes)


def test_version_2_1_refuses_the_weights() -> None:
    with pytest.raises(UserError, match=r"weights of V-JEPA 2, and the network is V-JEPA 2\.1"):
        convert(in_transformers(thin().state_dict()), thin(vjepa21_base))


def test_a_missing_tensor_is_an_error() -> None:
    weights = in_transformers(thin(pool_heads=1).state_dict())
    for key in (
        "vjepa2.encoder.layer.1.attention.key.bias",
        "pooler.self_attention_layers.0.layer_norm1.bias",
    ):
        with pytest.raises(UserError):
            convert({name: value for name, value in weights.items() if name != key}, thin())

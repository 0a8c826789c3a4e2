"""UniFormerV2: the parts that the published form for Kinetics lacks, sizes, initial values and layers."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models import uniformerv2_base, uniformerv2_large
from mmaction_lite.models.uniformerv2 import Extractor, LocalBlock, UniBlock, UniFormerV2
from mmaction_lite.models.vit import Attention

LOCAL: dict[str, Any] = {"local": True, "stem": 3}


def thin(**options: Any) -> UniFormerV2:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_classes": 5, "width": 12, "depth": 3, "heads": 2, "levels": 2}
    sizes |= {"size": 32, "patch": 8}
    return uniformerv2_base(**sizes | options)


def filled(**options: Any) -> UniFormerV2:
    """A network without zeros."""
    model = thin(**options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def test_parameters_of_all_published_forms():
    with torch.device("meta"):
        models = {
            114_552_208: uniformerv2_base(),
            162_992_814: uniformerv2_base(174, levels=8, local=True, stem=3),
            354_099_600: uniformerv2_large(),
        }
    for count, model in models.items():
        assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("is_training", [False, True])
def test_a_local_block_equals_the_published_convolutions(is_training):
    torch.manual_seed(0)
    block, x = LocalBlock(12), torch.randn(2, 5, 9, 12)
    for tensor in block.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    plain = nn.Sequential(
        nn.BatchNorm3d(12),
        nn.Conv3d(12, 8, 1),
        nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0), groups=8),
        nn.Conv3d(8, 12, 1),
    )
    shapes = plain.state_dict()
    values = [block.bn, block.reduce, block.temporal, block.expand]
    flat = [value for module in values for value in module.state_dict().values()]
    plain.load_state_dict({key: value.view_as(shapes[key]) for key, value in zip(shapes, flat, strict=True)})
    block.train(is_training)
    plain.train(is_training)
    expected = plain(x.permute(0, 3, 1, 2)[..., None]).squeeze(-1).permute(0, 2, 3, 1)
    torch.testing.assert_close(block(x), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(block.bn.running_var, plain[0].running_var)


def test_a_block_equals_multi_head_attention_of_pytorch():
    torch.manual_seed(0)
    block, x = UniBlock(12, 2, is_local=False, drop_path=0.0).eval(), torch.randn(4, 10, 12)
    attention = nn.MultiheadAttention(12, 2, batch_first=True).eval()
    assert isinstance(block.attn, Attention)
    attention.in_proj_weight.data, attention.in_proj_bias.data = block.attn.qkv.weight, block.attn.qkv.bias
    attention.out_proj.load_state_dict(block.attn.proj.state_dict())
    normed = block.norm1(x)
    y = x + attention(normed, normed, normed)[0]
    hidden = block.mlp.fc1(block.norm2(y))
    expected = y + block.mlp.fc2(hidden * torch.sigmoid(1.702 * hidden))
    torch.testing.assert_close(block(x, 2), expected)


@torch.no_grad()
def test_the_temporal_class_token_sees_all_frames_in_order():
    model, x = filled().eval(), torch.randn(1, 3, 4, 32, 32)
    assert float((model(x) - model(x.flip(2))).abs().max()) > 1e-3
    plain = Extractor(12, 2, dropout=0.0, drop_path=0.0)
    tokens, query = torch.randn(2, 3, 17, 12), torch.randn(2, 1, 12)
    nn.init.zeros_(plain.fc2.weight)
    nn.init.zeros_(plain.fc2.bias)
    shifted = tokens.clone()
    patches = tokens[:, :, 1:].reshape(2, 3, 4, 4, 12).permute(0, 4, 1, 2, 3)
    shifted[:, :, 1:] += plain.dpe(patches).permute(0, 2, 3, 4, 1).flatten(2, 3)
    keys = plain.norm3(shifted.flatten(1, 2))
    weight, bias = (
        torch.cat([plain.attn.q.get_parameter(kind), plain.attn.kv.get_parameter(kind)])
        for kind in ("weight", "bias")
    )
    out, _ = functional.multi_head_attention_forward(
        *(plain.norm1(query).transpose(0, 1), keys.transpose(0, 1), keys.transpose(0, 1)),
        *(12, 2, weight, bias, None, None, False, 0.0),
        *(plain.attn.get_parameter("proj.weight"), plain.attn.get_parameter("proj.bias")),
    )
    torch.testing.assert_close(plain(query, tokens, 4), query + out.transpose(0, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("options", "frames"), [({}, 5), (LOCAL, 6), (LOCAL, 5)])
@torch.no_grad()
def test_any_number_of_frames(options, frames):
    model = filled(**options).eval()
    x = torch.randn(2, 3, frames, 32, 32)
    steps = frames if not options else 3
    assert model.grid(frames, 32, 32) == (steps, 4, 4)
    assert model.tokens(x).shape == (2, steps * 16, 12)
    found = []
    handle = model.blocks[-1].register_forward_hook(lambda m, inputs, out: found.append(out))
    tokens = model.tokens(x)
    handle.remove()
    placed = model.token_map(found[0], x.shape)
    assert placed is not None
    assert torch.equal(placed.flatten(2).transpose(1, 2), tokens)
    assert model.token_map(torch.zeros(2, 12), x.shape) is None


def test_another_size_than_that_of_the_positions_is_an_error():
    with pytest.raises(UserError, match="frames have 32x48 pixels; expected the 32x32 that the positions of"):
        thin()(torch.rand(1, 3, 4, 32, 48))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, "size is 30; expected a multiple of 8 pixels"),
        ({"stem": 2}, "stem is 2; expected 1 or 3 frames"),
        ({"levels": 4}, "levels is 4; expected a number of blocks from 1 to 3"),
        ({"heads": 5}, "width is 12; expected a multiple of the 5 heads"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        thin(**options)


@torch.no_grad()
def test_the_first_logits_are_those_of_the_class_tokens_of_the_frames():
    model, x = thin(**LOCAL).eval(), torch.randn(2, 3, 4, 32, 32)
    found = []
    model.blocks[-1].register_forward_hook(lambda m, inputs, out: found.append(out))
    features = model.features(x)
    classes = found[0].unflatten(0, (2, -1))[:, :, 0].mean(1, keepdim=True)
    torch.testing.assert_close(features, model.mixture.norm(classes / 2))


def test_drop_path_rises_linearly_in_both_parts():
    model = thin(drop_path=0.2, level_drop_path=0.4)
    assert [b.drop_path.probability for b in model.blocks if isinstance(b, UniBlock)] == [0, 0.1, 0.2]
    assert [e.drop_path.probability for e in model.extractors if isinstance(e, Extractor)] == [0, 0.4]

"""Parts of video transformers, compared with plain formulas."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mmaction_lite.errors import UserError
from mmaction_lite.models.network import recompute_layers
from mmaction_lite.models.vit import (
    TOKEN_STRIDE,
    Attention,
    Block,
    DropPath,
    LayerScale,
    PatchEmbedding,
    QkvBias,
    initialize,
    overlapping_embedding,
    sinusoid_table,
)


class Small(nn.Module):
    """Tokens of a clip, two blocks and a linear layer."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(12, (2, 4, 4))
        self.blocks = nn.ModuleList([Block(12, 3, hidden=20, **options) for _ in range(2)])
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))

    def layers(self) -> list[nn.Module]:
        return [self.patch_embed, *self.blocks, self.head]


def build(**options) -> Small:
    torch.manual_seed(0)
    model = Small(**options)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def clips(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 4, 8, 12, generator=torch.Generator().manual_seed(batch))


def attention_by_hand(attention: Attention, x: Tensor, rotate=None) -> Tensor:
    width, heads = x.shape[2], attention.heads
    weights = attention.qkv.weight.split(width)
    bias = {"qkv": attention.qkv.bias, "none": None}.get(attention.qkv_bias)
    if attention.qkv_bias == "qv":
        bias = torch.cat([attention.q_bias, torch.zeros(width), attention.v_bias])
    biases = torch.zeros(3, width) if bias is None else bias.unflatten(0, (3, width))
    out = []
    q, k, v = (
        (x @ weight.T + b).unflatten(2, (heads, -1)).transpose(1, 2)
        for weight, b in zip(weights, biases, strict=True)
    )
    if rotate is not None:
        q, k = rotate(q), rotate(k)
    for head in range(heads):
        scores = q[:, head] @ k[:, head].mT / math.sqrt(width // heads)
        out.append(scores.softmax(-1) @ v[:, head])
    return torch.cat(out, 2) @ attention.proj.weight.T + attention.proj.bias


@pytest.mark.parametrize("qkv_bias", ["qkv", "qv", "none"])
@pytest.mark.parametrize("rotate", [None, lambda x: x.roll(1, 2) * 2], ids=["plain", "rotated"])
def test_attention_is_the_formula(qkv_bias: QkvBias, rotate):
    torch.manual_seed(0)
    attention = Attention(12, 3, qkv_bias=qkv_bias).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(attention(x, rotate), attention_by_hand(attention, x, rotate))


def test_the_width_is_a_multiple_of_the_heads():
    with pytest.raises(UserError, match=r"^width is 10; expected a multiple of the 3 heads$"):
        Attention(10, 3)


def test_a_block_is_the_formula():
    block = build(activation=nn.ReLU, eps=1e-3, layer_scale=0.5).blocks[0]
    assert isinstance(block, Block)
    assert isinstance(block.ls1, LayerScale)
    assert isinstance(block.ls2, LayerScale)
    x = torch.randn(2, 7, 12)
    norm1 = functional.layer_norm(x, (12,), block.norm1.weight, block.norm1.bias, 1e-3)
    y = x + block.ls1.gamma * attention_by_hand(block.attn, norm1)
    norm2 = functional.layer_norm(y, (12,), block.norm2.weight, block.norm2.bias, 1e-3)
    hidden = (norm2 @ block.mlp.fc1.weight.T + block.mlp.fc1.bias).clamp(min=0)
    expected = y + block.ls2.gamma * (hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_tokens_are_those_of_a_convolution(channels_last: bool):
    embedding = PatchEmbedding(6, (2, 4, 4))
    x = clips()
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    projection = embedding.proj
    expected = functional.conv3d(x, projection.weight, projection.bias, projection.stride)
    torch.testing.assert_close(embedding(x), expected.flatten(2).transpose(1, 2))
    assert embedding.grid(4, 8, 12) == (2, 2, 3) == tuple(expected.shape[2:])


@pytest.mark.parametrize("size", [(3, 8, 8), (4, 9, 8), (4, 8, 9), (0, 8, 8)])
def test_clips_are_multiples_of_a_token(size):
    embedding = PatchEmbedding(6, (2, 4, 4))
    message = f"^clips have {size[0]} frames of {size[1]}x{size[2]} pixels; expected multiples of 2 frames"
    with pytest.raises(UserError, match=message):
        embedding(torch.rand(1, 3, *size))


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 2, 3)).flatten(1)
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert bool((out == out[:, :1]).all())
    assert float(out.mean()) == pytest.approx(1, abs=0.05)
    assert float(DropPath(1.0)(torch.ones(3, 2)).abs().max()) == 0
    assert torch.equal(drop.eval()(torch.ones(3, 2)), torch.ones(3, 2))


def test_positions_are_the_published_ones():
    table = sinusoid_table(5, 6)
    assert table.dtype == torch.float32
    for position in range(5):
        for channel in range(6):
            angle = position / 10000 ** (2 * (channel // 2) / 6)
            expected = (math.sin if channel % 2 == 0 else math.cos)(angle)
            assert float(table[position, channel]) == pytest.approx(expected, abs=1e-7)


def test_initial_weights():
    torch.manual_seed(0)
    block = Block(64, 2, hidden=128)
    nn.init.ones_(block.mlp.fc1.bias)
    initialize(block)
    assert float(block.mlp.fc1.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert not block.mlp.fc1.bias.any()
    assert not block.attn.qkv.bias.any()


@pytest.mark.slow
def test_one_graph_and_one_exported_program():
    model, x = build(qkv_bias="qv", layer_scale=0.1, drop_path=0.1).eval(), clips()
    torch.compiler.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="eager")(x), model(x))
        batch = {0: torch.export.Dim("batch")}
        exported = torch.export.export(model, (x,), dynamic_shapes=(batch,)).module()
        torch.testing.assert_close(exported(clips(3)), model(clips(3)))


def test_recomputed_blocks_change_no_gradient():
    results = []
    for recompute in (False, True):
        model = build(qkv_bias="qv", drop_path=0.5, dropout=0.5)
        if recompute:
            recompute_layers(model)
        torch.manual_seed(1)
        model(clips()).square().sum().backward()
        results.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)


def test_in_bfloat16_norms_compute_in_float32():
    model, x = build(qkv_bias="qv"), clips()
    expected = model(x)
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: (i[0], out)}))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    assert seen["blocks.1.attn.qkv"][1].dtype == seen["blocks.1.attn"][1].dtype == torch.bfloat16
    norm = model.get_submodule("blocks.1.norm2")
    before, after = seen["blocks.1.norm2"]
    torch.testing.assert_close(after, norm(before.float()).to(after.dtype), rtol=0, atol=0)
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.05 * expected.abs().max().item())


def test_overlapping_tokens_see_their_surroundings():
    """Token (t, y, x) is the same function of frames 2t - 1 … 2t + 1 and of 7x7 pixels around (4y, 4x)."""
    torch.manual_seed(0)
    embedding = overlapping_embedding(5)
    clips = torch.randn(2, 3, 8, 16, 24)
    tokens = embedding(clips)
    assert tokens.shape == (2, 5, 4, 4, 6)
    assert embedding.stride == TOKEN_STRIDE
    assert embedding.bias is not None
    seen = clips[:, :, 3:6, 5:12, 9:16]  # around frame 4, row 8, column 12
    expected = torch.einsum("bcthw,kcthw->bk", seen, embedding.weight) + embedding.bias
    torch.testing.assert_close(tokens[:, :, 2, 2, 3], expected)

"""Low-rank adapters on linear layers."""

import copy

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite import models
from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10, videomae_small
from mmaction_lite.models.lora import LoRA, LoRALinear, add_adapters, merged_weights
from tests.thin import clip_size, thin


class Block(nn.Module):
    """Self-attention of one head and an MLP, with the names of a ViT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.proj(torch.softmax(q @ k.mT, -1) @ v)
        return x + self.fc2(self.fc1(x).relu())


class Tokens(nn.Module):
    """A transformer over the frames of a clip."""

    def __init__(self, num_classes: int = 2, width: int = 12) -> None:
        super().__init__()
        self.stem = nn.Linear(3, width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(2)])
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.mean((3, 4)).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))

    def layers(self) -> list[nn.Module]:
        return [self.stem, *self.blocks, self.head]


CLIPS = torch.randn(3, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))


def adapted(lora: LoRA) -> tuple[Tokens, Tokens]:
    """A network and a copy with adapters that are not zero."""
    torch.manual_seed(0)
    plain = Tokens()
    model = copy.deepcopy(plain)
    add_adapters(model, lora)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter, std=0.3)
    return plain, model


@pytest.mark.parametrize("targets", [("q", "v"), ("qkv",), ("proj", "fc1", "fc2"), ("k", "blocks.1.fc1")])
def test_merged_weights_compute_the_same_as_the_adapters(targets):
    plain, model = adapted(LoRA(rank=3, targets=targets))
    state = merged_weights(model)
    assert state.keys() == plain.state_dict().keys()
    merged = Tokens()
    merged.load_state_dict(state)
    trained, tested = model(CLIPS), model.eval()(CLIPS)
    torch.testing.assert_close(merged(CLIPS), tested)
    torch.testing.assert_close(trained, tested)
    for name, layer in model.named_modules():  # the same sums, bit for bit
        if isinstance(layer, LoRALinear):
            tokens = torch.randn(5, layer.in_features)
            assert torch.equal(layer(tokens), merged.get_submodule(name)(tokens)), name
    assert not torch.allclose(plain(CLIPS), trained, atol=1e-3)


def test_parts_of_a_fused_layer_have_adapters_of_their_own():
    plain, model = adapted(LoRA(rank=3, targets=("q", "v")))
    change = merged_weights(model)["blocks.0.qkv.weight"] - plain.state_dict()["blocks.0.qkv.weight"]
    q, k, v = change.chunk(3)
    assert not k.any()
    assert [int(torch.linalg.matrix_rank(part, rtol=1e-4)) for part in (q, v)] == [3, 3]
    layer = model.get_submodule("blocks.0.qkv")
    assert isinstance(layer, LoRALinear)
    expected = layer.lora_b[1] @ layer.lora_a[1] * 2  # alpha is twice the rank
    torch.testing.assert_close(v, expected, atol=1e-6, rtol=1e-5)


def test_training_starts_from_the_given_network_and_changes_adapters_and_classifier():
    plain = Tokens()
    model = copy.deepcopy(plain)
    found = add_adapters(model, LoRA(rank=2, targets=("q", "v", "fc1"), dropout=0.2))
    torch.testing.assert_close(model(CLIPS), plain(CLIPS))
    model(CLIPS).sum().backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    wanted = {f"blocks.{i}.{layer}.lora_{x}" for i in (0, 1) for layer in ("qkv", "fc1") for x in "ab"}
    assert trained == wanted | {"head.weight", "head.bias"}
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    per_block = 2 * 2 * (12 + 12) + 2 * (12 + 24)
    assert (found.layers, found.adapters, found.trained) == (4, 2 * per_block, count)
    assert found.total == sum(p.numel() for p in plain.parameters())
    assert "LoRA: 4 layers adapted; 362 of" in str(found)


def test_a_vision_transformer_has_the_default_targets():
    model = videomae_small(num_classes=3, width=24, depth=2, heads=2, patch=4)
    found = add_adapters(model, LoRA(rank=2))
    assert (found.layers, found.adapters) == (2, 2 * 2 * 2 * (24 + 24))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    layers = {f"blocks.{i}.attn.qkv.lora_{x}" for i in (0, 1) for x in "ab"}
    assert trained == layers | {"fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias"}
    clips = torch.randn(2, 3, 4, 8, 8)
    model(clips).sum().backward()
    assert all(model.get_parameter(name).grad is not None for name in trained)
    merged = videomae_small(num_classes=3, width=24, depth=2, heads=2, patch=4)
    merged.load_state_dict(merged_weights(model))
    torch.testing.assert_close(merged(clips), model(clips))


@pytest.mark.parametrize(
    ("name", "targets", "layers"),
    [
        ("swin3d_tiny", ("q", "v"), 3),
        ("mvit_v2_small", ("q", "v"), 4),
        ("hiera_base", ("q", "v"), 4),
        ("uniformerv2_base", ("q", "v"), 4),
        ("uniformerv2_base", ("q", "v", "proj", "fc2"), 10),
        ("x3d_s", ("fc1", "fc2", "projection"), 9),
    ],
)
def test_adapters_of_hierarchical_networks_are_trained_and_merged(name, targets, layers):
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=3, dropout=0.0, **thin(name))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter)  # as after some training: zeros hide the gradients of others
    found = add_adapters(model, LoRA(rank=2, targets=targets))
    assert found.layers == layers
    for key, parameter in model.named_parameters():
        if key.endswith("lora_b"):
            torch.nn.init.normal_(parameter)
    clips = torch.randn(2, 3, *clip_size(name))
    model.train()(clips).square().sum().backward()
    trained = [(key, p.grad) for key, p in model.named_parameters() if p.requires_grad]
    assert [key for key, grad in trained if grad is None or not grad.any()] == []
    merged = getattr(models, name)(num_classes=3, dropout=0.0, **thin(name)).eval()
    merged.load_state_dict(merged_weights(model))
    torch.testing.assert_close(merged(clips), model.eval()(clips))


def test_norms_are_trained_if_asked():
    model = Tokens()
    add_adapters(model, LoRA(norms=True))
    assert model.get_parameter("blocks.1.norm1.weight").requires_grad
    assert not model.get_parameter("blocks.1.fc1.weight").requires_grad


def test_a_network_without_the_targets_is_refused_with_the_names_that_it_has():
    with pytest.raises(UserError, match="Recognizer has no linear layer named 'q', 'v' below its classifier"):
        add_adapters(tsm_r10(width=8), LoRA())
    wanted = r"no linear layer named 'query' .*; it has stem \(1\), qkv \(2\), proj \(2\), fc1 \(2\)"
    with pytest.raises(UserError, match=wanted):
        add_adapters(Tokens(), LoRA(targets=("v", "query")))
    with pytest.raises(UserError, match="LoRA: targets is"):
        LoRA(targets=())


def test_dropout_is_applied_to_the_input_of_the_adapters_in_training():
    _, model = adapted(LoRA(targets=("fc1",), dropout=0.5))
    assert not torch.equal(model(CLIPS), model(CLIPS))
    model.eval()
    assert torch.equal(model(CLIPS), model(CLIPS))


def test_autocast():
    _, model = adapted(LoRA(rank=3, targets=("q", "v", "fc2")))
    for mode in (True, False):
        expected = model.train(mode)(CLIPS)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(CLIPS).float(), expected, atol=0.1, rtol=0.05)


@pytest.mark.slow
def test_compilation_without_graph_breaks():
    _, model = adapted(LoRA(rank=3, targets=("q", "v", "fc2")))
    for mode in (True, False):
        model.train(mode)
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(CLIPS), model(CLIPS))


def test_equal_to_peft():
    """The same adapters give the same logits and gradients with the package peft."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    plain = Tokens()
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules=["qkv", "proj", "fc1"], bias="none")
    theirs = peft.get_peft_model(copy.deepcopy(plain), config)
    ours = copy.deepcopy(plain)
    add_adapters(ours, LoRA(rank=4, alpha=12.0, targets=("qkv", "proj", "fc1")))
    for name, layer in ours.named_modules():
        if isinstance(layer, LoRALinear):
            other = theirs.base_model.model.get_submodule(name)
            nn.init.normal_(layer.lora_b, std=0.3)
            with torch.no_grad():
                other.lora_A["default"].weight.copy_(layer.lora_a[0])
                other.lora_B["default"].weight.copy_(layer.lora_b[0])
    for network in (ours, theirs):
        network.train()
        network(CLIPS).square().sum().backward()
    torch.testing.assert_close(ours(CLIPS), theirs(CLIPS))
    for name, layer in ours.named_modules():
        if isinstance(layer, LoRALinear):
            other = theirs.base_model.model.get_submodule(name)
            assert layer.lora_a.grad is not None
            assert layer.lora_b.grad is not None
            torch.testing.assert_close(layer.lora_a.grad[0], other.lora_A["default"].weight.grad)
            torch.testing.assert_close(layer.lora_b.grad[0], other.lora_B["default"].weight.grad)
    merged = theirs.merge_and_unload().state_dict()
    for name, tensor in merged_weights(ours).items():
        torch.testing.assert_close(tensor, merged[name])

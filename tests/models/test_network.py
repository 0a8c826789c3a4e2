"""Layers, head and features of every network, and of networks defined elsewhere."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite import models
from mmaction_lite.errors import UserError
from mmaction_lite.models import network
from tests.thin import clip_size, has_tokens, thin

BUILDERS = [
    name for name in models.__all__ if name.partition("_")[0] not in ("tsn", "frame", "optimize", "probe")
]
BUILDERS += ["tsn_r10", "tsn_r50"]


def build(name: str) -> Any:
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=5, **thin(name))
    nn.init.normal_(model.head.weight)
    return model.eval()


def clip(name: str) -> Tensor:
    return torch.rand(2, 3, *clip_size(name))


def num_layers(name: str) -> int:
    if name.startswith("videomae"):
        return 26 if name.endswith("large") else 14
    if name.startswith("hiera"):
        return 6
    if name.startswith("x3d_"):
        return 7
    if name.startswith("uniformerv2"):
        return 4
    return 5 if has_tokens(name) else 19 if "mobilenet" in name else 6


@pytest.mark.parametrize("name", BUILDERS)
def test_every_parameter_is_in_one_layer(name):
    model = build(name)
    found = network.layers(model)
    parameters = [parameter for layer in found for parameter in layer.parameters()]
    assert len(parameters) == len(set(parameters))
    own_names = re.compile(r"(.+\.)?(video|img)_mod_embed|class_embedding|pos_embed_\w+")
    own = {parameter for key, parameter in model.named_parameters() if own_names.fullmatch(key)}
    assert set(parameters) == set(model.parameters()) - own  # which no module below the encoder holds
    assert len(found) == num_layers(name)
    assert model.head in (found[-1], network.layer_modules(found[-1])[-1])
    first = next(iter(found[0].parameters()))
    assert first is next(parameter for parameter in model.parameters() if parameter not in own)
    assert all(isinstance(module, nn.Module) for layer in found for module in network.layer_modules(layer))


@pytest.mark.parametrize("name", BUILDERS)
def test_the_logits_are_the_average_of_the_head_over_the_features(name):
    model, x = build(name), clip(name)
    with torch.inference_mode():
        features = model.features(x)
        assert features.shape == (2, 8 if name.startswith(("tsn", "tsm")) else 1, model.head.in_features)
        assert torch.equal(model(x), model.head(features).mean(1))


@pytest.mark.parametrize("name", [name for name in BUILDERS if has_tokens(name)])
def test_tokens_are_ordered_by_time_row_and_column(name):
    model, x = build(name), clip(name)[:1]
    assert model.grid(*x.shape[2:]) == (4, 2, 2)
    embedded = []
    stem = network.layer_modules(network.layers(model)[0])[0]
    stem.register_forward_hook(lambda m, inputs, out: embedded.append(out))
    with torch.inference_mode():
        tokens = model.tokens(x)
        half = x.shape[3] // 2
        x[:, :, 4:6, half:, :half] += 1  # the cell (2, 1, 0)
        model.tokens(x)
    assert tokens.shape == (1, 4 * 2 * 2, model.head.in_features)
    if hasattr(model, "token_map"):  # tokens of a stem with overlapping kernels
        first, second = (out if out.ndim == 5 else model.token_map(out, x.shape) for out in embedded)
        change = nn.functional.adaptive_avg_pool3d((first - second).abs(), (4, 2, 2)).sum(1)
        assert int(change.argmax()) == (2 * 2 + 1) * 2
        return
    changed = (embedded[0] != embedded[1]).any(2)[0]
    assert changed.nonzero().flatten().tolist() == [(2 * 2 + 1) * 2]


def test_a_network_without_layers_is_one_layer():
    plain = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert network.layers(plain) == [plain]
    plain.layers = nn.Sequential(nn.Linear(1, 1))  # a submodule of that name
    assert network.layers(plain) == [plain]
    image = models.tsn(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), features=4)
    assert [type(layer) for layer in image.layers()] == [nn.Sequential, nn.Linear]


def test_the_head_is_the_attribute_or_the_last_linear_layer():
    plain = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Conv2d(1, 1, 1))
    assert network.head(plain) is plain[1]
    assert network.head(plain, 4) is plain[0]
    plain.head = nn.Identity()
    assert network.head(plain) is plain[1]
    plain.head = nn.Sequential(nn.Dropout(), nn.Linear(2, 2))
    assert network.head(plain) is plain.head
    with pytest.raises(UserError, match=r"^Conv2d: no classifier found; expected .* nn\.Linear\. Assign"):
        network.head(nn.Conv2d(1, 1, 1))
    with pytest.raises(UserError, match=r"Linear: no classifier found; .* nn\.Linear with 7 outputs"):
        network.head(nn.Linear(3, 4), 7)


class Deep(nn.Module):
    """Three blocks with batch normalization and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)) for _ in range(3)]
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x)

    def layers(self) -> list[nn.Module]:
        return [*self.blocks, self.head]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "returned a NoneType; expected a list of modules"),
        (nn.Sequential(nn.ReLU()), "returned a Sequential"),
        ([], "returned no layer"),
        ([nn.ReLU(), "head"], "item 1 of layers.* is a str; expected an nn.Module"),
        ([[nn.ReLU()]], "item 0 of layers.* is a list.* nn.ModuleList"),
    ],
)
def test_layers_of_a_user_that_are_no_modules_are_one_line(returned, message):
    class Own(nn.Module):
        def layers(self):
            return returned

    with pytest.raises(UserError, match=f"Own: .*{message}"):
        network.layers(Own())


def test_recomputed_layers_change_no_number():
    results, calls = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = Deep()
        model.blocks[0].register_forward_hook(lambda *_: calls.append("block"))
        model.get_submodule("blocks.0.0").register_forward_hook(lambda *_: calls.append("inside"))
        if recompute:
            network.recompute_layers(model)
        model(torch.rand(6, 4)).square().sum().backward()
        results.append([*(p.grad for p in model.parameters()), *model.buffers()])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.equal(plain, recomputed)
    assert calls == ["inside", "block", "inside", "block", "inside"]  # the second forward pass of the layer
    with torch.no_grad():
        model(torch.rand(6, 4))
    assert calls[5:] == ["inside", "block"]


HIERARCHICAL = [
    ("swin3d_tiny", {}),
    ("mvit_v2_small", {}),
    ("hiera_base", {}),
    ("uniformerv2_base", {"local": True}),
]


@pytest.mark.parametrize(("name", "arguments"), HIERARCHICAL)
def test_recomputed_networks_have_the_same_gradients(name, arguments):
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = getattr(models, name)(num_classes=5, dropout=0.0, **thin(name), **arguments).double()
        nn.init.normal_(model.head.weight)
        if recompute:
            network.recompute_layers(model)
        model(torch.rand(2, 3, *clip_size(name)).double()).square().sum().backward()
        results.append([*(p.grad for p in model.parameters()), *model.buffers()])
    for plain, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(recomputed, plain)


@pytest.mark.parametrize(("name", "arguments"), [*HIERARCHICAL, ("x3d_s", {})])
def test_steps_in_bfloat16_are_close_to_those_in_float32(name, arguments):
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=5, dropout=0.0, **thin(name), **arguments).train()
    nn.init.normal_(model.head.weight)
    clips, logits, gradients = clip(name), [], []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits.append(model(clips))
        logits[-1].float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        logits[-1] = logits[-1].detach()
    for exact, found in (logits, gradients):
        assert found.isfinite().all()
        assert float((found.float() - exact).norm() / exact.norm()) < 0.1


def test_a_single_layer_cannot_be_recomputed():
    with pytest.raises(UserError, match=r"^recompute: Linear is a single layer; expected a"):
        network.recompute_layers(nn.Linear(1, 1))

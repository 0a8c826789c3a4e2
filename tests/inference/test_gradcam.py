"""Grad-CAM equals a plain implementation by autograd in every family, and follows the object."""

import numpy as np
import pytest
import torch
from torch import nn

from mmaction_lite import models
from mmaction_lite.errors import UserError
from mmaction_lite.inference.gradcam import cell_frames, default_layers, gradcam, layer_map
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.weights.card import BUILDERS

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ["tsn_r10", "tsm_r10", "slowonly_r50", "slowfast_r50_4x16", "r2plus1d_r18"]
FAMILIES = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in BUILDERS
    if name not in ("tsn", "tsn_timm", "frame_encoder")
    and not name.startswith(("probe_", "videomae", "vjepa", "hiera", "uniformerv2", "swin3d", "mvit"))
]
SIDE = 56


def network(name: str) -> Recognizer:
    torch.manual_seed(0)
    width = 16 if "mobilenet" in name else 8
    return getattr(models, name)(num_classes=4, width=width).eval()


def frames_of(name: str) -> int:
    return 16 if "slowfast" in name or name.startswith("i3d") else 8


def output_and_gradient(
    model: nn.Module, clip: torch.Tensor, target: int, layer: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output of a layer, and the gradient of the score of class `target` with respect to it."""
    kept = []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)
        return output.clone()  # modules behind it work in place

    handle = model.get_submodule(layer).register_forward_hook(keep)
    model(clip)[0, target].backward()
    handle.remove()
    assert kept[0].grad is not None
    return kept[0].detach(), kept[0].grad


def plain_gradcam(model: nn.Module, clip: torch.Tensor, target: int, layer: str) -> np.ndarray:
    """Equations 1 and 2 of the paper, with the whole graph and one loop per step."""
    features, gradients = output_and_gradient(model, clip, target, layer)
    total = torch.zeros(features.shape[0], *features.shape[2:])
    for channel in range(features.shape[1]):
        total += gradients[:, channel].mean() * features[:, channel]
    return total.clamp(min=0).numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_map_equals_a_plain_implementation(name):
    model = network(name)
    clip = torch.randn(1, 3, frames_of(name), SIDE, SIDE)
    layers = default_layers(model, clip)
    assert all(layer.startswith("backbone") for layer in layers)
    assert len(layers) == (2 if "slowfast" in name else 1)
    for layer in layers:
        maps = ((target, plain_gradcam(model, clip, target, layer)) for target in range(4))
        target, expected = next(pair for pair in maps if pair[1].any())  # maps of random weights may be 0
        found = layer_map(model, clip, target, layer)
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())
        assert min(found.shape[1:]) >= 7
    assert gradcam(model, clip, 1, layers).shape == (frames_of(name), SIDE, SIDE)


@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("videomae_small", {"depth": 3}, "blocks.2"),
        ("vjepa2_large", {"depth": 3}, "encoder.blocks.2"),
        ("vjepa2_large", {"depth": 3, "segments": 2}, "encoder.blocks.2"),
        ("vjepa21_base", {"depth": 3}, "encoder.blocks.2"),
    ],
)
def test_the_map_of_tokens_equals_a_plain_implementation(name, arguments, last):
    torch.manual_seed(0)
    model = getattr(models, name)(num_classes=4, width=64, **arguments).eval()
    nn.init.normal_(model.head.weight)
    clip = torch.randn(1, 3, 8, 112, 96)
    assert default_layers(model, clip) == (last,)
    for target in range(4):
        tokens, gradient = (part.flatten(0, 1) for part in output_and_gradient(model, clip, target, last))
        expected = (tokens @ gradient.mean(0)).clamp(min=0).reshape(4, 7, 6).numpy()
        found = layer_map(model, clip, target, last)
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(expected.max(), 1e-6))
        assert gradcam(model, clip, target, (last,)).shape == (8, 112, 96)


def test_the_map_of_frames_with_class_tokens():
    """A block of UniFormerV2 outputs the tokens of every frame, with a class token."""
    torch.manual_seed(0)
    model = models.uniformerv2_base(num_classes=4, width=64, depth=3, levels=2, size=112).eval()
    nn.init.normal_(model.head.weight)
    clip = torch.randn(1, 3, 4, 112, 112)
    assert default_layers(model, clip) == ("blocks.2",)
    for target in range(4):
        tokens, gradient = (part[:, 1:] for part in output_and_gradient(model, clip, target, "blocks.2"))
        expected = (tokens @ gradient.mean((0, 1))).clamp(min=0).reshape(4, 7, 7).numpy()
        found = layer_map(model, clip, target, "blocks.2")
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(expected.max(), 1e-6))
        assert gradcam(model, clip, target, ("blocks.2",)).shape == (4, 112, 112)


def test_the_map_of_a_network_with_its_own_order_of_tokens():
    """A block of Hiera has the order of mask units, and the map that of pixels."""
    torch.manual_seed(0)
    model = models.hiera_base(num_classes=4, width=8, depths=(1, 1, 2, 1), frames=4, size=128).eval()
    nn.init.normal_(model.head.weight)
    clip = torch.randn(1, 3, 4, 128, 128)
    assert default_layers(model, clip) == ("blocks.3",)  # of 8x8 cells
    for target in range(4):
        tokens, gradient = (part[0] for part in output_and_gradient(model, clip, target, "blocks.3"))
        cells = (tokens @ gradient.mean(0)).clamp(min=0).reshape(2, 4, 4, 2, 2)  # of 4 mask units a side
        expected = cells.transpose(2, 3).reshape(2, 8, 8).numpy()
        found = layer_map(model, clip, target, "blocks.3")
        np.testing.assert_allclose(found, expected, atol=1e-4 * max(expected.max(), 1e-6))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_map_follows_an_object_in_space_and_time(name):
    """With averages for weights and zeros around the object, nothing else is active."""
    model, frames = network(name), frames_of(name)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # some families begin with blocks that are the identity
    places = []
    for top, left, first in ((8, 32, 0), (32, 8, frames - frames // 4)):
        clip = torch.zeros(1, 3, frames, SIDE, SIDE)
        clip[:, :, first : first + frames // 4, top : top + 16, left : left + 16] = 2
        map_ = gradcam(model, clip, 0, default_layers(model, clip))
        assert map_.max() > 0
        places.append(np.array([(map_ * axis).sum() / map_.sum() for axis in np.indices(map_.shape)]))
    time, down, across = places[1] - places[0]
    assert down > 4
    assert across < -4
    assert time > frames / 16, time


def test_both_pathways_of_slowfast_are_added_by_their_contribution_to_the_logit():
    model = network("slowfast_r50_8x8")
    nn.init.uniform_(model.fc.weight)  # no contribution is below 0
    clip = torch.randn(1, 3, 16, 64, 64)
    layers = ("backbone.slow.layer4", "backbone.fast.layer4")
    for layer, features in zip(layers, model.fc.weight.split([256, 32], 1), strict=True):
        map_ = layer_map(model, clip, 0, layer)
        # The gradient of a feature at a position is its weight in the classifier divided by the positions.
        kept = {}
        handle = model.get_submodule(layer).register_forward_hook(lambda _, x, y, kept=kept: kept.update(y=y))
        model(clip)
        handle.remove()
        contribution = (kept["y"].mean((0, 2, 3)) * features[0]).sum().item()
        assert map_.sum() == pytest.approx(contribution, rel=1e-4)
    alone = [gradcam(model, clip, 0, (layer,)) for layer in layers]
    np.testing.assert_allclose(gradcam(model, clip, 0, layers), sum(alone), rtol=1e-5)
    assert cell_frames(model, layers[0], 4, 16).tolist() == [0, 5, 10, 15]
    assert cell_frames(model, layers[1], 16, 16).tolist() == list(range(16))


def test_frames_of_a_network_that_strides_in_time():
    model = network("i3d_r50")
    assert cell_frames(model, "backbone.layer1", 2, 16).tolist() == [0, 8]


def test_weights_classes_and_windows_change_the_map():
    model, clip = network("tsm_r10"), torch.randn(1, 3, 4, 64, 64)
    maps = [gradcam(model, clip, target, ("backbone.layer2",)) for target in (0, 1)]
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] < 0.9
    window = gradcam(model, clip, 0, ("backbone.layer2",), window=1)
    assert window.max() > 0
    for parameter in model.backbone.parameters():
        nn.init.normal_(parameter)
    randomized = gradcam(model, clip, 0, ("backbone.layer2",))
    assert np.corrcoef(maps[0].ravel(), randomized.ravel())[0, 1] < 0.9


def test_the_mode_of_gradients_and_the_model_stay():
    model, clip = network("tsn_r10"), torch.randn(1, 3, 2, SIDE, SIDE)
    expected = layer_map(model, clip, 0, "backbone.layer1")
    model.requires_grad_(False)
    with torch.inference_mode():
        np.testing.assert_array_equal(layer_map(model, clip.clone(), 0, "backbone.layer1"), expected)
    with torch.no_grad():
        np.testing.assert_array_equal(layer_map(model, clip, 0, "backbone.layer1"), expected)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert not model.backbone.get_submodule("layer1")._forward_hooks
    assert all(parameter.grad is None for parameter in model.parameters())


class Own(nn.Module):
    """A network of a user: clips as 5-D tensors, no method `layers`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 4, 3, stride=(2, 4, 4), padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.pooled = nn.Conv3d(4, 4, 1)  # a convolution after pooling has no map
        self.unused = nn.Conv2d(3, 3, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x)).mean((2, 3, 4), keepdim=True)
        return self.head(self.pooled(x).flatten(1))


def test_a_network_without_layers_uses_its_last_convolution_with_a_map():
    torch.manual_seed(1)
    model, clip = Own().eval(), torch.randn(1, 3, 4, 32, 32)
    assert default_layers(model, clip) == ("stem",)
    assert layer_map(model, clip, 0, "stem").shape == (2, 8, 8)
    assert gradcam(model, clip, 0, ("stem",)).shape == (4, 32, 32)
    image = models.tsn(
        nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 6, 3)), 6, 2
    ).eval()
    assert default_layers(image, clip) == ("backbone.network.2",)
    assert gradcam(image, clip, 1, ("backbone.network.2",)).shape == (4, 32, 32)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("stm", "Own has no layer 'stm'; nearest: stem"),
        ("unused", "layer 'unused' does not run in the forward pass"),
        ("head", r"layer 'head': its output has the shape \(1, 2\) for one clip; expected the feature map"),
    ],
)
def test_layers_that_have_no_map(layer, message):
    with pytest.raises(UserError, match=message):
        gradcam(Own().eval(), torch.randn(1, 3, 4, 32, 32), 0, (layer,))


def test_models_without_gradients_or_convolutions():
    clip = torch.randn(1, 3, 2, SIDE, SIDE)
    optimized = models.optimize_for_inference(network("tsn_r10"))
    with pytest.raises(UserError, match="optimized for inference, and its kernels have no gradients"):
        gradcam(optimized, clip, 0, ("backbone.layer1",))
    linear = nn.Sequential(nn.Flatten(), nn.LazyLinear(2))
    linear(clip)
    with pytest.raises(UserError, match="Sequential has no convolution"):
        default_layers(linear, clip)
    with pytest.raises(UserError, match="Identity has no parameters"):
        gradcam(nn.Identity(), clip, 0, ())

"""X3D: its layers, both published forms, and windows of larger clips."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mmaction_lite import models
from mmaction_lite.models.network import recompute_layers
from mmaction_lite.models.x3d import X3D, SqueezeExcitation, X3DBackbone, X3DBlock, squeezed_channels


def thin(**options) -> X3D:
    torch.manual_seed(0)
    model = models.x3d_s(num_classes=3, width=8, depth_factor=0.4, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    return model


def blocks(model: X3D, stage: int) -> list[X3DBlock]:
    return [block for block in model.backbone.stages[stage - 1].children() if isinstance(block, X3DBlock)]


@pytest.mark.parametrize(
    ("builder", "depths"), [("x3d_xs", (3, 5, 11, 7)), ("x3d_m", (3, 5, 11, 7)), ("x3d_l", (5, 10, 25, 15))]
)
def test_widths_and_depths_are_those_of_the_paper(builder, depths):
    with torch.device("meta"):
        model = getattr(models, builder)()
    for stage, (depth, width) in enumerate(zip(depths, (24, 48, 96, 192), strict=True), 1):
        found = blocks(model, stage)
        assert len(found) == depth
        assert {(block.conv1.out_channels, block.conv3.out_channels) for block in found} == {
            (int(2.25 * width), width)
        }
        assert [block.conv2.stride for block in found] == [(1, 2, 2)] + [(1, 1, 1)] * (depth - 1)
        assert [block.se is not None for block in found] == [number % 2 == 0 for number in range(depth)]
    assert model.projection.weight.shape == (2048, 432)


def test_squeezed_channels_are_a_sixteenth_in_multiples_of_eight():
    assert [squeezed_channels(channels) for channels in (54, 108, 216, 432)] == [8, 8, 16, 32]


def test_squeeze_excitation_averages_each_clip():
    torch.manual_seed(0)
    layer, x = SqueezeExcitation(16), torch.randn(2, 16, 3, 5, 5)  # (B, C, T, H, W)
    hidden = (x.mean((2, 3, 4)) @ layer.fc1.weight.T + layer.fc1.bias).relu()
    scales = (hidden @ layer.fc2.weight.T + layer.fc2.bias).sigmoid()
    out = layer(x.transpose(1, 2).flatten(0, 1), 2)
    torch.testing.assert_close(out.unflatten(0, (2, 3)).transpose(1, 2), x * scales[:, :, None, None, None])


def test_linear_layers_begin_as_the_convolutions_of_the_publication():
    torch.manual_seed(0)
    model = models.x3d_s(num_classes=3, width=48, depth_factor=0.2)
    squeeze = blocks(model, 4)[0].se
    assert squeeze is not None
    for linear in (model.projection, squeeze.fc1, squeeze.fc2):
        assert float(linear.weight.detach().std()) == pytest.approx(
            (2 / linear.out_features) ** 0.5, rel=0.05
        )


def test_blocks_are_the_identity_at_first():
    for block in blocks(models.x3d_s(num_classes=3, width=8, depth_factor=0.4), 3):
        assert not block.bn3.weight.any()
        if block.se is not None:
            assert not block.se.fc1.bias.any()
            assert not block.se.fc2.bias.any()


def test_the_forms_differ_in_the_first_shortcut_only():
    with_norm, without = (thin(shortcut_norm=norm).state_dict() for norm in (True, False))
    extra = {name.rpartition(".")[0] for name in with_norm.keys() - without.keys()}
    assert extra == {"backbone.layer1.0.downsample.1"}
    backbone = X3DBackbone(8, 0.4, True)
    backbone.adapt(False)
    assert backbone.state_dict().keys() == X3DBackbone(8, 0.4, False).state_dict().keys()
    shortcut = backbone.get_submodule("layer1.0.downsample.1")
    backbone.adapt(False)
    assert backbone.get_submodule("layer1.0.downsample.1") is shortcut
    backbone.adapt(True)
    assert backbone.state_dict().keys() == X3DBackbone(8, 0.4, True).state_dict().keys()


def test_windows_are_projected_and_classified_separately():
    """As PyTorchVideo and PySlowFast pool larger clips: with a window of stride 1, before the projection."""
    model, x = thin().eval(), torch.randn(2, 3, 4, 128, 96)
    with torch.no_grad():
        maps = model.backbone(x.transpose(1, 2).flatten(0, 1), 2).unflatten(0, (2, 4)).transpose(1, 2)
        pooled = functional.avg_pool3d(maps, (4, 2, 2), stride=1).flatten(2).transpose(1, 2)
        expected = model.fc((pooled @ model.projection.weight.T).relu())
        assert expected.shape == (2, 3 * 2, 3)
        torch.testing.assert_close(model(x, window=2), expected)
        torch.testing.assert_close(model(x[..., :64, :64], window=2)[:, 0], model(x[..., :64, :64]))


def test_recomputation_changes_no_gradient():
    x, gradients = torch.randn(2, 3, 4, 32, 32), []
    for recompute in (False, True):
        model = thin(dropout=0.0).train()
        if recompute:
            recompute_layers(model)
        model(x).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
        running = {name: value for name, value in model.state_dict().items() if "running" in name}
        gradients[-1] |= running
    torch.testing.assert_close(*gradients)

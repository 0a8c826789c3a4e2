"""The residual network that most families are built on."""

import pytest
import torch
from torch import nn

from mmaction_lite.models.convolution import conv2d
from mmaction_lite.models.resnet import DEPTHS, Block, MaxPool, ResNet, Stage, initialize


def resnet(depth: int, **options) -> ResNet:
    torch.manual_seed(0)
    first = 1 if depth >= 50 else 3
    units = (conv2d(first), conv2d(3), *((conv2d(1),) * (2 if depth >= 50 else 1)))
    return ResNet(depth, 8, conv2d(7), lambda stage, block: units, MaxPool(), **options)


@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_counts_stem_convolutions_and_classifier(depth):
    net = resnet(depth)
    chains = [block for block in net.modules() if isinstance(block, Block)]
    assert 1 + sum(len(block.convolutions) for block in chains) + 1 == depth
    assert net.features == net.channels[-1] == 64 * (4 if depth >= 50 else 1)


@pytest.mark.parametrize("depth", [18, 50])
def test_features_have_a_thirty_second_of_the_size(depth):
    net = resnet(depth).eval()
    with torch.no_grad():
        assert net(torch.zeros(4, 3, 64, 96), 2).shape == (4, net.features, 2, 3)


def test_layers_are_stem_and_stages_and_hold_every_parameter():
    net = resnet(18)
    stem, *stages = net.layers()
    assert stages == net.stages == [net.get_submodule(f"layer{number}") for number in (1, 2, 3, 4)]
    held = [id(parameter) for layer in net.layers() for parameter in layer.parameters()]
    assert sorted(held) == sorted(id(parameter) for parameter in net.parameters())
    assert len(list(stem.parameters())) == 3


def test_blocks_start_as_the_identity_where_asked_for():
    block = resnet(50, zero_init_residual=True).get_submodule("layer1.1").train()
    x = torch.rand(2, 32, 6, 6)
    assert torch.equal(block(x.clone(), 1), x)
    block = resnet(50).get_submodule("layer1.1").train()
    assert not torch.equal(block(x.clone(), 1), x)


def test_convolutions_start_with_hes_variance():
    conv = nn.Conv2d(64, 128, 3)
    initialize(nn.Sequential(conv))
    assert float(conv.weight.detach().var()) == pytest.approx(2 / (128 * 9), rel=0.05)


def test_max_pooling_strides_in_time_and_space():
    x = torch.randn(8, 4, 9, 9)
    expected = nn.functional.max_pool2d(x, 3, 2, 1)
    torch.testing.assert_close(MaxPool()(x, 2), expected)
    torch.testing.assert_close(MaxPool(stride_t=2)(x, 2), expected.unflatten(0, (2, 4))[:, ::2].flatten(0, 1))
    torch.testing.assert_close(MaxPool(padding=0)(x, 2), nn.functional.max_pool2d(x, 3, 2))


def test_a_stage_runs_its_modules_in_order():
    class Add(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, x, batch_size):
            return 10 * x + self.value

    assert Stage(Add(1), Add(2))(torch.zeros(1), 1).item() == 12

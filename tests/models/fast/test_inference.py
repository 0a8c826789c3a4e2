"""Which modules of a user's own network `optimize_for_inference` may change."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite.models.convolution import Conv2d, conv2d
from mmaction_lite.models.fast.fused import Epilogue, FusedBlock, FusedConv2d
from mmaction_lite.models.fast.inference import is_optimized, optimize_for_inference
from mmaction_lite.models.recognizer import Recognizer
from mmaction_lite.models.resnet import Block, ResNet
from tests.models.test_models import assert_same, clip, train_norms


class Twice(ResNet):
    """Needs the output of its stem twice."""

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        stem = self.run_stem(x, batch_size)
        return self.get_submodule("layer1")(stem, batch_size) + stem


class LateStem(ResNet):
    """Scales between normalization and ReLU."""

    def run_stem(self, x: Tensor, batch_size: int) -> Tensor:
        return self.relu(self.bn1(self.conv1(x, batch_size)) - 0.3)


class Gated(Block):
    """Scales the residual before the sum."""

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        out = x
        for number in (1, 2):
            out = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(out, batch_size))
            out = self.activation(out) if number == 1 else out
        return self.activation(0.5 * out + x)


class NormFirst(nn.Module):
    """Names like those of our modules, in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, 3, 3, 1)
        self.bn1 = nn.BatchNorm2d(3)

    def forward(self, x: Tensor, batch_size: int) -> Tensor:
        return self.conv1(self.bn1(x), batch_size)


def network(kind: type[ResNet] = ResNet) -> Recognizer:
    torch.manual_seed(0)
    net = kind(18, 8, conv2d(7), lambda stage, block: [conv2d(3)] * 2 + [conv2d(1)], None)
    model = Recognizer(net, 8 if kind is Twice else net.features, 5, 0.0).eval()
    train_norms(model)
    return model


def check(model: nn.Module) -> Any:
    fast, x = optimize_for_inference(model), clip("tsn_r18")
    before = x.clone()
    with torch.no_grad():
        assert_same(fast(x), model(x), 2e-5)
    assert torch.equal(x, before)
    assert is_optimized(fast)
    assert not is_optimized(model)
    return fast


@pytest.mark.parametrize("kind", [ResNet, Twice, LateStem])
def test_a_subclass_of_resnet_gives_the_same_logits(kind: type[ResNet]) -> None:
    fast = check(network(kind))
    assert not [module for module in fast.modules() if isinstance(module, nn.BatchNorm2d)]
    assert isinstance(fast.backbone.relu, nn.Identity) == (kind is ResNet)


def test_tensors_used_elsewhere_are_not_overwritten() -> None:
    fast = check(network(Twice))
    endings = [module.epilogue for module in fast.modules() if isinstance(module, FusedConv2d)]
    overwriting = [isinstance(epilogue, Epilogue) and epilogue.overwrites for epilogue in endings]
    assert sum(overwriting) == 7  # of eight blocks, all but the first


def test_a_block_with_another_forward_keeps_its_sum_and_activation() -> None:
    model: Any = network()
    model.backbone.layer1[0].__class__ = Gated
    fast = check(model)
    assert type(fast.backbone.layer1[0]) is Gated
    assert type(fast.backbone.layer1[1]) is FusedBlock


@pytest.mark.parametrize("name", ["bn1", "bn2"])
def test_a_block_with_another_normalization_keeps_it(name: str) -> None:
    model: Any = network()
    setattr(model.backbone.layer1[1], name, nn.GroupNorm(2, 8))
    nn.init.normal_(getattr(model.backbone.layer1[1], name).bias)
    fast = check(model)
    assert type(fast.backbone.layer1[1]) is Block
    assert isinstance(getattr(fast.backbone.layer1[1], name), nn.GroupNorm)


def test_names_alone_do_not_make_a_pair() -> None:
    model: Any = network()
    conv1 = model.backbone.conv1
    model.backbone.conv1 = NormFirst()
    model.backbone.conv1.conv1 = conv1
    train_norms(model)
    fast = check(model.eval())
    assert isinstance(fast.backbone.conv1.bn1, nn.BatchNorm2d)

"""Names of torchvision."""

import pytest

from mmaction_lite.weights.converters import torchvision

# Their name, and ours.
NAMES = {
    "conv1.weight": "backbone.conv1.weight",
    "layer1.0.conv1.weight": "backbone.layer1.0.conv1.weight",
    "layer1.0.downsample.1.weight": "backbone.layer1.0.downsample.1.weight",
    "layer2.0.conv1.0.0.weight": "backbone.layer2.0.conv1.spatial.weight",
    "layer2.0.conv1.0.3.weight": "backbone.layer2.0.conv1.temporal.weight",
    "layer2.0.conv2.1.weight": "backbone.layer2.0.bn2.weight",
    "fc.bias": "fc.bias",
}


@pytest.mark.parametrize("theirs", NAMES)
def test_names(theirs):
    assert torchvision.rename([*NAMES])[theirs] == NAMES[theirs]


def test_checkpoints_are_recognized_by_their_names():
    assert torchvision.NAME == "torchvision"
    assert torchvision.matches([*NAMES])
    assert not torchvision.matches(["fc.weight", "backbone.conv1.weight", "backbone.layer1.0.conv1.weight"])


def test_stems_of_the_video_networks():
    plain = torchvision.rename(["stem.0.weight", "stem.1.bias"])
    assert list(plain.values()) == ["backbone.conv1.weight", "backbone.bn1.bias"]
    factored = torchvision.rename([f"stem.{number}.weight" for number in (0, 1, 3, 4)])
    assert list(factored.values()) == [
        "backbone.conv1.spatial.weight",
        "backbone.conv1.bn.weight",
        "backbone.conv1.temporal.weight",
        "backbone.bn1.weight",
    ]


@pytest.mark.parametrize(
    ("number", "rest", "name"),
    [
        (0, "0.weight", "conv1.weight"),
        (18, "1.bias", "bn2.bias"),
        (1, "0.0.weight", "blocks.0.conv1.weight"),
        (1, "1.weight", "blocks.0.conv2.weight"),
        (2, "1.1.weight", "blocks.1.bn2.weight"),
        (2, "3.weight", "blocks.1.bn3.weight"),
    ],
)
def test_mobilenet(number, rest, name):
    assert torchvision.rename_mobilenet(number, rest) == f"backbone.{name}"

"""Names of MIT's TSM."""

import pytest
import torch

from mmaction_lite.weights.converters import mit_tsm

# Their name, and ours.
NAMES = {
    "base_model.conv1.weight": "backbone.conv1.weight",
    "base_model.bn1.bias": "backbone.bn1.bias",
    "base_model.layer1.0.conv1.net.weight": "backbone.layer1.0.conv1.weight",
    "base_model.layer1.0.downsample.0.weight": "backbone.layer1.0.downsample.0.weight",
    "base_model.layer2.0.block.conv2.weight": "backbone.layer2.0.conv2.weight",
    "base_model.layer2.0.nl.theta.weight": "backbone.layer2.non_local0.theta.weight",
    "base_model.layer2.0.nl.W.1.running_mean": "backbone.layer2.non_local0.bn.running_mean",
    "base_model.features.0.0.weight": "backbone.conv1.weight",
    "base_model.features.2.conv.0.weight": "backbone.blocks.1.conv1.weight",
    "base_model.features.2.conv.7.bias": "backbone.blocks.1.bn3.bias",
    "new_fc.weight": "fc.weight",
}


@pytest.mark.parametrize("theirs", NAMES)
def test_names(theirs):
    assert mit_tsm.rename([*NAMES])[theirs] == NAMES[theirs]


def test_checkpoints_are_recognized_by_their_names():
    assert mit_tsm.NAME == "MIT TSM"
    assert mit_tsm.matches([*NAMES])
    assert not mit_tsm.matches(["fc.weight", "backbone.conv1.weight", "backbone.layer1.0.conv1.weight"])


def test_the_bias_of_the_authors_non_local_output_goes_into_the_mean() -> None:
    prefix = "base_model.layer2.0.nl.W"
    mean = f"{prefix}.1.running_mean"
    theirs = {f"{prefix}.0.bias": torch.tensor([1.0, 2.0]), mean: torch.tensor([5.0, 5.0])}
    prepared = mit_tsm.prepare(theirs)
    assert [*prepared] == [mean]
    assert prepared[mean].tolist() == [4.0, 3.0]
    assert mit_tsm.rename(prepared) == {mean: "backbone.layer2.non_local0.bn.running_mean"}

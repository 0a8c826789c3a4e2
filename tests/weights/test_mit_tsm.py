"""Names of MIT's TSM."""

import pytest
import torch

from mmaction_lite import models
from mmaction_lite.models.convolution import Conv2d
from mmaction_lite.weights.converters import convert, mit_tsm

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


ONLINE_NAMES = {
    "features.0.1.weight": "backbone.bn1.weight",
    "features.1.conv.0.weight": "backbone.blocks.0.conv1.weight",
    "features.1.conv.3.weight": "backbone.blocks.0.conv2.weight",
    "features.1.conv.4.running_var": "backbone.blocks.0.bn2.running_var",
    "features.3.conv.3.weight": "backbone.blocks.2.conv2.weight",
    "features.3.conv.7.bias": "backbone.blocks.2.bn3.bias",
    "features.18.0.weight": "backbone.conv2.weight",
    "classifier.bias": "fc.bias",
}


@pytest.mark.parametrize("theirs", ONLINE_NAMES)
def test_names_of_the_online_demo(theirs):
    assert mit_tsm.rename([*ONLINE_NAMES])[theirs] == ONLINE_NAMES[theirs]


def online_weights() -> dict[str, torch.Tensor]:
    """Weights in the names of the authors' online demo."""
    theirs = {}
    ours = models.tsm_online_mobilenetv2(num_classes=27).state_dict()
    for number in range(19):
        if number in (0, 18):
            places = {"0": ("conv", 1 if number == 0 else 2), "1": ("bn", 1 if number == 0 else 2)}
            prefix, own = f"features.{number}.", "backbone."
        else:
            layers = 2 if number == 1 else 3
            convs = {str(3 * index): ("conv", index + 1) for index in range(layers)}
            norms = {str(3 * index + 1): ("bn", index + 1) for index in range(layers)}
            places, prefix, own = convs | norms, f"features.{number}.conv.", f"backbone.blocks.{number - 1}."
        for place, (kind, position) in places.items():
            start = f"{own}{kind}{position}."
            theirs |= {
                f"{prefix}{place}.{name.removeprefix(start)}": weight
                for name, weight in ours.items()
                if name.startswith(start)
            }
    return theirs | {f"classifier.{name}": ours[f"fc.{name}"] for name in ("weight", "bias")}


def test_weights_of_the_online_demo_fit_the_online_network_only() -> None:
    weights = online_weights()
    model = models.tsm_online_mobilenetv2(num_classes=27)
    conversion = convert(weights, model)
    assert (conversion.source, conversion.other_form, conversion.unused) == ("MIT TSM", [], [])
    assert len(conversion.loaded) == len(model.state_dict())
    shifting = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, Conv2d) and m.share}
    assert shifting == mit_tsm.ONLINE_SHIFTS
    (note,) = convert(weights, models.tsm_mobilenetv2(num_classes=27)).other_form
    assert "are of an online TSM, which shifts to later frames only, and the network is a TSM" in note


def test_the_bias_of_the_authors_non_local_output_goes_into_the_mean() -> None:
    prefix = "base_model.layer2.0.nl.W"
    mean = f"{prefix}.1.running_mean"
    theirs = {f"{prefix}.0.bias": torch.tensor([1.0, 2.0]), mean: torch.tensor([5.0, 5.0])}
    prepared = mit_tsm.prepare(theirs)
    assert [*prepared] == [mean]
    assert prepared[mean].tolist() == [4.0, 3.0]
    assert mit_tsm.rename(prepared) == {mean: "backbone.layer2.non_local0.bn.running_mean"}

"""Names of PyTorchVideo."""

import pytest
import torch

from mmaction_lite.models import slowfast_r50_8x8
from mmaction_lite.weights.converters import pytorchvideo

# Their name, and ours.
NAMES = {
    "blocks.0.conv.weight": "backbone.conv1.weight",
    "blocks.0.norm.bias": "backbone.bn1.bias",
    "blocks.1.res_blocks.0.branch1_conv.weight": "backbone.layer1.0.downsample.0.weight",
    "blocks.1.res_blocks.0.branch1_norm.weight": "backbone.layer1.0.downsample.1.weight",
    # Block 2 is a pooling without weights, so block 3 is the second stage.
    "blocks.3.res_blocks.1.branch2.conv_a.weight": "backbone.layer2.1.conv1.weight",
    "blocks.3.res_blocks.1.branch2.norm_c.weight": "backbone.layer2.1.bn3.weight",
    "blocks.3.res_blocks.2.branch2.conv_b.conv_t.weight": "backbone.layer2.2.conv2.temporal.weight",
    "blocks.3.res_blocks.2.branch2.conv_b.norm.weight": "backbone.layer2.2.conv2.bn.weight",
    "blocks.6.proj.weight": "fc.weight",
}


@pytest.mark.parametrize("theirs", NAMES)
def test_names(theirs):
    assert pytorchvideo.rename([*NAMES])[theirs] == NAMES[theirs]


def test_checkpoints_are_recognized_by_their_names():
    assert pytorchvideo.NAME == "PyTorchVideo"
    assert pytorchvideo.matches([*NAMES])
    assert not pytorchvideo.matches(["fc.weight", "backbone.conv1.weight", "backbone.layer1.0.conv1.weight"])


def test_pathways_and_fusions_of_slowfast():
    names = {
        "blocks.0.multipathway_blocks.0.conv.weight": "backbone.slow.conv1.weight",
        "blocks.0.multipathway_fusion.conv_fast_to_slow.weight": "backbone.lateral.0.conv.weight",
        "blocks.1.multipathway_blocks.1.res_blocks.0.branch1_conv.weight": (
            "backbone.fast.layer1.0.downsample.0.weight"
        ),
        "blocks.1.multipathway_fusion.norm.weight": "backbone.lateral.1.bn.weight",
    }
    assert pytorchvideo.rename(list(names)) == names


def test_slowfast_takes_the_authors_form():
    model = slowfast_r50_8x8(num_classes=2, width=8, lateral_norm=False)
    key = "blocks.0.multipathway_fusion.conv_fast_to_slow.weight"
    form = pytorchvideo.adapt({key: torch.empty(2, 1, 7, 1, 1)}, model)
    assert (form["lateral_kernel"], form["lateral_norm"], form["fast_first"]) == (7, True, False)

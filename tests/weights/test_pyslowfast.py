"""Names of PySlowFast."""

import pytest
import torch

from mmaction_lite.models import slowfast_r50_4x16, slowonly_r50
from mmaction_lite.weights.converters import pyslowfast

# Their name, and ours.
NAMES = {
    "s1.pathway0_stem.conv.weight": "backbone.slow.conv1.weight",
    "s1.pathway1_stem.bn.bias": "backbone.fast.bn1.bias",
    "s2.pathway0_res0.branch1.weight": "backbone.slow.layer1.0.downsample.0.weight",
    "s2.pathway0_res0.branch1_bn.weight": "backbone.slow.layer1.0.downsample.1.weight",
    "s3.pathway1_res2.branch2.a.weight": "backbone.fast.layer2.2.conv1.weight",
    "s5.pathway0_res1.branch2.c_bn.running_var": "backbone.slow.layer4.1.bn3.running_var",
    "s1_fuse.conv_f2s.weight": "backbone.lateral.0.conv.weight",
    "s4_fuse.bn.weight": "backbone.lateral.3.bn.weight",
    "head.projection.weight": "fc.weight",
}


@pytest.mark.parametrize("theirs", NAMES)
def test_names(theirs):
    assert pyslowfast.rename([*NAMES])[theirs] == NAMES[theirs]


def test_checkpoints_are_recognized_by_their_names():
    assert pyslowfast.NAME == "PySlowFast"
    assert pyslowfast.matches([*NAMES])
    assert not pyslowfast.matches(["fc.weight", "backbone.conv1.weight", "backbone.layer1.0.conv1.weight"])


def test_networks_of_one_pathway_have_no_pathway_in_their_names():
    keys = ["s1.pathway0_stem.conv.weight", "s2.pathway0_res0.branch2.b.weight"]
    assert list(pyslowfast.rename(keys).values()) == [
        "backbone.conv1.weight",
        "backbone.layer1.0.conv2.weight",
    ]


def test_slowfast_takes_the_authors_form():
    model = slowfast_r50_4x16(num_classes=2, width=8, lateral_norm=False)
    form = pyslowfast.adapt({"s1_fuse.conv_f2s.weight": torch.empty(2, 1, 5, 1, 1)}, model)
    assert (form["lateral_kernel"], form["lateral_norm"], form["slow_frames"]) == (5, True, "linspace")
    rebuilt = slowfast_r50_4x16(num_classes=2, width=8, **form)
    assert model.state_dict().keys() == rebuilt.state_dict().keys()
    assert pyslowfast.adapt({}, slowonly_r50(num_classes=2, width=8)) == {}

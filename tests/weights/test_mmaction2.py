"""Names of MMAction2."""

import pytest
import torch

from mmaction_lite.models import c2d_r50, slowfast_r50_8x8, tsn_r50
from mmaction_lite.weights.converters import mmaction2

# Their name, and ours.
NAMES = {
    "backbone.conv1.conv.weight": "backbone.conv1.weight",
    "backbone.conv1.bn.running_mean": "backbone.bn1.running_mean",
    "backbone.layer1.0.downsample.conv.weight": "backbone.layer1.0.downsample.0.weight",
    "backbone.layer1.0.downsample.bn.bias": "backbone.layer1.0.downsample.1.bias",
    "backbone.layer2.3.conv1.conv.net.weight": "backbone.layer2.3.conv1.weight",
    "backbone.layer2.1.block.conv3.conv.weight": "backbone.layer2.1.conv3.weight",
    "backbone.layer2.1.non_local_block.g.conv.weight": "backbone.layer2.non_local1.g.weight",
    "backbone.layer2.1.non_local_block.conv_out.bn.weight": "backbone.layer2.non_local1.bn.weight",
    "backbone.layer3.0.conv1.conv.conv_s.weight": "backbone.layer3.0.conv1.spatial.weight",
    "backbone.layer3.0.conv1.conv.conv_t.weight": "backbone.layer3.0.conv1.temporal.weight",
    "backbone.slow_path.conv1_lateral.conv.weight": "backbone.lateral.0.conv.weight",
    "backbone.slow_path.layer2_lateral.conv.weight": "backbone.lateral.2.conv.weight",
    "backbone.fast_path.layer4.2.conv2.bn.weight": "backbone.fast.layer4.2.bn2.weight",
    "backbone.layer2.1.conv.0.conv.weight": "backbone.blocks.2.conv1.weight",
    "cls_head.fc_cls.weight": "fc.weight",
    "data_preprocessor.mean": None,
}


@pytest.mark.parametrize("theirs", NAMES)
def test_names(theirs):
    assert mmaction2.rename([*NAMES])[theirs] == NAMES[theirs]


def test_checkpoints_are_recognized_by_their_names():
    assert mmaction2.NAME == "MMAction2"
    assert mmaction2.matches([*NAMES])
    assert not mmaction2.matches(["fc.weight", "backbone.conv1.weight", "backbone.layer1.0.conv1.weight"])


def test_slowfast_takes_mmaction2s_form():
    model = slowfast_r50_8x8(num_classes=2, width=8)
    weight = torch.empty(2, 1, 7, 1, 1)
    form = mmaction2.adapt({"backbone.slow_path.conv1_lateral.conv.weight": weight}, model)
    assert form == {
        "lateral_kernel": 7,
        "lateral_norm": False,
        "slow_frames": "strided",
        "fast_first": True,
    }
    rebuilt = slowfast_r50_8x8(num_classes=2, width=8, **form)
    assert model.state_dict().keys() == rebuilt.state_dict().keys()


def test_c2d_pools_without_padding():
    model = c2d_r50(num_classes=2, width=8)
    stem = {"backbone.conv1.conv.weight": torch.empty(8, 3, 7, 7)}
    assert mmaction2.adapt(stem, model) == {"pool_padding": 0}
    assert mmaction2.adapt(stem, tsn_r50(num_classes=2, width=8)) == {}

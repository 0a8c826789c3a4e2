"""Names of MMAction2."""

import pytest
import torch

from mmaction_lite.models import c2d_r50, slowfast_r50_8x8, tsn_r50, videomae_small
from mmaction_lite.models.vit import sinusoid_table
from mmaction_lite.weights.converters import convert, mmaction2

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


def in_mmaction2(weights):
    """Weights of VideoMAE under the names of MMAction2."""
    renamed = {}
    for name, value in weights.items():
        name = name.replace("head.", "cls_head.fc_cls.") if name.startswith("head.") else f"backbone.{name}"
        name = name.replace("patch_embed.proj.", "patch_embed.projection.")
        name = name.replace(".mlp.fc1.", ".mlp.layers.0.0.").replace(".mlp.fc2.", ".mlp.layers.1.")
        renamed[name] = value
    return renamed


def thin_videomae(**options):
    model = videomae_small(num_classes=3, width=8, depth=2, heads=2, patch=4, **options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def test_the_published_positions_of_videomae_are_left_out():
    model, other = thin_videomae(), thin_videomae()
    table = sinusoid_table(1568, 8)[None] + 1e-4  # as in float32
    conversion = convert(in_mmaction2(model.state_dict()) | {"backbone.pos_embed": table}, other)
    assert conversion.source == "MMAction2"
    assert (conversion.unused, conversion.arguments) == (["backbone.pos_embed"], {})
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_other_positions_of_videomae_are_kept():
    model, other = thin_videomae(), thin_videomae()
    table = torch.randn(1, 1568, 8)
    conversion = convert(in_mmaction2(model.state_dict()) | {"backbone.pos_embed": table}, other)
    assert (conversion.unused, conversion.arguments) == ([], {"positions": "stored"})
    rebuilt = thin_videomae(positions="stored")
    rebuilt.load_state_dict(other.state_dict())
    x = torch.rand(1, 3, 4, 8, 8)
    with torch.no_grad():
        model.positions.table = table[0]
        torch.testing.assert_close(rebuilt(x), model(x))
        torch.testing.assert_close(other(x), model(x))

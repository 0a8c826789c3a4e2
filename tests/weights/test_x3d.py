"""X3D of PySlowFast, PyTorchVideo and MMAction2."""

import pytest
import torch

from mmaction_lite.models import x3d_s
from mmaction_lite.recipes import get_recipe
from mmaction_lite.weights.converters import Conversion, convert, mmaction2, pyslowfast, pytorchvideo, x3d
from mmaction_lite.weights.converters.sources import PYSLOWFAST, StoredSettings, source_normalize
from mmaction_lite.weights.fitting_protocol import fit_protocol

# Our name, and those of PySlowFast, PyTorchVideo and MMAction2.
NAMES = [
    (
        "backbone.conv1.weight",
        "s1.pathway0_stem.conv_xy.weight",
        "blocks.0.conv.conv_t.weight",
        "backbone.conv1_s.conv.weight",
    ),
    (
        "backbone.conv1_t.weight",
        "s1.pathway0_stem.conv.weight",
        "blocks.0.conv.conv_xy.weight",
        "backbone.conv1_t.conv.weight",
    ),
    ("backbone.bn1.bias", "s1.pathway0_stem.bn.bias", "blocks.0.norm.bias", "backbone.conv1_t.bn.bias"),
    (
        "backbone.layer3.10.bn2.running_var",
        "s4.pathway0_res10.branch2.b_bn.running_var",
        "blocks.3.res_blocks.10.branch2.norm_b.0.running_var",
        "backbone.layer3.10.conv2.bn.running_var",
    ),
    (
        "backbone.layer2.0.downsample.0.weight",
        "s3.pathway0_res0.branch1.weight",
        "blocks.2.res_blocks.0.branch1_conv.weight",
        "backbone.layer2.0.downsample.conv.weight",
    ),
    (
        "backbone.layer2.0.downsample.1.bias",
        "s3.pathway0_res0.branch1_bn.bias",
        "blocks.2.res_blocks.0.branch1_norm.bias",
        "backbone.layer2.0.downsample.bn.bias",
    ),
    (
        "backbone.layer4.6.conv3.weight",
        "s5.pathway0_res6.branch2.c.weight",
        "blocks.4.res_blocks.6.branch2.conv_c.weight",
        "backbone.layer4.6.conv3.conv.weight",
    ),
    (
        "backbone.layer1.2.se.fc2.bias",
        "s2.pathway0_res2.branch2.se.fc2.bias",
        "blocks.1.res_blocks.2.branch2.norm_b.1.block.2.bias",
        "backbone.layer1.2.se_module.fc2.bias",
    ),
    (
        "backbone.bn5.weight",
        "head.conv_5_bn.weight",
        "blocks.5.pool.pre_norm.weight",
        "backbone.conv5.bn.weight",
    ),
    ("projection.weight", "head.lin_5.weight", "blocks.5.pool.post_conv.weight", "cls_head.fc1.weight"),
    ("fc.weight", "head.projection.weight", "blocks.5.proj.weight", "cls_head.fc2.weight"),
]
PROJECTS = (pyslowfast, pytorchvideo, mmaction2)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_names_of_every_project(number):
    table, theirs = PROJECTS[number - 1], [names[number] for names in NAMES]
    assert table.matches(theirs)
    assert [other for other in PROJECTS if other.matches(theirs)] == [table]
    assert table.rename(theirs) == {names[number]: names[0] for names in NAMES}
    assert x3d.rename(["a"], x3d.PYSLOWFAST) == {"a": "a"}


def in_pytorchvideo(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of one of our networks under the names, and with the shapes, of PyTorchVideo."""
    found = {}
    for name, value in model.state_dict().items():
        key = name
        for ours, theirs in (
            ("backbone.conv1.", "blocks.0.conv.conv_t."),
            ("backbone.conv1_t.", "blocks.0.conv.conv_xy."),
            ("backbone.bn1.", "blocks.0.norm."),
            ("backbone.layer", "blocks."),
            (".downsample.0.", ".branch1_conv."),
            (".downsample.1.", ".branch1_norm."),
            (".bn2.", ".branch2.norm_b.0."),
            (".se.fc1.", ".branch2.norm_b.1.block.0."),
            (".se.fc2.", ".branch2.norm_b.1.block.2."),
            ("backbone.conv5.", "blocks.5.pool.pre_conv."),
            ("backbone.bn5.", "blocks.5.pool.pre_norm."),
            ("projection.", "blocks.5.pool.post_conv."),
            ("fc.", "blocks.5.proj."),
            *(
                (f".conv{number}.", f".branch2.conv_{letter}.")
                for number, letter in ((1, "a"), (2, "b"), (3, "c"))
            ),
            *((f".bn{number}.", f".branch2.norm_{letter}.") for number, letter in ((1, "a"), (3, "c"))),
        ):
            if key.startswith(ours) or (ours.startswith(".") and ours in key):
                key = key.replace(ours, theirs, 1)
        parts = key.split(".")
        if parts[0] == "blocks" and parts[1] in "1234":
            parts.insert(2, "res_blocks")
        is_linear = value.ndim == 2 and parts[-2] != "proj"
        found[".".join(parts)] = value[:, :, None, None, None] if is_linear else value
    return found


@pytest.mark.parametrize("shortcut_norm", [True, False])
def test_the_form_is_that_of_the_weights(shortcut_norm):
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "width": 8, "depth_factor": 0.4}
    source = x3d_s(**arguments, shortcut_norm=shortcut_norm).eval()
    for built in (True, False):
        model = x3d_s(**arguments, shortcut_norm=built)
        conversion = convert(in_pytorchvideo(source), model)
        assert conversion.source == "PyTorchVideo"
        assert conversion.arguments == {"shortcut_norm": shortcut_norm}
        assert not conversion.reinitialized
        assert not conversion.unused
        clip = torch.randn(1, 3, 4, 32, 32)
        assert torch.equal(model.eval()(clip), source(clip))
    assert x3d.adapt({}, torch.nn.Linear(1, 1)) == {}


def test_the_protocol_is_that_of_the_project():
    recipe = get_recipe("x3d_s_13x6x1_300e_kinetics400_rgb")
    tests = {}
    for number, table in enumerate(PROJECTS, 1):
        keys = [names[number] for names in NAMES]
        normalize = source_normalize(table.NAME, keys, StoredSettings())
        conversion = Conversion(table.NAME, [], [], [], normalize=normalize)
        assert conversion.normalize == PYSLOWFAST
        fitted, notes = fit_protocol(recipe, conversion)
        assert "X3D-XS, S and M have the same names" in notes[0]
        assert notes[0].endswith("x3d_s")
        assert len(notes) == 1 + (table is not pyslowfast)
        tests[table.NAME] = (fitted.window, fitted.average)
        assert (fitted.test, fitted.val) == (recipe.test, recipe.val)
    assert tests == {
        "PySlowFast": (5, "probability"),
        "PyTorchVideo": (5, "score"),
        "MMAction2": (None, "probability"),
    }


def test_files_of_the_deeper_network_need_no_note_about_its_size():
    recipe = get_recipe("x3d_l_16x5x1_256e_kinetics400_rgb")
    conversion = Conversion(pyslowfast.NAME, [], [], [], normalize=PYSLOWFAST)
    assert fit_protocol(recipe, conversion) == (recipe, [])

"""Names of UniFormerV2's repository, of MMAction2 and of CLIP."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mmaction_lite import load
from mmaction_lite.errors import UserError
from mmaction_lite.models import uniformerv2_base
from mmaction_lite.models.uniformerv2 import UniFormerV2
from mmaction_lite.weights.card import card_of
from mmaction_lite.weights.catalogue import class_names
from mmaction_lite.weights.converters import convert, uniformerv2

LOCAL: dict[str, Any] = {"local": True, "stem": 3}


def thin(num_classes: int = 3, **options: Any) -> UniFormerV2:
    """A thin network whose values differ from all initial ones."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"width": 12, "depth": 2, "heads": 2, "levels": 1, "patch": 8, "size": 16}
    model = uniformerv2_base(num_classes, **sizes | options)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def image_network(model: UniFormerV2, prefix: str = "visual.") -> dict[str, Tensor]:
    """The weights of the image network under the names of CLIP, of a first convolution over one frame."""
    names = {
        "positions.weight": "positional_embedding",
        "blocks.": "transformer.resblocks.",
        ".attn.qkv.": ".attn.in_proj_",
        ".attn.proj.": ".attn.out_proj.",
        ".fc1.": ".c_fc.",
        ".fc2.": ".c_proj.",
        ".norm": ".ln_",
    }
    found = {}
    for name, value in model.state_dict().items():
        if name.startswith(("conv1", "class_emb", "positions", "ln_pre", "blocks")) and ".local" not in name:
            for ours, theirs in names.items():
                name = name.replace(ours, theirs)
            found[prefix + name] = value[:, :, value.shape[2] // 2] if name == "conv1.weight" else value
    return found


def project(model: UniFormerV2, form: str) -> dict[str, Tensor]:
    """The weights under the names of the repository or of MMAction2."""
    state = model.state_dict()
    found = {f"backbone.{name}": value for name, value in image_network(model, "").items()}
    found["backbone.conv1.weight"] = state["conv1.weight"]
    found["backbone.transformer.temporal_cls_token"] = state["temporal_token.weight"][None]
    found["backbone.transformer.balance"] = state["mixture.balance"]
    norm, head = (
        ("transformer.norm", "cls_head.fc_cls") if form == "mmaction2" else ("transformer.proj.0", "")
    )
    for kind in ("weight", "bias"):
        found[f"backbone.{norm}.{kind}"] = state[f"mixture.norm.{kind}"]
        found[f"{head or 'backbone.transformer.proj.2'}.{kind}"] = state[f"head.{kind}"]
        own = "backbone.transformer.dec.0"
        ours = "extractors.0"
        found[f"backbone.transformer.dpe.0.{kind}"] = state[f"{ours}.dpe.{kind}"]
        found[f"{own}.attn.in_proj_{kind}"] = torch.cat(
            [state[f"{ours}.attn.q.{kind}"], state[f"{ours}.attn.kv.{kind}"]]
        )
        found[f"{own}.attn.out_proj.{kind}"] = state[f"{ours}.attn.proj.{kind}"]
        for number in (1, 2, 3):
            found[f"{own}.ln_{number}.{kind}"] = state[f"{ours}.norm{number}.{kind}"]
        found[f"{own}.mlp.c_fc.{kind}"] = state[f"{ours}.fc1.{kind}"]
        found[f"{own}.mlp.c_proj.{kind}"] = state[f"{ours}.fc2.{kind}"]
    return found


@pytest.mark.parametrize("form", ["repository", "mmaction2"])
def test_files_of_both_projects_fill_the_network(form):
    model, other = thin(), thin()
    for parameter in other.parameters():
        torch.nn.init.zeros_(parameter)
    weights = project(model, form)
    if form == "mmaction2":
        weights["data_preprocessor.mean"] = torch.zeros(3, 1, 1, 1)
    conversion = convert({"state_dict": weights}, other)
    assert conversion.source == ("MMAction2" if form == "mmaction2" else "UniFormerV2")
    assert conversion.normalize is not None
    assert conversion.normalize.mean == (114.75, 114.75, 114.75)
    assert conversion.reinitialized == []
    assert conversion.unused == ["data_preprocessor.mean"] * (form == "mmaction2")
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "dataset", "views"),
    [
        ("base-p16-res224_clip_8xb32-u8_kinetics400", "kinetics400", "1x1x8 frames: 4 clips"),
        ("large-p14-res224_clip-kinetics710-pre_u32_kinetics600", "kinetics600", "1x1x32 frames: 2 clips"),
        ("base-p16-res224_clip-pre_u8_kinetics710", "kinetics710", "1x1x8 frames: 4 clips"),
        ("large-p16-res336_clip-kinetics710-kinetics-k400-pre_u8_mitv1", "mit", "1x1x8 frames: 4 clips"),
    ],
)
def test_files_of_mmaction2_load_by_name(name, dataset, views, publish):
    classes = class_names(dataset)
    model = thin(num_classes=len(classes))
    name = f"uniformerv2-{name}-rgb@mmaction2"
    sizes = {"width": 12, "depth": 2, "heads": 2, "levels": 1, "patch": 8, "size": 16}
    publish(name, {"state_dict": project(model, "mmaction2")}, arguments=sizes)
    loaded = load(name)
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    card = card_of(loaded)
    assert card.classes == classes
    assert str(card.test).startswith(f"{views} × 3 crops")
    assert card.test.average == "probability"


def test_a_training_starts_from_kinetics710_with_another_classifier():
    model, other = thin(num_classes=7), thin()
    conversion = convert(project(model, "repository"), other)
    assert sorted(conversion.reinitialized) == ["head.bias", "head.weight"]
    assert torch.equal(other.mixture.balance, model.mixture.balance)


@pytest.mark.parametrize("prefix", ["visual.", ""])
@pytest.mark.parametrize("options", [{}, LOCAL])
def test_a_training_starts_from_the_image_network_of_clip(prefix, options):
    model, other = thin(), thin(**options)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    weights = {key: value.half() for key, value in image_network(model, prefix).items()}
    beside = {f"{prefix}proj": torch.ones(12, 4), f"{prefix}ln_post.weight": torch.ones(12)}
    if prefix:
        beside |= {
            "transformer.resblocks.0.ln_1.weight": torch.ones(8),
            "positional_embedding": torch.ones(77, 8),
            "logit_scale": torch.tensor(1.0),
        }
    conversion = convert(weights | beside, other)
    assert sorted(conversion.unused) == sorted(beside)
    state = other.state_dict()
    middle = state["conv1.weight"].shape[2] // 2
    assert torch.equal(state["conv1.weight"][:, :, middle], weights[f"{prefix}conv1.weight"].float())
    assert int((state["conv1.weight"] != 0).any((0, 1, 3, 4)).sum()) == 1
    assert torch.equal(state["positions.weight"], weights[f"{prefix}positional_embedding"].float())
    kept = [name for name in before if ".local" in name or name.startswith(("extractors", "mixture", "head"))]
    kept = [name for name in kept if not name.endswith("tracked")]
    assert set(conversion.reinitialized) >= {*kept, "temporal_token.weight"}
    for name in kept:
        assert torch.equal(state[name], before[name]), name


def test_the_form_for_something_something_is_not_that_for_kinetics():
    with pytest.raises(UserError, match="missing"):
        convert(project(thin(), "repository"), thin(**LOCAL))
    assert not uniformerv2.is_clip(project(thin(), "repository"))

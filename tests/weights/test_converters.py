"""Public weights at their places in our models, and everything that does not fit refused in one line."""

import functools
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmaction_lite import models
from mmaction_lite.errors import UserError
from mmaction_lite.weights import converters
from mmaction_lite.weights.converters import (
    convert,
    huggingface_videomae,
    huggingface_vjepa,
    read_checkpoint,
    torchvision,
    uniformerv2,
)
from mmaction_lite.weights.converters.forms import is_for_images

GOLDENS = Path(__file__).parents[1] / "goldens"
# Every public checkpoint whose names and shapes are kept in goldens/, and the builder that it is for.
PUBLIC: dict[str, tuple[str, dict[str, Any]]] = {
    "mmaction2__c2d_r50_8x8x1": ("c2d_r50", {}),
    "mmaction2__i3d_r50_32x2x1": ("i3d_r50", {}),
    "mmaction2__i3d_r50_nl_dot_32x2x1": ("i3d_r50", {"non_local": "dot_product"}),
    "mmaction2__r2plus1d_r34_32x2x1": ("r2plus1d_r34", {}),
    "mmaction2__r2plus1d_r34_8x8x1": ("r2plus1d_r34", {}),
    "mmaction2__slowfast_r50_4x16x1": ("slowfast_r50_4x16", {}),
    "mmaction2__slowfast_r50_8x8x1": ("slowfast_r50_8x8", {}),
    "mmaction2__slowonly_r50_4x16x1": ("slowonly_r50", {}),
    "mmaction2__slowonly_r50_8x8x1": ("slowonly_r50", {}),
    "mmaction2__tsm_r50_1x1x8": ("tsm_r50", {}),
    "mmaction2__tsn_r50_1x1x3": ("tsn_r50", {}),
    "mmaction2__mvit_small_16x4x1": ("mvit_v2_small", {}),
    "pyslowfast__MVIT_B_16x4_CONV": ("mvit_v1_base", {}),
    "pyslowfast__MVITv2_B_32x3": ("mvit_v2_base", {}),
    "pyslowfast__MVITv2_S_16x4": ("mvit_v2_small", {}),
    "torchvision__mvit_v1_b": ("mvit_v1_base", {}),
    "torchvision__mvit_v2_s": ("mvit_v2_small", {}),
    "pyslowfast__C2D_8x8_R50": ("c2d_r50", {}),
    "pyslowfast__I3D_8x8_R50": ("i3d_r50_heavy", {}),
    "pyslowfast__SLOWFAST_4x16_R50": ("slowfast_r50_4x16", {}),
    "pyslowfast__SLOWFAST_8x8_R50": ("slowfast_r50_8x8", {}),
    "pyslowfast__SLOW_4x16_R50": ("slowonly_r50", {}),
    "pyslowfast__SLOW_8x8_R50": ("slowonly_r50", {}),
    "pytorchvideo__c2d_r50": ("c2d_r50", {}),
    "pytorchvideo__i3d_r50": ("i3d_r50_heavy", {}),
    "pytorchvideo__r2plus1d_r50": ("r2plus1d_r50", {}),
    "pytorchvideo__slow_r50": ("slowonly_r50", {}),
    "pytorchvideo__slowfast_r50": ("slowfast_r50_8x8", {}),
    "mmaction2__x3d_m_16x5x1": ("x3d_m", {}),
    "pyslowfast__X3D_M": ("x3d_m", {}),
    "pytorchvideo__x3d_l": ("x3d_l", {}),
    "pytorchvideo__x3d_m": ("x3d_m", {}),
    "pytorchvideo__x3d_s": ("x3d_s", {}),
    "pytorchvideo__x3d_xs": ("x3d_xs", {}),
    "torchvision__mc3_18": ("mc3_r18", {}),
    "torchvision__r2plus1d_18": ("r2plus1d_r18", {}),
    "torchvision__r3d_18": ("r3d_r18", {}),
    "torchvision__swin3d_b": ("swin3d_base", {}),
    "torchvision__swin3d_s": ("swin3d_small", {}),
    "torchvision__swin3d_t": ("swin3d_tiny", {}),
    "mmaction2__swin_tiny_32x2x1": ("swin3d_tiny", {}),
    "tsm_mit__tsm_r50_8f": ("tsm_r50", {}),
    "tsm_mit__tsn_r50_3f": ("tsn_r50", {}),
    "tsm_mit__tsn_r50_8f": ("tsn_r50", {}),
    "hiera__base_16x224": ("hiera_base", {}),
    "hf__videomae_base_16x224": ("videomae_base", {}),
    "hf__videomae_small_16x224": ("videomae_small", {"num_classes": 174}),
    "mmaction2__videomae_base_16x4x1": ("videomae_base", {}),
    "uniformerv2__b16_8x224_k400": ("uniformerv2_base", {}),
    "uniformerv2__b16_16x224_ssv2": (
        "uniformerv2_base",
        {"num_classes": 174, "levels": 8, "local": True, "stem": 3},
    ),
    "videomae__vit_base_16x224": ("videomae_base", {"num_classes": 174}),
    "videomae__vit_small_16x224": ("videomae_small", {}),
    "videomaev2__vit_small_16x224_k710": ("videomae_small", {"num_classes": 710}),
    "hf__vjepa2_reduced": ("vjepa2_large", {"width": 192, "depth": 4, "num_classes": 174}),
    "hf__vjepa2_vitl_width": ("vjepa2_large", {"depth": 2, "num_classes": 174}),
    "vjepa21__reduced_probe": ("vjepa21_base", {"width": 192, "num_classes": 174}),
    "vjepa2__giant_ratio_probe": (
        "vjepa2_giant",
        {"width": 176, "depth": 4, "heads": 11, "num_classes": 48},
    ),
    "vjepa2__multilevel_probe": (
        "vjepa2_large",
        {"width": 192, "depth": 8, "levels": (1, 3, 5, 7), "num_classes": 48},
    ),
    "vjepa2__reduced_probe": ("vjepa2_large", {"width": 192, "depth": 4, "num_classes": 174}),
}
# One of each project and family: the others differ by the length of their clips.
DISTINCT = (
    "mmaction2__c2d_r50_8x8x1",
    "mmaction2__i3d_r50_nl_dot_32x2x1",
    "mmaction2__r2plus1d_r34_8x8x1",
    "mmaction2__slowfast_r50_4x16x1",
    "mmaction2__tsm_r50_1x1x8",
    "pyslowfast__I3D_8x8_R50",
    "pyslowfast__SLOWFAST_8x8_R50",
    "pytorchvideo__i3d_r50",
    "pytorchvideo__r2plus1d_r50",
    "pytorchvideo__slowfast_r50",
    "torchvision__mc3_18",
    "torchvision__r2plus1d_18",
    "tsm_mit__tsm_r50_8f",
)
SOURCES = {
    "mmaction2": "MMAction2",
    "pyslowfast": "PySlowFast",
    "pytorchvideo": "PyTorchVideo",
    "torchvision": "torchvision",
    "tsm_mit": "MIT TSM",
    "hiera": "Hiera",
    "hf__videomae": "VideoMAE of transformers",
    "hf__vjepa2": "V-JEPA 2 of transformers",
    "uniformerv2": "UniFormerV2",
    "videomae": "mmaction-lite",  # the names are the same
    "videomaev2": "mmaction-lite",
    "vjepa2": "V-JEPA",
    "vjepa21": "V-JEPA",
}
UNUSED = {"mmaction2__videomae_base_16x4x1": ["backbone.pos_embed"]}
# Tables that join projections.
JOINED = {"uniformerv2": uniformerv2, "hf__videomae": huggingface_videomae, "hf__vjepa2": huggingface_vjepa}


@functools.cache
def shapes(public: str) -> dict[str, list[int]]:
    """Names and shapes of a public checkpoint."""
    return json.loads(gzip.decompress((GOLDENS / f"{public}.json.gz").read_bytes()))["shapes"]


def build(public: str, **arguments: Any) -> nn.Module:
    name, own = PUBLIC[public]
    return getattr(models, name)(**own, **arguments)


def randomize(model: nn.Module) -> None:
    """Numbers that no initialization gives, all different."""
    for value in model.state_dict().values():
        value.copy_(torch.rand(value.shape) + 1 if value.is_floating_point() else torch.tensor(7))


def thin_pair(public: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network of an eighth of the channels, and its weights as a checkpoint of the public one's project."""
    torch.manual_seed(0)
    model = build(public, width=8, num_classes=5)
    keys = {key: torch.empty(shape, device="meta") for key, shape in shapes(public).items()}
    table = next(table for table in converters.TABLES if table.matches(keys))
    if hasattr(table, "adapt"):
        table.adapt(keys, model)
    randomize(model)
    ours = model.state_dict()
    weights = {key: ours[name] for key, name in table.rename(keys).items()}
    flat = {
        key: weight.squeeze(2) if weight.ndim > keys[key].ndim else weight for key, weight in weights.items()
    }
    return model, flat


def assert_same(model: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def untouched(model: nn.Module) -> Any:
    """Raises if anything is different on leaving."""
    before = {key: value.clone() for key, value in model.state_dict().items()}

    class Check:
        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)

    return Check()


def test_every_public_checkpoint_kept_here_is_tested():
    kept = {path.name.removesuffix(".json.gz") for path in GOLDENS.glob("*.json.gz")}
    assert {name for name in kept if not name.startswith("timm__")} == set(PUBLIC)  # see test_timm.py


def test_exactly_one_table_knows_the_names_of_a_project():
    for path in GOLDENS.glob("*.json.gz"):
        public = path.name.removesuffix(".json.gz")
        known = [table.NAME for table in converters.TABLES if table.matches(shapes(public))]
        origins = [prefix for prefix in SOURCES if public.startswith(prefix)]
        # The names of timm are those of the image model in the network; see `converters.timm`.
        expected = [SOURCES[max(origins, key=len)]] if origins else []
        assert known == (["VideoMAE"] if expected == ["mmaction-lite"] else expected), public


@pytest.mark.parametrize("public", PUBLIC)
def test_public_names_and_shapes_are_ours_one_to_one(public):
    with torch.device("meta"):
        model = build(public)
        weights = {
            key: torch.empty(shape, dtype=torch.int64 if key.endswith("tracked") else torch.float32)
            for key, shape in shapes(public).items()
        }
    conversion, found = converters._match(weights, model)
    origin = next(prefix for prefix in sorted(SOURCES, key=len, reverse=True) if public.startswith(prefix))
    assert conversion.source == SOURCES[origin]
    if origin in JOINED:
        weights = JOINED[origin].prepare(weights)
    computed = ("vjepa2.predictor.", ".relative_position_index")  # or not needed
    unused = [key for key in weights if any(part in key for part in computed)]
    assert conversion.unused == UNUSED.get(public, unused)
    assert len(found) == len(weights) - len(conversion.unused)
    assert set(found) == set(model.state_dict())
    assert conversion.reinitialized == []
    assert not is_for_images(conversion.source, weights, model)  # or `convert` refuses the file


@pytest.mark.parametrize("public", DISTINCT)
def test_files_of_every_project_fill_the_model(public, tmp_path):
    model, weights = thin_pair(public)
    holder = "model_state" if public.startswith("py") else "state_dict"
    torch.save(
        {holder: {f"module.{key}": value for key, value in weights.items()}, "epoch": 3}, tmp_path / "x.pth"
    )
    fresh = build(public, width=8, num_classes=5)
    conversion = convert(read_checkpoint(tmp_path / "x.pth"), fresh)
    assert_same(fresh, model)
    if conversion.arguments:
        rebuilt = build(public, width=8, num_classes=5, **conversion.arguments)
        assert convert(fresh.state_dict(), rebuilt).source == "mmaction-lite"
        assert_same(rebuilt, model)


def test_the_report_has_three_lines():
    _, weights = thin_pair("mmaction2__tsn_r50_1x1x3")
    weights["data_preprocessor.mean"] = torch.ones(3)
    conversion = convert(weights, models.tsn_r50(num_classes=9, width=8))
    assert str(conversion).splitlines() == [
        "loaded: 318 entries, from names of MMAction2",
        "re-initialized: fc.weight, fc.bias",
        "unused: data_preprocessor.mean",
    ]
    assert "fc.weight" not in conversion.loaded


def test_only_a_classifier_of_other_classes_is_left_as_it_was():
    model, weights = thin_pair("pyslowfast__SLOW_8x8_R50")
    for lacking in (False, True):
        other = models.slowonly_r50(num_classes=7, width=8)
        before = other.fc.weight.clone()
        conversion = convert({k: v for k, v in weights.items() if not (lacking and "head" in k)}, other)
        assert conversion.reinitialized == ["fc.weight", "fc.bias"]
        torch.testing.assert_close(other.fc.weight, before, rtol=0, atol=0)
        for key, value in model.state_dict().items():
            if key.startswith("backbone."):
                torch.testing.assert_close(other.state_dict()[key], value, rtol=0, atol=0)
    for broken in ({"head.projection.bias": torch.ones(4)}, {"head.projection.weight": torch.ones(7, 3)}):
        with pytest.raises(UserError, match="differ in shape"):
            convert(weights | broken, models.slowonly_r50(num_classes=7, width=8))
    del weights["head.projection.bias"]
    with pytest.raises(UserError, match=r"1 are missing \(fc.bias"):
        convert(weights, models.slowonly_r50(num_classes=5, width=8))


def image_weights() -> dict[str, Tensor]:
    """torchvision's ResNet-50 for 1000 classes, an eighth of its channels."""
    model = models.tsn_r50(num_classes=1000, width=8)
    randomize(model)
    return {key.removeprefix("backbone."): value for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "family", ["tsn_r50", "tsm_r50", "c2d_r50", "i3d_r50", "i3d_r50_heavy", "slowonly_r50"]
)
def test_image_weights_fill_every_family_of_one_pathway(family):
    weights = image_weights()
    model = getattr(models, family)(num_classes=5, width=8)
    conversion = convert(weights, model)
    assert conversion.source == "torchvision"
    assert conversion.reinitialized == ["fc.weight", "fc.bias"]
    for key, value in model.backbone.state_dict().items():
        image = value.sum(2) if value.ndim == 5 else value
        torch.testing.assert_close(image, weights[key])


def test_video_weights_are_never_inflated():
    _, weights = thin_pair("mmaction2__tsn_r50_1x1x3")
    with pytest.raises(UserError, match=r"differ in shape or type \(backbone.* is float32 \(.*\), expected"):
        convert(weights, models.i3d_r50(num_classes=5, width=8))


def test_counters_may_be_absent():
    _, weights = thin_pair("mmaction2__tsn_r50_1x1x3")
    convert({k: v for k, v in weights.items() if "tracked" not in k}, models.tsn_r50(num_classes=5, width=8))


@pytest.mark.parametrize(
    ("public", "family"),
    [
        ("mmaction2__slowonly_r50_4x16x1", "tsn_r50"),
        ("mmaction2__tsn_r50_1x1x3", "tsn_r101"),
        ("mmaction2__tsn_r50_1x1x3", "slowfast_r50_4x16"),
        ("mmaction2__tsm_r50_1x1x8", "tsn_r50"),
        ("mmaction2__slowfast_r50_4x16x1", "slowonly_r50"),
        ("pyslowfast__SLOWFAST_4x16_R50", "i3d_r50"),
        ("pyslowfast__SLOW_8x8_R50", "slowfast_r50_8x8"),
        ("pyslowfast__C2D_8x8_R50", "slowonly_r50"),
        ("pytorchvideo__slow_r50", "r2plus1d_r50"),
        ("pytorchvideo__i3d_r50", "c2d_r50"),
        ("torchvision__r3d_18", "r2plus1d_r18"),
        ("torchvision__mc3_18", "r3d_r18"),
        ("tsm_mit__tsm_r50_8f", "tsn_r50"),
        ("tsm_mit__tsn_r50_8f", "tsm_r101"),
    ],
)
def test_weights_of_another_family_are_refused(public, family):
    _, weights = thin_pair(public)
    model = getattr(models, family)(num_classes=5, width=8)
    with pytest.raises(UserError, match=f"^{SOURCES[public.split('__')[0]]}'s [^\n]+$"):
        convert(weights, model)


def test_what_does_not_fit_is_named_with_what_is_nearest():
    model, weights = thin_pair("mmaction2__tsn_r50_1x1x3")
    weights["backbone.layer1.0.convv1.conv.weight"] = weights.pop("backbone.layer1.0.conv1.conv.weight")
    other = models.tsn_r50(num_classes=5, width=8)
    with untouched(other), pytest.raises(UserError) as error:
        convert(weights, other)
    assert (
        "1 have no place here (backbone.layer1.0.convv1.conv.weight; nearest: backbone.layer1.0.conv1.weight)"
        in str(error.value)
    )
    assert (
        "1 are missing (backbone.layer1.0.conv1.weight; nearest: backbone.layer1.0.convv1.conv.weight)"
        in str(error.value)
    )
    weights = dict(list(model.state_dict().items())[:-30])
    with untouched(other), pytest.raises(UserError, match=r"mmaction-lite's 290 weights .* 23 are missing"):
        convert(weights, other)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused(number):
    _, weights = thin_pair("mmaction2__tsn_r50_1x1x3")
    weights["backbone.layer2.1.conv2.bn.running_var"][3] = number
    other = models.tsn_r50(num_classes=5, width=8)
    with untouched(other), pytest.raises(UserError, match=r"backbone.layer2.1.bn2.running_var .* not finite"):
        convert(weights, other)


def test_other_precisions_are_cast_and_whole_numbers_refused():
    model, weights = thin_pair("mmaction2__tsn_r50_1x1x3")
    other = models.tsn_r50(num_classes=5, width=8)
    convert(
        {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}, other
    )
    torch.testing.assert_close(other.fc.weight, model.state_dict()["fc.weight"], rtol=1e-3, atol=0)
    assert other.fc.weight.dtype == torch.float32
    with pytest.raises(UserError, match=r"backbone.conv1.weight is int8 .*, expected float32"):
        convert(weights | {"backbone.conv1.conv.weight": weights["backbone.conv1.conv.weight"].char()}, other)


def test_unknown_origins_are_named():
    with pytest.raises(
        UserError, match=r"unknown origin, 1 entries such as encoder.weight; expected .* or mmaction-lite"
    ):
        convert({"encoder.weight": torch.ones(2)}, models.tsn_r10())


def test_two_entries_for_one_place_are_refused():
    _, weights = thin_pair("mmaction2__tsm_r50_1x1x8")
    weights["backbone.layer1.0.conv1.conv.weight"] = weights["backbone.layer1.0.conv1.conv.net.weight"] + 1
    with pytest.raises(UserError, match=r"1 have no place here \(backbone.layer1.0.conv1.conv.weight"):
        convert(weights, models.tsm_r50(num_classes=5, width=8))


@pytest.mark.parametrize(
    "public", ["mmaction2__slowfast_r50_4x16x1", "torchvision__r2plus1d_18", "tsm_mit__tsm_r50_8f"]
)
def test_mutated_names_and_shapes_are_refused(public):
    """Never another exception, and never a model filled with something else."""
    model, weights = thin_pair(public)
    rng = random.Random(0)
    fresh = build(public, width=8, num_classes=5)
    for _ in range(20):
        mutated = dict(weights)
        key = rng.choice(list(mutated))
        value = mutated.pop(key)
        if (kind := rng.randrange(4)) == 0:
            at = rng.randrange(len(key))
            mutated[key[:at] + rng.choice(".0129abst") + key[at + rng.randrange(2) :]] = value
        elif kind == 1:
            mutated[key] = value.reshape(-1)[: rng.randrange(2)]
        elif kind == 2:
            mutated[key] = value[None]
        elif key.endswith("tracked"):
            continue
        for entry in fresh.state_dict().values():
            entry.zero_()
        try:
            convert(mutated, fresh)
        except UserError as error:
            message = str(error)
            assert "\n" not in message
        else:
            assert_same(fresh, model)


class Own(nn.Module):
    """A network whose names begin like a wrapper's."""

    def __init__(self, num_classes: int = 3) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
        self.model.add_module("head", nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, num_classes)))


def test_a_network_defined_elsewhere_takes_its_own_weights():
    own, fresh = Own(), Own()
    randomize(own)
    for weights in (own.state_dict(), {"model": {f"module.{k}": v for k, v in own.state_dict().items()}}):
        conversion = convert(weights, fresh)
        assert_same(fresh, own)
        assert (conversion.source, conversion.reinitialized) == ("mmaction-lite", [])
    conversion = convert(own.state_dict(), Own(num_classes=7))
    assert conversion.reinitialized == ["model.head.2.weight", "model.head.2.bias"]
    with pytest.raises(UserError, match=r"mmaction-lite's 10 weights .* 1 are missing"):
        convert({k: v for k, v in own.state_dict().items() if k != "model.0.bias"}, fresh)


@pytest.mark.parametrize("public", DISTINCT)
def test_other_networks_weights_are_refused_by_a_network_defined_elsewhere(public):
    _, weights = thin_pair(public)
    own = Own()
    own.add_module("backbone", nn.Linear(1, 1))
    message = r"^[^\n]+'s (\d+ weights do not fit this model's 13: |weights are of a TSM, the model )[^\n]+$"
    with untouched(own), pytest.raises(UserError, match=message):
        convert(weights, own)


def test_a_network_with_the_names_of_another_project_is_tried_first():

    class Lookalike(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer1 = nn.ModuleList([nn.ModuleDict({"conv1": nn.Linear(2, 2)})])
            self.fc = nn.Linear(2, 3)

    own, fresh = Lookalike(), Lookalike()
    assert torchvision.matches(own.state_dict())
    assert convert(own.state_dict(), fresh).source == "mmaction-lite"
    assert_same(own, fresh)


def heads(source: tuple[str, ...] | None, target: tuple[str, ...] | None) -> tuple[Any, Tensor, Tensor]:
    """The conversion, and the biases of both classifiers after it; the source's are 0, 1 and 2."""
    model, fresh = models.tsn_r10(num_classes=3), models.tsn_r10(num_classes=3)
    nn.init.constant_(fresh.fc.bias, 7)
    model.fc.bias.data = torch.arange(3.0)
    conversion = convert(model.state_dict(), fresh, classes=target, source_classes=source)
    torch.testing.assert_close(fresh.backbone.state_dict(), model.backbone.state_dict(), rtol=0, atol=0)
    return conversion, fresh.fc.bias.detach(), fresh.fc.weight.detach() - model.fc.weight.detach()


def test_the_head_follows_the_class_names():
    conversion, bias, _ = heads(("a", "b", "c"), ("c", "a", "b"))
    assert bias.tolist() == [2, 0, 1]
    assert str(conversion).splitlines()[0].endswith("; head permuted to the order of the training classes")
    assert conversion.reinitialized == []
    conversion, bias, _ = heads(("a", "b", "c"), ("a", "b", "d"))
    assert bias.tolist() == [7, 7, 7]
    assert str(conversion).splitlines()[1] == "re-initialized: fc.weight, fc.bias (classes differ)"
    for source, target in (
        (("a", "b", "c"), ("a", "b", "c")),
        (None, ("a", "b", "c")),
        (("a", "b", "c"), None),
        (("0", "1", "2"), ("a", "b", "c")),  # numbers in place of names
    ):
        conversion, bias, difference = heads(source, target)
        assert bias.tolist() == [0, 1, 2]
        assert not difference.any()
        assert "differ" not in str(conversion)
        assert "permuted" not in str(conversion)

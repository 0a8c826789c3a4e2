"""The catalogue of public weights: complete, consistent, and of networks that exist."""

import gzip
import json
from functools import cache
from pathlib import Path

import pytest
import torch

import mmaction_lite
from mmaction_lite import list_recipes, models
from mmaction_lite.errors import UserError
from mmaction_lite.models.complexity import parameters
from mmaction_lite.recipes import get_recipe
from mmaction_lite.weights.catalogue import SOURCES, catalogue, class_names, find_entry, list_weights
from mmaction_lite.weights.named import card_for

PACKAGE = Path(mmaction_lite.__file__).parent
GOLDENS = Path(__file__).parents[1] / "goldens"
SOURCES_OF_GOLDENS = {"tsm_mit": "mit", "hf": "huggingface", "uniformerv2": "uniformerv2"} | {
    name: name for name in ("mmaction2", "pyslowfast", "pytorchvideo", "torchvision")
}
AVAILABLE = list_weights()
# The public weights that the catalogue was made from, as (URL, digits of SHA-256, top-1) of each source.
PUBLIC = json.loads((Path(__file__).parent / "public_weights.json").read_text(encoding="utf-8"))


@cache
def count(builder: str, arguments: str, num_classes: int) -> int:
    with torch.device("meta"):
        return parameters(getattr(models, builder)(num_classes=num_classes, **json.loads(arguments)))


def test_every_network_builds_and_has_the_stored_and_the_published_parameters():
    for entry in AVAILABLE.values():
        number = count(entry.builder, json.dumps(dict(entry.arguments)), len(entry.classes))
        assert number == entry.parameters, entry.name
        assert entry.published_parameters in (None, number), entry.name


# Millions of parameters with 400 classes that the projects publish.
PUBLISHED = {
    ("mmaction2", "tsn_r50", ""): 24.328,
    ("mmaction2", "tsm_r50", ""): 24.328,
    ("mmaction2", "i3d_r50", ""): 28.043,
    ("mmaction2", "i3d_r50", "dot_product"): 35.398,
    ("mmaction2", "slowonly_r50", ""): 32.454,
    ("mmaction2", "slowfast_r50_4x16", ""): 34.479,
    ("mmaction2", "slowfast_r50_8x8", ""): 34.566,
    ("mmaction2", "r2plus1d_r34", ""): 63.759,
    ("mmaction2", "c2d_r50", ""): 24.328,
    ("pytorchvideo", "c2d_r50", ""): 24.33,
    ("pytorchvideo", "i3d_r50_heavy", ""): 28.04,
    ("pytorchvideo", "slowonly_r50", ""): 32.45,
    ("pytorchvideo", "slowfast_r50_4x16", ""): 34.48,
    ("pytorchvideo", "slowfast_r50_8x8", ""): 34.57,
    ("pytorchvideo", "slowfast_r101_8x8", ""): 62.83,
    ("pytorchvideo", "r2plus1d_r50", ""): 28.11,
    ("mmaction2", "x3d_m", ""): 3.79,
    ("pytorchvideo", "x3d_xs", ""): 3.79,
    ("pytorchvideo", "x3d_m", ""): 3.79,
    ("pytorchvideo", "x3d_l", ""): 6.15,
}


def test_parameters_are_those_that_the_projects_publish():
    seen = set()
    for entry in list_weights(dataset="kinetics400").values():
        key = (entry.source, entry.builder, entry.arguments.get("non_local", ""))
        if key in PUBLISHED:
            seen.add(key)
            digits = len(str(PUBLISHED[key]).partition(".")[2])
            assert abs((entry.parameters or 0) / 1e6 - PUBLISHED[key]) <= 0.5001 * 10**-digits, entry.name
    assert seen == PUBLISHED.keys()


def test_every_url_and_hash_is_the_published_one():
    ours = {
        entry.url: (entry.sha256, entry.source)
        for entry in catalogue().values()
        if entry.source not in ("mit", "huggingface")
    }
    # One address of the public table begins with a stray parenthesis.
    assert ours == {url.lstrip("("): (digits, source) for source, url, digits in PUBLIC}
    for entry in catalogue().values():
        assert entry.url.startswith(("https://", "hf://"))
        if entry.source in ("mmaction2", "torchvision"):
            assert f"-{entry.sha256}." in entry.url, entry.name


def test_names_are_plain_and_end_with_their_source():
    assert len(catalogue()) > 150
    for name, entry in catalogue().items():
        assert name.endswith(f"@{entry.source}")
        assert entry.source in SOURCES
        assert "/" not in name
        assert entry.license


def test_every_available_entry_has_card_classes_and_proof():
    for entry in AVAILABLE.values():
        card = card_for(entry)
        assert card.classes == entry.classes
        assert len(set(card.classes)) == len(card.classes)
        assert bool(entry.recipe) != bool(entry.protocol)
        assert entry.golden is None or (GOLDENS / f"{entry.golden}.json.gz").is_file(), entry.name
        assert (entry.proof == "none") == (entry.golden is None) == ("mobilenet" in entry.builder)
        if entry.golden:
            content = json.loads(gzip.decompress((GOLDENS / f"{entry.golden}.json.gz").read_bytes()))
            assert entry.proof.startswith("logits") == ("logits" in content), entry.name
            assert ("another project" in entry.proof) == (
                SOURCES_OF_GOLDENS[entry.golden.split("__")[0]] != entry.source
            )
        assert entry.status == "converted by form only" or entry.verified
        assert entry.url.startswith("hf://" if entry.source == "huggingface" else "https://")
    for entry in catalogue().values():
        assert entry.is_available == bool(entry.builder) == (not entry.unavailable)


def test_a_name_that_is_also_a_recipe_has_its_network_protocol_and_result():
    recipes = list_recipes()
    shared = [entry for entry in AVAILABLE.values() if entry.name.partition("@")[0] in recipes]
    shared = [entry for entry in shared if entry.source == "mmaction2"]
    assert len(shared) >= 10
    for entry in shared:
        recipe = get_recipe(entry.name.partition("@")[0])
        assert entry.builder == recipe.model.builder.__name__
        if entry.recipe:
            assert card_for(entry).test == recipe.test_protocol


def test_class_names_are_those_of_the_weights():
    sizes = {name: len(class_names(name)) for name in ("kinetics400", "kinetics600", "kinetics700", "sthv1")}
    sizes |= {name: len(class_names(name)) for name in ("sthv2", "jester", "hmdb51", "ucf101", "imagenet")}
    assert list(sizes.values()) == [400, 600, 700, 174, 174, 27, 51, 101, 1000]
    assert class_names("kinetics400")[:2] == ("abseiling", "air drumming")
    # The authors of TSM sort the labels of Something-Something v1.
    entry = catalogue()["tsm_r50_1x1x8_45e_sthv1_rgb@mit"]
    assert entry.classes == tuple(sorted(class_names("sthv1"))) != class_names("sthv1")
    with pytest.raises(UserError, match="no class names of the data set 'kinetics40'; nearest: kinetics400"):
        class_names("kinetics40")


def test_filters_select_and_reject():
    assert {e.family for e in list_weights(family="tsm").values()} == {"tsm"}
    assert {e.source for e in list_weights(source="mit", dataset="sthv2").values()} == {"mit"}
    assert all("BSD" in e.license for e in list_weights(license="bsd").values())
    assert len(list_weights(unavailable=True)) == len(catalogue()) > len(AVAILABLE)
    for argument, value in (
        ("family", "tsn2"),
        ("dataset", "kinetic400"),
        ("source", "mm"),
        ("license", "xyz"),
    ):
        with pytest.raises(UserError, match=rf"no weights have the {argument} '{value}'; (nearest|valid): "):
            list_weights(**{argument: value})  # pyright: ignore[reportArgumentType]


def test_unknown_names_list_the_nearest():
    name = "tsm_r50_1x1x8_50e_kinetics400_rgb"
    assert find_entry(f"{name}@mmaction2").builder == "tsm_r50"
    with pytest.raises(UserError, match=f"nearest: {name}@mmaction2, "):
        find_entry("tsm_r50_1x1x8_50e_kinetics40_rgb@mmaction2")
    with pytest.raises(
        UserError, match=f"source of the weights is missing; expected {name}@mmaction2 or .*@mit"
    ):
        find_entry(name)
    with pytest.raises(UserError, match="cannot be loaded yet: no network CSN in this package"):
        find_entry("CSN_32x2_R101_kinetics400@pytorchvideo")


def test_licenses_that_forbid_commercial_use_are_marked():
    marked = {entry.family for entry in catalogue().values() if entry.non_commercial}
    assert marked == {"videomae", "videomaev2"}


def test_the_data_files_are_small():
    files = [PACKAGE / "weights" / "catalogue.json", *(PACKAGE / "weights" / "class_names").iterdir()]
    assert sum(path.stat().st_size for path in files) < 1_000_000

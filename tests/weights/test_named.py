"""Weights by name, from a mirror on this machine: `load`, `predict`, `--init-from` and `convert`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite import get_recipe, load, models, predict
from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r50
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import ModelCard, card_of, save_weights
from mmaction_lite.weights.catalogue import catalogue, class_names, list_weights
from mmaction_lite.weights.converters import convert, read_checkpoint
from mmaction_lite.weights.named import (
    card_for,
    converted_path,
    entry_for,
    fetch,
    fetch_original,
    locate,
    locate_checkpoint,
    locate_initial,
    original_path,
    recipe_for,
)
from tests.weights.public import image_weights, small_tsm
from tests.weights.test_goldens import draw, error, read, weights

TSM = "tsm_r50_1x1x8_50e_kinetics400_rgb@mit"
IMAGE = "resnet50@torchvision"
# One entry of each source and family whose reference output is known.
GOLDENS = {
    "tsn_r50_1x1x3_100e_kinetics400_rgb@mmaction2": "mmaction2__tsn_r50_1x1x3",
    "tsm_r50_1x1x8_50e_kinetics400_rgb@mmaction2": "mmaction2__tsm_r50_1x1x8",
    "i3d_r50_32x2x1_100e_kinetics400_rgb@mmaction2": "mmaction2__i3d_r50_32x2x1",
    "i3d_r50_nl_dot_product_32x2x1_100e_kinetics400_rgb@mmaction2": "mmaction2__i3d_r50_nl_dot_32x2x1",
    "slowonly_r50_4x16x1_256e_kinetics400_rgb@mmaction2": "mmaction2__slowonly_r50_4x16x1",
    "slowfast_r50_4x16x1_256e_kinetics400_rgb@mmaction2": "mmaction2__slowfast_r50_4x16x1",
    "r2plus1d_r34_8x8x1_180e_kinetics400_rgb@mmaction2": "mmaction2__r2plus1d_r34_8x8x1",
    "slowonly_r50_8x8_kinetics400_rgb@pytorchvideo": "pytorchvideo__slow_r50",
    "x3d_m_16x5_kinetics400_rgb@pytorchvideo": "pytorchvideo__x3d_m",
    "r2plus1d_r18_16_15fps_kinetics400_rgb@torchvision": "torchvision__r2plus1d_18",
    "swin3d_tiny_32_15fps_kinetics400_rgb@torchvision": "torchvision__swin3d_t",
    "mvit_v2_s_kinetics400_v1@torchvision": "torchvision__mvit_v2_s",
    "tsm_r50_1x1x8_50e_kinetics400_rgb@mit": "tsm_mit__tsm_r50_8f",
}


def as_published(source: str, state_dict: dict) -> dict:
    """A checkpoint as the project nests it."""
    if source == "mit":
        return {"epoch": 50, "state_dict": {f"module.{key}": value for key, value in state_dict.items()}}
    if source == "mmaction2":
        return {"meta": {"epoch": 50}, "state_dict": state_dict}
    return {"model_state": state_dict} if source == "pytorchvideo" else state_dict


@pytest.fixture
def tsm(publish):
    return publish(TSM, small_tsm(), arguments={"width": 8})


def test_load_downloads_converts_and_keeps_card_and_random_state(tsm, server, cache_dir):
    state = torch.get_rng_state()
    model = load(TSM)
    assert torch.equal(torch.get_rng_state(), state)
    card = card_of(model)
    assert card.classes == class_names("kinetics400")
    assert (card.builder, card.recipe) == ("tsm_r50", TSM)
    assert card.test == card_for(tsm).test
    assert str(card.test).startswith("1x1x8 frames: 1 clip × 10 crops (TenCrop 224x224")
    assert card.started_from == original_path(tsm).name
    assert not model.training
    files = {path.suffix for path in original_path(tsm).parent.iterdir()}
    assert {".pth", ".safetensors"} <= files
    original_path(tsm).unlink()  # the converted file is enough
    load(TSM)
    assert len(server.requests) == 1


def test_predict_by_name_prints_labels_of_kinetics(tsm, capsys):
    result = predict(TSM, np.zeros((9, 64, 80, 3), np.uint8), device="cpu")
    assert set(result.labels) == set(class_names("kinetics400"))


def test_a_checkpoint_that_is_not_the_entrys_is_refused(publish, cache_dir):
    entry = publish(TSM, small_tsm(174), arguments={"width": 8})
    with pytest.raises(UserError, match=f"{TSM}: .*the classifier has 174 classes; expected 400"):
        load(TSM)
    assert not converted_path(entry).exists()
    other = "tsm_r50_1x1x8_50e_kinetics400_rgb@mmaction2"
    publish(other, small_tsm(), arguments={"width": 8})
    with pytest.raises(UserError, match=r"names of MIT TSM.*; expected all weights under names of MMAction2"):
        load(other)


def test_a_hostile_file_is_not_executed(publish, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    publish(TSM, {"state_dict": Bomb()}, arguments={"width": 8})
    with pytest.raises(UserError, match=TSM):
        load(TSM)
    assert not (tmp_path / "executed").exists()


def test_a_hash_mismatch_is_reported_with_the_name(publish):
    publish(IMAGE, image_weights(), sha256="0676ba61")
    with pytest.raises(UserError, match=f"{IMAGE}: .*wrong SHA-256: expected 0676ba61, found "):
        load(IMAGE)


def test_paths_come_before_names(tmp_path, monkeypatch, tsm):
    monkeypatch.chdir(tmp_path)
    Path("x.safetensors").touch()
    assert locate("x.safetensors") == Path("x.safetensors")
    assert locate(Path("none") / "x") == Path("none/x")
    assert locate("none.pt") == Path("none.pt")
    Path(TSM).mkdir()  # not a run folder
    assert locate(TSM) == converted_path(tsm)
    (Path(TSM) / "best.pt").touch()
    assert locate(TSM) == Path(TSM)
    with pytest.raises(UserError, match=r"^mine: no such file, run folder or public weights; "):
        load("mine")
    with pytest.raises(UserError, match="imagenet: an alias of --init-from"):
        load("imagenet")


@pytest.mark.parametrize("as_path", [False, True])
def test_addresses_are_downloaded(server, cache_dir, recipe, tmp_path, as_path):
    card = ModelCard.of(recipe, ("down", "up"))
    save_weights(tmp_path / "a.safetensors", card.build().state_dict(), card)
    server.files["/a.safetensors"] = (tmp_path / "a.safetensors").read_bytes()
    url = server.url("/a.safetensors")
    model = load(Path(url) if as_path else url)  # a Path has lost one slash of the address
    assert card_of(model).classes == ("down", "up")
    assert locate_checkpoint(url)[1] is None


@pytest.mark.parametrize(
    "given", ["https://[host/x.pth", "https://host:99999/x.pth", "n" * 300, "https://h/" + "n" * 300]
)
def test_addresses_and_names_that_nothing_can_have_are_one_line(given, cache_dir):
    for find in (
        locate,
        locate_checkpoint,
        lambda text: locate_initial(text, get_recipe("tsm_r10_1x1x8_12e_motions_rgb")),
    ):
        with pytest.raises(UserError, match=r"check the path, name or address$"):
            find(given)


def test_messages_hide_the_password_of_an_address(cache_dir, monkeypatch):
    monkeypatch.setenv("MMACTION_LITE_OFFLINE", "1")
    for end in ("/x.pth", "/x.pth#sha256=no", "/"):
        with pytest.raises(UserError) as caught:
            locate(f"https://user:secret@host{end}")
        assert "secret" not in str(caught.value)
        assert "https://host/" in str(caught.value)


def test_image_networks_start_trainings_as_their_project_publishes_them(publish):
    entry = publish(IMAGE, image_weights(), arguments={"width": 8})
    recipe = get_recipe("i3d_r50_32x2x1_100e_kinetics400_rgb")
    path = locate_initial("imagenet", recipe)
    assert path == original_path(entry)
    conversion = convert(read_checkpoint(path), models.i3d_r50(num_classes=3, width=8))
    assert conversion.reinitialized == ["fc.weight", "fc.bias"]
    card = card_of(load(IMAGE))
    assert card.classes == class_names("imagenet")


def test_trained_weights_start_trainings_with_their_class_names(tsm):
    recipe = get_recipe("tsm_r50_1x1x8_25e_ucf101_rgb")
    assert locate_initial(TSM, recipe) == converted_path(tsm)
    assert locate_initial("some/file.pth", recipe) == Path("some/file.pth")


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("tsm_r50_1x1x8_50e_kinetics400_rgb", "resnet50"),
        ("tsn_r50_1x1x3_100e_kinetics400_rgb", "resnet50"),
        ("i3d_r50_heavy_8x8x1_196e_kinetics400_rgb", "resnet50"),
        ("slowonly_r50_4x16x1_256e_kinetics400_rgb", "resnet50"),
        ("slowfast_r50_4x16x1_256e_kinetics400_rgb", None),
        ("r2plus1d_r34_8x8x1_180e_kinetics400_rgb", None),
        ("tsn_r10_1x1x8_12e_motions_rgb", None),
    ],
)
def test_imagenet_is_the_network_that_the_recipe_starts_from(recipe, expected):
    chosen = get_recipe(recipe)
    if expected is None:
        with pytest.raises(
            UserError, match=f"imagenet: no public image network fits {chosen.model.builder.__name__}"
        ):
            entry_for("imagenet", chosen)
    else:
        assert entry_for("imagenet", chosen).name == f"{expected}@torchvision"
        assert chosen.starts_from in (None, "ImageNet ResNet-50")


def test_imagenet_follows_depth_and_kind_of_the_network():
    base = get_recipe("tsm_r50_1x1x8_50e_kinetics400_rgb")
    for builder, name in (
        ("tsm_r18", "resnet18"),
        ("tsn_r101", "resnet101"),
        ("tsm_mobilenetv2", "mobilenetv2"),
    ):
        recipe = replace(base, model=Build(getattr(models, builder)))
        assert entry_for("imagenet", recipe).name == f"{name}@torchvision"


def test_kinetics400_is_the_best_entry_of_the_network_and_its_clips():
    best = entry_for("kinetics400", get_recipe("slowonly_r50_8x8x1_256e_kinetics400_rgb"))
    assert best.builder == "slowonly_r50"
    assert best.top1 == max(
        entry.top1 or 0
        for entry in list_weights(dataset="kinetics400").values()
        if entry.builder == "slowonly_r50"
    )
    four = entry_for("kinetics400", get_recipe("slowonly_r50_4x16x1_256e_kinetics400_rgb"))
    assert card_for(four).test.views.clips.clip_len == 4
    tsm = entry_for("kinetics400", get_recipe("tsm_r50_1x1x8_25e_ucf101_rgb"))
    assert tsm.name == "tsm_r50_1x1x8_100e_kinetics400_rgb@mmaction2"  # not one of dense clips
    with pytest.raises(UserError, match=r"kinetics400: no public weights of tsm_r10 .*nearest: tsm_r50"):
        entry_for("kinetics400", get_recipe("tsm_r10_1x1x8_12e_motions_rgb"))


def test_the_converted_file_changes_with_the_entry(tsm):
    other = replace(tsm, arguments={"width": 16})
    assert converted_path(other) != converted_path(tsm)
    assert converted_path(replace(tsm, top1=1.0)) == converted_path(tsm)
    recipe = recipe_for(tsm)
    assert recipe.model == Build(tsm_r50, width=8)
    assert recipe.test_protocol == card_for(tsm).test


@pytest.mark.parametrize("name", list(list_weights()))
def test_every_card_survives_the_file_format(name):
    card = card_for(catalogue()[name])
    assert ModelCard.from_json(card.to_json()) == card
    assert recipe_for(catalogue()[name]).test_protocol == card.test


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDENS)
def test_load_by_name_gives_the_logits_of_the_reference(name, publish):
    golden = read(GOLDENS[name])
    publish(name, as_published(name.partition("@")[2], weights(golden)))
    model = load(name)
    with torch.inference_mode():
        assert error(model(draw(golden["input_shape"], 0, GOLDENS[name])), golden["logits"]) <= 1e-5
    card = card_of(model)
    assert card.classes == class_names("kinetics400")
    assert json.loads(card.to_json())["recipe"] == name
    assert card.test == card_for(catalogue()[name]).test


def test_the_entries_of_the_reference_outputs_cover_every_source_and_family():
    known = {(name.partition("@")[2], name.partition("_")[0]) for name in GOLDENS}
    assert known >= {
        (entry.source, entry.family)
        for entry in list_weights(dataset="kinetics400").values()
        if entry.golden and "logits" in read(entry.golden)
    } - {("pytorchvideo", "slowfast"), ("mmaction2", "uniformerv2")}  # reference outputs of other projects
    assert fetch
    assert fetch_original

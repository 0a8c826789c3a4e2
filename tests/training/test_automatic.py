"""Trainings without a recipe: facts, choice, full command."""

import json
import shlex
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch

from mmaction_lite.data.views.crops import CenterCrop
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.models import probe_linear, tsm_r10
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.finetune import finetune
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.recipes.probe import probe
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.tasks.reconstruction import CLASSES
from mmaction_lite.training import automatic, estimates
from mmaction_lite.training.automatic import (
    Choice,
    adapt_recipe,
    choose_or_continue,
    choose_training,
    read_choice,
)
from mmaction_lite.training.clips import read_training_split
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.catalogue import find_entry
from mmaction_lite.weights.named import converted_path, entry_for

MOTIONS = "tsm_r10_1x1x8_12e_motions_rgb"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """No weights on disk, and no connection."""
    monkeypatch.setenv("MMACTION_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MMACTION_LITE_OFFLINE", "1")


@pytest.fixture
def weights(tiny, tmp_path):
    """A weights file of a thin network that was trained with a recipe of the package."""
    recipe = get_recipe(MOTIONS)
    card = ModelCard.of(recipe, ("down", "up"))
    card = replace(card, arguments=card.arguments | {"width": 12})
    torch.manual_seed(0)
    save_weights(tmp_path / "first.safetensors", tsm_r10(num_classes=2, width=12).state_dict(), card)
    return str(tmp_path / "first.safetensors")


def chosen(tiny, out, **options) -> tuple[Choice, str]:
    lines = []
    arguments = {"init_from": None, "device": "cpu", "report": lines.append}
    return choose_training(tiny, out, **arguments | options), "\n".join(lines)


def test_without_weights_a_small_network_is_trained_from_nothing(tiny, tmp_path):
    choice, printed = chosen(tiny, tmp_path / "run")
    assert choice == Choice("from nothing", MOTIONS, None, ("batch_size=4", "optimizer.lr=0.004"))
    assert (
        "found 12 training clips, 2 classes with 6 clips each (median), 16 frames of short side 48" in printed
    )
    assert "no public weights on disk, and downloads are forbidden" in printed
    assert f"chosen: from nothing with {MOTIONS}, because there are no trained weights" in printed
    command = (
        f"mmaction-lite train {MOTIONS} --set batch_size=4 --set optimizer.lr=0.004 --data {tiny} --out "
    )
    assert command + str(tmp_path / "run") in printed
    assert read_choice(tmp_path / "run") == choice


def test_given_weights_are_fine_tuned_with_their_recipe(tiny, tmp_path, weights):
    choice, printed = chosen(tiny, tmp_path / "run", init_from=weights)
    assert choice == Choice("fine-tune", MOTIONS, weights, ("model.width=12",))
    assert "--finetune --init-from" in printed
    assert shlex.join(choice.options) in printed


def test_weights_of_a_pre_training_start_the_network_that_it_is_for(tiny, tmp_path):
    recipe = get_recipe("videomae_pretrain_small_16x4x1_1600e_kinetics400_rgb")
    recipe = replace(recipe, model=Build(recipe.model.builder, width=12, depth=1, heads=3, target="clip"))
    card = ModelCard.of(recipe, CLASSES)
    save_weights(tmp_path / "pre.safetensors", card.build().state_dict(), card)
    choice, printed = chosen(tiny, tmp_path / "run", init_from=str(tmp_path / "pre.safetensors"))
    assert choice.recipe == "videomae_small_16x4x1_150e_kinetics400_rgb"
    assert choice.settings[:3] == ("model.width=12", "model.depth=1", "model.heads=3")
    assert "model.target" not in printed


def test_a_method_that_is_asked_for_is_taken(tiny, tmp_path, weights, monkeypatch):
    monkeypatch.setattr(estimates, "CORE_SPEED", 1.0)  # multiply-adds per second
    choice, printed = chosen(tiny, tmp_path / "run", init_from=weights)
    assert choice.method == "probe"
    assert choice.options == [MOTIONS, "--probe", "--init-from", weights]
    choice, printed = chosen(tiny, tmp_path / "other", init_from=weights, method="fine-tune")
    assert choice.method == "fine-tune"
    assert "because you asked for it; the rules choose probe, because fine-tuning would take" in printed


def test_public_weights_on_disk_are_taken_and_downloads_are_announced(tiny, tmp_path, monkeypatch):
    default = entry_for("kinetics400", get_recipe(automatic.PRETRAINED))
    monkeypatch.delenv("MMACTION_LITE_OFFLINE")
    choice, printed = chosen(tiny, tmp_path / "a")
    assert choice.init_from == default.name
    assert f"downloads {default.name} ({default.license}) from {default.url}" in printed
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("MMACTION_LITE_OFFLINE", "1")
    other = find_entry("slowfast_r50_8x8_kinetics400_rgb@pytorchvideo")
    for entry in (other, default):
        converted_path(entry).parent.mkdir(parents=True, exist_ok=True)
        converted_path(entry).touch()
        choice, printed = chosen(tiny, tmp_path / entry.name)
        assert choice.init_from == entry.name
        assert f"public weights on disk: {entry.name}" in printed


def few(tiny, folder, clips):
    """A data set of one validation clip and few training clips."""
    for split, count in (("train", clips), ("val", 2)):
        for name in ("down", "up"):
            (folder / split / name).mkdir(parents=True)
        for i, file in zip(range(count), sorted((tiny / "train").glob("*/*")) * 2, strict=False):
            target = folder / split / ("down", "up")[i % 2] / f"{i}{file.suffix}"
            (shutil.copytree if file.is_dir() else shutil.copy)(file, target)
    return folder


@pytest.mark.parametrize("clips", [2, 3])
def test_few_clips_train_a_probe(tiny, tmp_path, weights, clips):
    data = few(tiny, tmp_path / "few", clips)
    assert chosen(data, tmp_path / "a", init_from=weights)[0].method == "probe"
    choice, printed = chosen(data, tmp_path / "b", init_from=weights, method="probe")
    assert choice.method == "probe"
    assert "you asked for it" not in printed
    with pytest.raises(
        UserError, match=f"number of training clips is {clips}; .*from nothing. Add clips, or"
    ):
        chosen(data, tmp_path / "c")
    with pytest.raises(UserError, match=f"fine-tuning: the number of training clips is {clips}; expected at"):
        chosen(data, tmp_path / "d", init_from=weights, method="fine-tune")


def test_weights_of_a_probe_train_another_probe(tiny, tmp_path):
    recipe = get_recipe("probe_linear_1x1x8_50e_own_rgb")
    given = (("width", 12), ("dropout", 0.0))
    recipe = replace(recipe, model=Build(probe_linear, encoder="tsm_r10", arguments=given))
    card = ModelCard.of(recipe, ("down", "up"))
    file = tmp_path / "probe.safetensors"
    save_weights(file, card.build().state_dict(), card)
    for method in (None, "probe"):
        choice, printed = chosen(tiny, tmp_path / str(method), init_from=str(file), method=method)
        assert choice.method == "probe"
        assert choice.recipe.startswith("tsm_r10_")
        assert "because the initial weights are of a probe" in printed
    with pytest.raises(UserError, match=r"probe\.safetensors: holds a probe, .*or omit --finetune"):
        chosen(tiny, tmp_path / "run", init_from=str(file), method="fine-tune")
    with pytest.raises(UserError, match=r"trains a probe, whose encoder stays frozen; .*omit --finetune"):
        finetune(recipe, 12)


def test_probes_have_no_window(tiny, tmp_path):
    card = ModelCard.of(replace(get_recipe(MOTIONS), window=1), ("down", "up"))
    file = tmp_path / "window.safetensors"
    save_weights(file, tsm_r10(num_classes=2, width=16).state_dict(), card)
    for method, settings in (("fine-tune", ("window=1",)), ("probe", ())):
        choice, _ = chosen(tiny, tmp_path / method, init_from=str(file), method=method)
        assert choice.settings == settings
    tuned = probe(get_recipe(MOTIONS), len(read_training_split(tiny)))
    assert apply_overrides(tuned, list(choice.settings)).window is None


def test_long_clips_are_noted(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "LONG_CLIP", 15)
    assert "note: clips have 16 frames; a network sees a few" in chosen(tiny, tmp_path / "run")[1]


def test_adapters_of_a_transformer_need_no_layer_decay(tiny):
    samples = read_training_split(tiny)
    assert automatic._settings("lora", get_recipe(MOTIONS), samples)[0] == "lora.rank=8"


def test_nothing_is_written_into_a_foreign_folder(tiny, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "choice.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"notes: is already used, and not by a run: it contains choice\.json"
    ):
        chosen(tiny, tmp_path / "notes")
    with pytest.raises(UserError, match=r"run: has no choice\.json; expected the recipe of the run"):
        read_choice(tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "choice.json").write_text(json.dumps({"method": 1}))
    with pytest.raises(UserError, match=r"choice\.json: .*pass the recipe of the run as the first argument"):
        read_choice(tmp_path / "run")


def test_batch_sizes_can_be_divided_over_the_processes(tiny, tmp_path, weights, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert chosen(tiny, tmp_path / "a")[0].settings == ("batch_size=3", "optimizer.lr=0.003")
    choice = chosen(tiny, tmp_path / "b", init_from=weights)[0]
    assert choice.settings == ("model.width=12", "batch_size=3")
    assert chosen(tiny, tmp_path / "c", init_from=weights, method="probe")[0].settings == ("batch_size=3",)


def test_views_are_those_of_weights_for_another_size(tiny, tmp_path):
    recipe = get_recipe("videomae_small_16x4x1_150e_kinetics400_rgb")
    views = replace(
        recipe.val,
        clips=replace(recipe.val.clips, clip_len=8),  # pyright: ignore[reportCallIssue]
        crop=CenterCrop(size=(48, 48)),
        short_side=48,
        interpolation="bicubic",
    )
    recipe = replace(
        recipe,
        model=Build(recipe.model.builder, width=24, depth=1, heads=3),
        val=views,
        test=views,
        normalize=Normalize(mean=(1.0, 2.0, 3.0)),
    )
    card = ModelCard.of(recipe, ("down", "up"))
    save_weights(tmp_path / "small.safetensors", card.build().state_dict(), card)
    for method in ("fine-tune", "probe"):
        out = tmp_path / method
        choice, printed = chosen(tiny, out, init_from=str(tmp_path / "small.safetensors"), method=method)
        assert "views are sized as those of the weights: 8x4x" in printed
        base = get_recipe(choice.recipe)
        adapted = {"fine-tune": finetune, "probe": probe}[method](base, 12)
        full = apply_overrides(adapted, choice.settings)
        assert full.train.view_shape == full.val.view_shape == full.test.view_shape == (8, 48, 48, 3)
        assert full.val == views
        assert full.test.interpolation == full.train.interpolation == "bicubic"
        assert full.normalize == recipe.normalize
        assert shlex.join(choice.options) in printed


def test_an_interrupted_run_continues_its_choice(tiny, tmp_path):
    choose = partial(choose_or_continue, tiny, init_from=None, device="cpu", report=[].append)
    choice = choose(tmp_path / "run", is_chosen=False)
    assert choice == chosen(tiny, tmp_path / "other")[0]
    assert choose(tmp_path / "run", is_chosen=True) == choice
    with pytest.raises(UserError, match=r"expected the recipe of the run as the first argument"):
        choose(tmp_path / "new", is_chosen=True)


def test_recipes_are_adapted_by_the_method_and_then_by_the_settings(tiny, tmp_path):
    recipe = get_recipe(MOTIONS)
    settings = ("batch_size=3", "optimizer.lr=0.5")
    tuned, probed = (apply_overrides(adapt(recipe, 12), settings) for adapt in (finetune, probe))
    assert tuned != probed
    assert adapt_recipe(recipe, tiny, "fine-tune", settings) == tuned
    assert adapt_recipe(recipe, tiny, "lora", settings) == tuned
    assert adapt_recipe(recipe, tiny, "probe", settings) == probed
    # The other methods do not read the data.
    unread = tmp_path / "gone"
    assert adapt_recipe(recipe, unread, None, settings) == apply_overrides(recipe, settings)
    assert adapt_recipe(recipe, unread, "from nothing", settings) == apply_overrides(recipe, settings)

"""Public weights in folders of the Hugging Face Hub, by name, with a stand-in for its client."""

import dataclasses
import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from mmaction_lite import get_recipe
from mmaction_lite.errors import UserError
from mmaction_lite.models import vjepa2_large
from mmaction_lite.weights import catalogue, named
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.catalogue import class_names
from tests.weights.test_huggingface_vjepa import in_transformers

NAME = "vjepa2-vitl-fpc16-256-ssv2@huggingface"
THIN: dict[str, Any] = {"segments": 2, "width": 32, "depth": 1, "heads": 2, "pool_depth": 1}


@pytest.fixture
def hub(tmp_path, monkeypatch, cache_dir) -> Any:
    """A thin folder of the Hub; returns the network, the folder, and the requested files."""
    torch.manual_seed(0)
    model = vjepa2_large(num_classes=174, **THIN)
    weights = {name: value.contiguous() for name, value in in_transformers(model.state_dict()).items()}
    folder, requests = tmp_path / "snapshot", []
    folder.mkdir()
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    labels = {str(i): name for i, name in enumerate(reversed(class_names("sthv2")))}
    (folder / "config.json").write_text(json.dumps({"id2label": labels, "frames_per_clip": 16}))

    def hf_hub_download(repo, file, *, revision, local_files_only):
        requests.append((repo, file))
        return str(folder / file)

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(hf_hub_download=hf_hub_download))
    entries = dict(catalogue.catalogue())
    entries[NAME] = dataclasses.replace(entries[NAME], arguments=THIN)
    monkeypatch.setattr(catalogue, "catalogue", lambda: entries)
    monkeypatch.setattr(named, "catalogue", lambda: entries)
    return SimpleNamespace(model=model.eval(), folder=folder, requests=requests)


def test_a_classifier_is_loaded_with_the_classes_of_its_config(hub):
    model = load(NAME)
    card, recipe = card_of(model), get_recipe("vjepa2_large_16x4x2_20e_sthv2_rgb")
    assert card.classes == tuple(reversed(class_names("sthv2")))
    assert card.test == recipe.test_protocol
    assert card.arguments["pool_eps"] == 1e-6
    repo = "facebook/vjepa2-vitl-fpc16-256-ssv2"
    assert hub.requests == [(repo, "model.safetensors"), (repo, "config.json")]
    hub.model.pooler.adapt(heads=model.pooler.heads, eps=1e-6)  # pyright: ignore
    x = torch.rand(1, 3, 4, 32, 32)
    torch.testing.assert_close(model(x), hub.model(x))
    load(NAME)
    assert len(hub.requests) == 2  # the converted file is in the cache
    assert named.locate_checkpoint(NAME)[0] == hub.folder


def test_a_folder_without_class_names_is_one_line(hub):
    (hub.folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match=rf"{NAME}: config\.json names 0 classes; expected 174"):
        load(NAME)


def test_a_repository_that_changes_meanwhile_is_one_line(hub, monkeypatch, tmp_path):
    def other(repo, file, *, revision, local_files_only):
        folder = hub.folder if file.startswith("model") else tmp_path
        (tmp_path / "config.json").write_text("{}")
        return str(folder / file)

    monkeypatch.setattr(sys.modules["huggingface_hub"], "hf_hub_download", other)
    with pytest.raises(UserError, match="the repository changed between the downloads"):
        load(NAME)

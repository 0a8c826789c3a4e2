"""The views of a weights file are found without PyTorch, and everything unusual is left to `load`."""

import json
import os
from dataclasses import replace

import pytest
import torch

from mmaction_lite.data.views.samplers import SegmentFrames
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.card_views import VIEW_TYPES, peek_views, unpack
from mmaction_lite.weights.checkpoint import save_state


@pytest.fixture
def card(recipe):
    return ModelCard.of(recipe, ("down", "up"))


def test_the_views_of_files_and_run_folders_are_found(card, tmp_path):
    save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(2)}, card)
    save_state(tmp_path / "best.pt", {"model": {"a": torch.zeros(2)}, "card": card.to_json(), "step": 1})
    for given in (tmp_path / "w.safetensors", tmp_path / "best.pt", tmp_path):
        assert peek_views(given) == card.test.views


def test_other_files_have_no_views(card, tmp_path):
    file = tmp_path / "w.safetensors"
    save_weights(file, {"a": torch.zeros(2)}, card)
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:20])
    assert peek_views(tmp_path / "cut.safetensors") is None
    assert peek_views("tsm_r50@mmaction2") is None
    if hasattr(os, "mkfifo"):  # opening it waits for a writer
        os.mkfifo(tmp_path / "pipe.safetensors")
        assert peek_views(tmp_path / "pipe.safetensors") is None
    large = replace(card.test.views, short_side=4000, clips=SegmentFrames(num_segments=1000))
    save_weights(file, {"a": torch.zeros(2)}, replace(card, test=replace(card.test, views=large)))
    assert peek_views(file) is None


def test_only_known_types_are_created():
    with pytest.raises(ValueError, match="unknown type 'Popen'"):
        unpack(json.loads('{"type": "Popen"}'), VIEW_TYPES)

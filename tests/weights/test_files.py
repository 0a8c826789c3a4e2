"""What checkpoint files hold besides tensors; hostile and damaged ones are in `test_pickles`."""

import pytest
import safetensors.torch
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.checkpoint import save_state
from mmaction_lite.weights.converters.files import find_state_dict, read_checkpoint, stored_classes


def test_class_names_are_read_from_every_file_of_this_package(recipe, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    weights = tsm_r10(num_classes=2).state_dict()
    save_weights(tmp_path / "a.safetensors", weights, card)
    save_state(tmp_path / "last.pt", {"card": card.to_json(), "model": weights})
    for name in ("a.safetensors", "last.pt"):
        assert stored_classes(tmp_path / name, read_checkpoint(tmp_path / name)) == ("down", "up")


def test_other_files_have_no_class_names(tmp_path):
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    assert stored_classes(tmp_path / "a.safetensors", read_checkpoint(tmp_path / "a.safetensors")) is None
    for card in (None, 3, "no JSON", "[]", "{}", '{"classes": "ab"}', '{"classes": [1, 2]}'):
        assert stored_classes(tmp_path / "x.pt", {"card": card}) is None


def test_prefixes_of_wrappers_are_removed_unless_the_network_has_them():
    one = torch.ones(1)
    wrapped = {"state_dict": {"module.model.a": one, "module.model.b": one}}
    assert find_state_dict(wrapped) == {"a": one, "b": one}
    assert set(find_state_dict({"module.model.a": one}, known=["model.a"])) == {"model.a"}
    assert set(find_state_dict({"model.a": one}, known=["model.a"])) == {"model.a"}
    with pytest.raises(UserError, match="holds no weights"):
        find_state_dict({"epoch": 3})

"""Checkpoints to weights files."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mmaction_lite import weights
from mmaction_lite.errors import UserError
from mmaction_lite.models import tsn_r10
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights import Conversion, convert, load
from mmaction_lite.weights.card import ModelCard, card_of, save_weights
from mmaction_lite.weights.conversion import convert_file


class Own(nn.Module):
    """A network that no project knows."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 1)
        self.classify = nn.Linear(4, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.conv(x).mean((2, 3, 4)))


@pytest.mark.parametrize("builder", [tsn_r10, Own])
def test_a_checkpoint_becomes_a_weights_file(builder, recipe, tmp_path):
    recipe, model = replace(recipe, model=Build(builder)), builder(num_classes=3)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "x.pth")
    conversion = convert_file(tmp_path / "x.pth", recipe, tmp_path / "x.safetensors", ["a", "b", "c"])
    assert isinstance(conversion, Conversion)
    assert conversion.source == "mmaction-lite"
    loaded = load(tmp_path / "x.safetensors", recipe)
    assert (card_of(loaded).classes, card_of(loaded).started_from) == (("a", "b", "c"), "x.pth")
    torch.testing.assert_close(loaded.state_dict(), model.state_dict(), rtol=0, atol=0)
    with pytest.raises(UserError, match=r"x\.safetensors: expected a new file"):
        convert_file(tmp_path / "x.pth", recipe, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"x\.pth: the classifier has 3 classes; expected 2"):
        convert_file(tmp_path / "x.pth", recipe, tmp_path / "y.safetensors", ["a", "b"])
    backbone = {k: v for k, v in model.state_dict().items() if not k.startswith(("fc.", "classify."))}
    torch.save(backbone, tmp_path / "y.pth")
    with pytest.raises(UserError, match=r"y\.pth: no classifier"):
        convert_file(tmp_path / "y.pth", recipe, tmp_path / "y.safetensors")


def test_stored_class_names_are_kept(recipe, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    save_weights(tmp_path / "a.safetensors", card.build().state_dict(), card)
    convert_file(tmp_path / "a.safetensors", recipe, tmp_path / "b.safetensors")
    assert card_of(load(tmp_path / "b.safetensors")).classes == ("down", "up")


def test_the_package_exports_the_conversion():
    model = tsn_r10()
    assert convert(model.state_dict(), tsn_r10()).reinitialized == []
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        weights.nothing  # noqa: B018  # pyright: ignore


def test_classes_without_names_are_numbered_and_the_recipes_protocol_is_stored(recipe, tmp_path):
    recipe = replace(recipe, model=Build(tsn_r10))
    torch.save({"state_dict": tsn_r10(num_classes=3).state_dict()}, tmp_path / "x.pth")
    convert_file(tmp_path / "x.pth", recipe, tmp_path / "x.safetensors")
    card = card_of(load(tmp_path / "x.safetensors"))
    assert card.classes == ("0", "1", "2")
    assert card.test.views == recipe.test
    for wrong in (tmp_path / "w.pt", tmp_path / "none" / "w.safetensors"):
        with pytest.raises(UserError, match=r"expected a new file ending in \.safetensors"):
            convert_file(tmp_path / "x.pth", recipe, wrong)

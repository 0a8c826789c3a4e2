"""Output and options that all commands share."""

import json

import pytest
import torch

from mmaction_lite.cli.options import console, own_recipe, print_json, start, track, warn
from mmaction_lite.errors import UserError
from mmaction_lite.recipes import list_recipes


def test_results_and_messages_have_streams_of_their_own(capsys):
    print_json({"names": ["跑步"]})
    warn("note: one line")
    console().print("for people")
    output, error = capsys.readouterr()
    assert json.loads(output) == {"names": ["跑步"]}
    assert "跑步" in output
    assert error == "note: one line\nfor people\n"


def test_tracked_items_are_the_items(capsys):
    assert list(track(iter("abc"), 3, "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""


def test_start_returns_the_device():
    assert start("cpu") == torch.device("cpu")


def test_the_recipe_of_a_model_of_your_own_is_optional():
    assert own_recipe(None) is None
    name, recipe = next(iter(list_recipes().items()))
    assert own_recipe(name) == recipe
    with pytest.raises(UserError, match=r"no_recipe"):
        own_recipe("no_recipe")

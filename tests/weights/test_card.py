import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from mmaction_lite import load
from mmaction_lite.data.views.crops import RandomCrop
from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10, tsn_r10
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import ModelCard, card_of, save_weights


@pytest.fixture
def card(recipe):
    return ModelCard.of(recipe, ("down", "up"))


@pytest.fixture
def weights(card, tmp_path):
    path = tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    save_weights(path, card.build().state_dict(), card)
    return path


def test_a_card_survives_json(card, recipe):
    again = ModelCard.from_json(card.to_json())
    assert again == card
    assert (again.builder, again.arguments["width"], again.arguments["num_classes"]) == ("tsm_r10", 8, 2)
    assert (again.test, again.val, again.classes) == (
        recipe.test_protocol,
        recipe.val_protocol,
        ("down", "up"),
    )


def test_weights_load_without_anything_else(weights, card):
    model = load(weights)
    assert card_of(model) == card
    assert not model.training
    torch.manual_seed(0)
    for name, tensor in card.build().state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_bad_weights_are_one_line(weights, card, tmp_path, recipe):
    whole = weights.read_bytes()
    cases = {
        "cut.safetensors": (whole[:-100], "is damaged or not a safetensors file"),
        "text.pt": (b"hello", "is damaged or not a checkpoint"),
        "empty.pt": (b"", "is damaged or not a checkpoint"),
        "foreign.safetensors": (
            safetensors.torch.save({"a": torch.ones(1)}),
            "has no model card that this version can read",
        ),
    }
    for name, (data, message) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=message) as caught:
            load(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"gone\.safetensors: no such file"):
        load(tmp_path / "gone.safetensors")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="was not written by mmaction-lite train"):
        load(tmp_path / "other.pt")
    save_weights(tmp_path / "wrong.safetensors", tsn_r10(2, width=16).state_dict(), card)
    with pytest.raises(UserError, match=r"tensors do not fit Recognizer; the first is .* in the file, "):
        load(tmp_path / "wrong.safetensors")
    foreign = replace(card, builder="my_model")
    save_weights(tmp_path / "mine.safetensors", card.build().state_dict(), foreign)
    with pytest.raises(
        UserError, match=r"no model of the package is named 'my_model'.*--recipe my\.py:my_recipe"
    ):
        load(tmp_path / "mine.safetensors")
    assert card_of(load(tmp_path / "mine.safetensors", recipe)) == foreign
    with pytest.raises(
        UserError, match=r"weights of tsm_r10, and the recipe .* builds tsn_r10; pass the recipe of"
    ):
        load(weights, replace(recipe, model=Build(tsn_r10)))
    with pytest.raises(UserError, match="has no card"):
        card_of(tsm_r10())


def test_a_file_cannot_name_anything_but_our_types(weights, card, tmp_path):
    fields = json.loads(card.to_json())
    fields["test"]["type"] = "Path"
    data = safetensors.torch.save({"a": torch.ones(1)}, {"card": json.dumps(fields)})
    (tmp_path / "odd.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="has no model card that this version can read"):
        load(tmp_path / "odd.safetensors")


def test_a_recipe_that_cannot_be_stored_is_refused_before_training(recipe):
    own = replace(recipe, model=Build(own_model, norm=torch.nn.Identity))
    with pytest.raises(UserError, match="a weights file cannot store the arguments of"):
        ModelCard.of(own, ("a", "b"))
    with pytest.raises(UserError, match="TestViews: crop is RandomCrop"):
        replace(recipe, test=replace(recipe.test, crop=RandomCrop(size=(20, 28))))
    card = ModelCard.of(replace(recipe, model=Build(own_model, norm=(1, 2))), ("a", "b"))
    assert ModelCard.from_json(card.to_json()).arguments == {"norm": (1, 2), "num_classes": 2}


def own_model(num_classes: int, norm: object = None) -> torch.nn.Module:
    return torch.nn.Linear(3, num_classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"test.views.short_side": "x"},
            "TestViews: short_side is 'x'; expected an integer, at least 1",
        ),
        (
            {"test.views.clips.num_segments": -1},
            "SegmentFrames: num_segments is -1; expected an integer",
        ),
        ({"val.views.crop.size": [20]}, r"CenterCrop: size is \(20,\); expected a tuple of 2 values"),
        ({"test.average": "median"}, "Protocol: average is 'median'; expected one of 'probability', 'score'"),
        ({"test.normalize.std": [1, 0, 1]}, r"Normalize: std is \(1, 0, 1\); expected a tuple of 3 values"),
        ({"test.normalize.mean": [1, float("nan"), 1]}, r"Normalize: mean is \(1, nan, 1\)"),
        ({"test": 3}, r"ModelCard: test is 3; expected Protocol\(\.\.\.\)"),
        ({"classes": []}, r"ModelCard: classes is \(\); expected .*not empty"),
        ({"recipe": None}, "ModelCard: recipe is None; expected a string"),
        ({"arguments": []}, "has no model card"),
        (
            {"arguments": {"dropout": "x", "num_classes": 2}},
            "tsm_r10: dropout is 'x'; expected a probability, at least 0",
        ),
        ({"arguments": {"depth": 3}}, "tsm_r10 cannot be built with"),
        ({"test.views.clips": {"type": "DenseClips"}}, "has no model card"),
    ],
)
def test_an_invalid_card_is_a_one_line_error(weights, card, tmp_path, change, message):
    fields = json.loads(card.to_json())
    for path, value in change.items():
        *groups, name = path.split(".")
        node = fields
        for group in groups:
            node = node[group]
        node[name] = value
    tensors = safetensors.torch.load(weights.read_bytes())
    (tmp_path / "odd.safetensors").write_bytes(safetensors.torch.save(tensors, {"card": json.dumps(fields)}))
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path / "odd.safetensors")
    assert "\n" not in str(caught.value)


def test_loading_leaves_the_generator_of_the_caller_alone(weights):
    state = torch.get_rng_state()
    load(weights)
    assert torch.equal(torch.get_rng_state(), state)

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmaction_lite import load
from mmaction_lite.data.views.crops import RandomCrop
from mmaction_lite.errors import UserError
from mmaction_lite.models import probe_linear, tsm_r10, tsn_r10
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.weights.card import ModelCard, card_of, save_weights
from mmaction_lite.weights.checkpoint import save_state


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
        ({"arguments.width": 3000}, r"tensors do not fit Recognizer; .* in the model"),
        ({"arguments.width": 10**12}, "tsm_r10 cannot be built with"),
        ({"arguments.width": 0}, "tsm_r10: width is 0; expected an integer, at least 1"),
        ({"classes": ["up", "up"]}, "two classes are named 'up'"),
        ({"classes": ["up"]}, "num_classes is 2, and there are 1 class names"),
        ({"classes": ["a", "b", "c"], "arguments.num_classes": 3}, "tensors do not fit"),
        ({"builder": "optimize_for_inference"}, "no model of the package is named"),
        ({"builder": "tsn"}, "tsn cannot be built with|tsn: "),
        ({"builder": 3}, "ModelCard: builder is 3"),
        ({"future": 1}, "unknown field 'future': a newer version of mmaction-lite wrote the file"),
        ({"test.future": 1}, "unknown field 'future': a newer version"),
        ({"test.views.clips.num_segments": 10**9}, "the test protocol, .* reads .* GB .* expected at most"),
        ({"val.views.crop.size": [60000, 60000]}, "the val protocol, .* GB"),
        ({"test.views.short_side": 10**9}, "the test protocol"),
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


def test_damaged_weights_are_refused_with_their_names(card, tmp_path):
    state = card.build().state_dict()
    for change, message in (
        (
            {"fc.bias": torch.tensor([1.0, float("nan")])},
            r"fc\.bias \(1 of 2 values\): 1 .* not finite",
        ),
        ({"backbone.bn1.running_var": torch.full((8,), -1.0)}, r"running_var \(8 of 8 values\).* negative"),
        ({"fc.bias": torch.ones(2, dtype=torch.int64)}, r"fc\.bias: int64 \(2,\) in the file"),
        ({"fc.bias": torch.ones(2).to(torch.float8_e4m3fn)}, r"fc\.bias: float8_e4m3fn"),
        ({"fc.bias": torch.ones(())}, r"fc\.bias: \(\) in the file"),
    ):
        save_weights(tmp_path / "a.safetensors", state | change, card)
        save_state(tmp_path / "a.pt", {"card": card.to_json(), "model": state | change})
        for name in ("a.safetensors", "a.pt"):
            with pytest.raises(UserError, match=rf"{name}: .*{message}"):
                load(tmp_path / name)
    for model in (3, {"a": 1}, {"a": torch.ones(2, device="meta")}, {"a": torch.eye(2).to_sparse()}):
        save_state(tmp_path / "a.pt", {"card": card.to_json(), "model": model})
        with pytest.raises(UserError, match=r"^[^\n]*a\.pt: [^\n]*$"):
            load(tmp_path / "a.pt")


def test_memory_is_taken_after_shapes_are_compared(card, tmp_path, monkeypatch):
    save_weights(tmp_path / "a.safetensors", card.build().state_dict(), card)
    wide = replace(card, arguments={**card.arguments, "width": 3000})
    save_weights(tmp_path / "b.safetensors", card.build().state_dict(), wide)
    built = []
    build = ModelCard.build
    monkeypatch.setattr(ModelCard, "build", lambda *a: built.append(a[2:]) or build(*a))
    with pytest.raises(UserError, match="do not fit"):
        load(tmp_path / "b.safetensors")
    assert built == [("meta",)]


def test_a_card_with_numbers_that_json_does_not_have_is_refused(recipe):
    with pytest.raises(UserError, match="cannot store the arguments"):
        ModelCard.of(replace(recipe, model=Build(own_model, norm=float("nan"))), ("a", "b"))


class Operations(TorchDispatchMode):
    """Records the names of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_model_without_memory_is_not_initialized(card):
    """The first initialization on the meta device takes more than a second."""
    with Operations() as operations:
        model = card.build(device="meta")
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert "empty" in operations.names
    assert not any("normal" in name or "uniform" in name for name in operations.names)


def test_a_temperature_is_part_of_both_protocols_and_cards_without_one_are_read(card):
    hot = card.calibrated(1.7)
    assert ModelCard.from_json(hot.to_json()) == hot
    assert str(hot.test) == f"{card.test}, temperature 1.7"
    assert str(hot.val) == f"{card.val}, temperature 1.7"
    with pytest.raises(UserError, match=r"the weights have temperature 1\.7 already"):
        hot.calibrated(1.2)
    fields = json.loads(card.to_json())
    for name in ("val", "test"):
        del fields[name]["temperature"]  # as cards of earlier versions
    assert ModelCard.from_json(json.dumps(fields)) == card


@pytest.mark.parametrize(
    ("builder", "removed", "arguments"),
    [
        ("videomae_small", "fc_norm.weight", {"width": 32, "depth": 1, "heads": 2}),
        ("vjepa2_large", "pooler.query_tokens", {"width": 32, "depth": 1, "heads": 4}),
    ],
)
def test_probes_with_unused_weights_of_earlier_versions_load(recipe, tmp_path, builder, removed, arguments):
    model = Build(probe_linear, encoder=builder, arguments=tuple(arguments.items()))
    card = ModelCard.of(replace(recipe, model=model), ("down", "up"))
    weights = card.build().state_dict()
    assert f"encoder.{removed}" not in weights
    save_weights(tmp_path / "old.safetensors", weights | {f"encoder.{removed}": torch.ones(3)}, card)
    loaded = load(tmp_path / "old.safetensors").state_dict()
    assert loaded.keys() == weights.keys()
    save_weights(tmp_path / "other.safetensors", weights | {"encoder.other": torch.ones(3)}, card)
    with pytest.raises(UserError, match=r"the first is encoder\.other: "):
        load(tmp_path / "other.safetensors")

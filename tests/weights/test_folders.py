"""Folders of the Hugging Face Hub: one file or several, settings and class names."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mmaction_lite import load, models
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.weights.card import ModelCard, card_of, save_weights
from mmaction_lite.weights.conversion import convert_file
from mmaction_lite.weights.converters import convert, read_checkpoint, stored_classes
from mmaction_lite.weights.converters.folders import is_hub_folder, read_hub_folder
from mmaction_lite.weights.converters.sources import stored_settings

HALF = (127.5, 127.5, 127.5)
RECIPE = apply_overrides(get_recipe("tsn_r50_1x1x3_100e_kinetics400_rgb"), ["model.width=8"])


@pytest.fixture
def weights():
    """A thin TSN under the names of torchvision, as timm stores its image networks."""
    torch.manual_seed(0)
    return {
        name.removeprefix("backbone."): weight.contiguous()
        for name, weight in models.tsn_r50(num_classes=3, width=8).state_dict().items()
    }


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def split(folder, weights, parts=2):
    """Write weights in several files with an index, as large checkpoints are."""
    names, places = sorted(weights), {}
    for part in range(parts):
        file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        save_file({name: weights[name] for name in names[part::parts]}, folder / file)
        places |= dict.fromkeys(names[part::parts], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_one_file_with_class_names_and_statistics(tmp_path, weights):
    labels = {"1": "b", "0": "a", "2": "c"}
    preprocessor = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.5], "do_normalize": True}
    write(tmp_path / "hub", config={"id2label": labels}, preprocessor_config=preprocessor)
    save_file(weights, tmp_path / "hub" / "model.safetensors")
    assert is_hub_folder(tmp_path / "hub")
    checkpoint = read_checkpoint(tmp_path / "hub")
    assert stored_classes(checkpoint) == ("a", "b", "c")
    model = models.tsn_r50(num_classes=3, width=8)
    conversion = convert(checkpoint, model)
    assert conversion.source == "torchvision"
    torch.testing.assert_close(model.fc.weight.data, weights["fc.weight"])
    expected = Normalize(mean=(127.5, 127.5, 127.5), std=(63.75, 63.75, 127.5))
    assert conversion.normalize == expected  # the file, and not the statistics of ImageNet
    convert_file(tmp_path / "hub", RECIPE, tmp_path / "x.safetensors")
    card = card_of(load(tmp_path / "x.safetensors"))
    assert (card.classes, card.test.normalize) == (("a", "b", "c"), expected)


def test_the_file_of_video_processors_has_precedence(tmp_path, weights):
    both = {"image_std": [1, 1, 1]}
    write(
        tmp_path / "hub",
        config={},
        video_preprocessor_config={"image_mean": [0.25, 0.25, 0.25]} | both,
        preprocessor_config={"image_mean": [0.5, 0.5, 0.5]} | both,
    )
    save_file(weights, tmp_path / "hub" / "model.safetensors")
    normalize = stored_settings(read_hub_folder(tmp_path / "hub")).normalize
    assert normalize is not None
    assert normalize.mean == (63.75, 63.75, 63.75)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"do_normalize": False}, Normalize(mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))),
        ({"do_rescale": False, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}, None),
        ({"image_mean": 0.5, "image_std": 0.5}, None),
        ({"image_mean": ["a", "b", "c"], "image_std": [1, 1, 1]}, None),
    ],
)
def test_statistics_are_those_of_the_file_or_unknown(settings, expected):
    assert stored_settings({"preprocessor": settings}).normalize == expected


def test_settings_of_timm(tmp_path, weights):
    timm = {"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}, "label_names": ["x", "y", "z"]}
    write(tmp_path / "hub", config=timm)
    torch.save(weights, tmp_path / "hub" / "pytorch_model.bin")
    checkpoint = read_checkpoint(tmp_path / "hub")
    assert stored_classes(checkpoint) == ("x", "y", "z")
    assert stored_settings(checkpoint).normalize == Normalize(mean=HALF, std=HALF)


@pytest.mark.parametrize("by_index", [False, True])
def test_several_files(tmp_path, weights, by_index):
    write(tmp_path, config={"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}})
    split(tmp_path, weights)
    checkpoint = read_checkpoint(tmp_path / "model.safetensors.index.json" if by_index else tmp_path)
    assert checkpoint["model"].keys() == weights.keys()
    assert stored_classes(checkpoint) is None
    convert(checkpoint, models.tsn_r50(num_classes=3, width=8))
    with pytest.raises(UserError, match=r"part 2 of 2 of a checkpoint; pass the folder .*index\.json"):
        read_checkpoint(tmp_path / "model-00002-of-00002.safetensors")


def test_missing_and_foreign_parts_are_one_line(tmp_path, weights):
    split(tmp_path, weights)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    index.write_text(
        json.dumps({"weight_map": content["weight_map"] | {"extra": "model-00001-of-00002.safetensors"}})
    )
    with pytest.raises(UserError, match=r"1 of \d+ tensors are in no part, such as extra"):
        read_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../x.safetensors"}}))
    with pytest.raises(UserError, match=r"names the file \.\./x\.safetensors; expected files in the same"):
        read_checkpoint(tmp_path)
    index.write_text(
        json.dumps({"weight_map": {"a": "a.safetensors", "b": "model-00001-of-00002.safetensors"}})
    )
    with pytest.raises(UserError, match=r"1 of 2 parts are missing, such as a\.safetensors"):
        read_checkpoint(tmp_path)
    for text, expected in (("{}", "has no weight_map"), ("[]", "holds a list"), ("{", "cannot be read")):
        index.write_text(text)
        with pytest.raises(UserError, match=expected):
            read_checkpoint(tmp_path)


def test_a_folder_without_weights_names_what_is_expected(tmp_path):
    write(tmp_path, config={})
    with pytest.raises(UserError, match=r"has a config\.json, and no weights; expected model\.safetensors"):
        read_checkpoint(tmp_path)


def test_weights_of_this_package_in_a_folder_of_the_hub(tmp_path, recipe):
    card = ModelCard.of(recipe, ("down", "up"))
    write(tmp_path / "hub", config={})
    save_weights(tmp_path / "hub" / "model.safetensors", card.build().state_dict(), card)
    assert card_of(load(tmp_path / "hub")).classes == ("down", "up")
    (tmp_path / "hub" / "best.pt").touch()
    assert not is_hub_folder(tmp_path / "hub")  # a run folder

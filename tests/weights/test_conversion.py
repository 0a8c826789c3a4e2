"""Checkpoints to weights files."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mmaction_lite import weights
from mmaction_lite.errors import UserError
from mmaction_lite.models import mvit_v2_small, slowonly_r50, tsm_r10, tsm_r50, tsn_r10
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.tasks.verb_noun import VerbNoun
from mmaction_lite.weights import Conversion, convert, load
from mmaction_lite.weights.card import ModelCard, card_of, save_weights
from mmaction_lite.weights.conversion import convert_file
from mmaction_lite.weights.converters.sources import IMAGENET, PYSLOWFAST
from tests.weights.test_converters import image_weights, thin_pair


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


def test_weights_of_another_network_are_not_taken_for_weights_without_a_classifier(recipe, tmp_path):
    _, weights = thin_pair("pyslowfast__SLOWFAST_4x16_R50")
    mvit = Build(mvit_v2_small, width=8, depths=(1, 1), crop=64, frames=8)  # its classifier has another name
    torch.save(weights, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: PySlowFast's \d+ weights do not fit this model's"):
        convert_file(tmp_path / "x.pth", replace(recipe, model=mvit), tmp_path / "x.safetensors")
    del weights["head.projection.weight"], weights["head.projection.bias"]
    torch.save(weights, tmp_path / "y.pth")
    with pytest.raises(UserError, match=r"y\.pth: PySlowFast's \d+ weights do not fit this model's"):
        convert_file(tmp_path / "y.pth", recipe, tmp_path / "x.safetensors")


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


@pytest.fixture
def slowonly(tmp_path):
    """A recipe in the form of MMAction2, and a checkpoint of PySlowFast."""
    recipe = get_recipe("slowonly_r50_8x8x1_256e_kinetics400_rgb")
    torch.save({"model_state": thin_pair("pyslowfast__SLOW_8x8_R50")[1]}, tmp_path / "x.pyth")
    return replace(recipe, model=Build(slowonly_r50, width=8)), tmp_path / "x.pyth"


def test_weights_of_pyslowfast_keep_their_normalization_sampling_and_window(slowonly, tmp_path):
    recipe, file = slowonly
    conversion = convert_file(file, recipe, tmp_path / "a.safetensors")
    card = card_of(load(tmp_path / "a.safetensors"))
    assert card.test == get_recipe("slowonly_r50_8x8x1_196e_kinetics400_rgb").test_protocol
    assert card.test.normalize == PYSLOWFAST
    assert "note: the protocols are those of slowonly_r50_8x8x1_196e_kinetics400_rgb" in str(conversion)
    convert_file(file, recipe, tmp_path / "b.safetensors", keep_protocol=True)
    kept = card_of(load(tmp_path / "b.safetensors"))
    assert (kept.test, kept.test.normalize) == (recipe.test_protocol, IMAGENET)


def test_another_form_of_the_network_is_refused(recipe, tmp_path):
    tsn, tsm = (replace(recipe, model=Build(builder)) for builder in (tsn_r10, tsm_r10))
    card = ModelCard.of(tsm, ("a", "b"))
    save_weights(tmp_path / "own.safetensors", card.build().state_dict(), card)
    with pytest.raises(UserError, match=r"own\.safetensors: these are weights of tsm_r10, .* builds tsn_r10"):
        convert_file(tmp_path / "own.safetensors", tsn, tmp_path / "x.safetensors")
    other = replace(recipe, model=Build(tsm_r10, shift_div=8))
    with pytest.raises(UserError, match=r"shift_div=4, and the recipe has shift_div=8"):
        convert_file(tmp_path / "own.safetensors", other, tmp_path / "x.safetensors")
    torch.save(thin_pair("tsm_mit__tsn_r50_8f")[1], tmp_path / "tsn.pth")
    shifting = replace(recipe, model=Build(tsm_r50, width=8))
    with pytest.raises(UserError, match=r"tsn\.pth: the weights are of a network without temporal shift"):
        convert_file(tmp_path / "tsn.pth", shifting, tmp_path / "x.safetensors")
    torch.save(image_weights(), tmp_path / "image.pth")
    with pytest.raises(UserError, match=r"image\.pth: the weights are of an image network.*--init-from"):
        convert_file(tmp_path / "image.pth", shifting, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


class TwoHeads(nn.Module):
    """Separate classifiers of two verbs and of the nouns."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = nn.ModuleDict({"verbs": nn.Linear(4, 2), "nouns": nn.Linear(4, num_classes - 2)})


def test_the_classes_of_all_heads_are_counted(recipe, tmp_path):
    names = ("verb: open", "verb: close", "noun: door", "noun: jar", "noun: lid")
    recipe = replace(recipe, model=Build(TwoHeads), task=VerbNoun())
    torch.save(TwoHeads(5).state_dict(), tmp_path / "x.pth")
    convert_file(tmp_path / "x.pth", recipe, tmp_path / "x.safetensors", names)
    assert card_of(load(tmp_path / "x.safetensors", recipe)).classes == names


def test_nothing_is_overwritten(recipe, tmp_path):
    recipe = replace(recipe, model=Build(tsn_r10))
    torch.save(tsn_r10(num_classes=3).state_dict(), tmp_path / "x.pth")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "x.pth")
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "none")
    before = (tmp_path / "x.pth").read_bytes()
    for name in ("folder", "link", "dangling"):
        with pytest.raises(UserError, match=rf"{name}\.safetensors: expected a new file .* exists already"):
            convert_file(tmp_path / "x.pth", recipe, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "x.pth").read_bytes() == before
    assert not (tmp_path / "none").exists()


def test_class_names_of_mmaction2_are_kept(recipe, tmp_path):
    recipe = replace(recipe, model=Build(tsn_r10))
    state = tsn_r10(num_classes=2).state_dict()
    for meta in ({"CLASSES": ("b", "a")}, {"dataset_meta": {"classes": ["b", "a"]}}):
        torch.save({"state_dict": state, "meta": meta}, tmp_path / "x.pth")
        out = tmp_path / f"{len(meta)}{next(iter(meta))}.safetensors"
        convert_file(tmp_path / "x.pth", recipe, out)
        assert card_of(load(out)).classes == ("b", "a")


@pytest.mark.parametrize("shape", [(), (0,), (2_000_000_000, 0), (3, 2), (3, 64, 1)])
def test_a_classifier_of_any_shape_is_one_line(shape, recipe, tmp_path):
    state = tsn_r10(num_classes=3).state_dict() | {"fc.weight": torch.zeros(shape), "fc.bias": torch.ones(3)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"^[^\n]*x\.pth: [^\n]*classifier"):
        convert_file(tmp_path / "x.pth", replace(recipe, model=Build(tsn_r10)), tmp_path / "x.safetensors")

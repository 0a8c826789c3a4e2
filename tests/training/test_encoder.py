"""The encoder of a probe: from weights with a card, from a probe, from files of other projects."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mmaction_lite import get_recipe, models
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.errors import UserError
from mmaction_lite.models import (
    probe_attentive,
    tsn_r10,
    videomae_pretrain_small,
    videomae_small,
    vjepa2_large,
)
from mmaction_lite.models.probe import heads_note
from mmaction_lite.recipes.probe import probe
from mmaction_lite.recipes.recipe import Build
from mmaction_lite.tasks.reconstruction import CLASSES, Reconstruction
from mmaction_lite.training.encoder import FILE, find_encoder, load_encoder
from mmaction_lite.weights.card import ModelCard, load, save_weights
from tests.conftest import small_recipe
from tests.probes import small_probe, write_encoder

TEMPLATE = "probe_linear_1x1x8_50e_own_rgb"


def test_the_weights_define_network_views_and_normalization(tmp_path):
    path = write_encoder(tmp_path / "w.safetensors")
    found = load_encoder(path, get_recipe(TEMPLATE), print)
    assert found.source == "w.safetensors"
    assert found.recipe.model.arguments == {
        "encoder": "tsm_r10",
        "arguments": (("width", 8), ("dropout", 0.2)),
    }
    assert (found.recipe.val, found.recipe.test) == (small_recipe().val, small_recipe().test)
    model: Any = found.recipe.model(num_classes=4)
    model.encoder.load_state_dict(found.weights)
    x = torch.rand(2, 3, 4, 20, 28)
    assert torch.equal(model.eval().features(x)[:, 0], load(path).features(x).mean(1))  # pyright: ignore


def test_the_weights_have_precedence_over_the_recipe(tmp_path):
    path = write_encoder(tmp_path / "w.safetensors")
    lines: list[str] = []
    recipe = replace(small_probe(), normalize=Normalize(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0)))
    found = load_encoder(path, recipe, lines.append)
    assert found.recipe.normalize == small_recipe().normalize
    assert len(lines) == 1
    assert lines[0].startswith("note: pixels are normalized as the weights expect")
    assert load_encoder(path, small_probe(), lines.append).recipe == small_probe()


def test_the_encoder_of_another_probe(tmp_path):
    path = write_encoder(tmp_path / "w.safetensors")
    recipe = load_encoder(path, small_probe(), print).recipe
    card = ModelCard.of(recipe, ("x", "y"))
    save_weights(tmp_path / "probe.safetensors", card.build().state_dict(), card)
    found = load_encoder(tmp_path / "probe.safetensors", get_recipe(TEMPLATE), print)
    assert found.recipe.model == recipe.model
    model: Any = load(tmp_path / "probe.safetensors")
    assert all(torch.equal(model.encoder.state_dict()[name], w) for name, w in found.weights.items())


def test_the_encoder_of_a_pre_training_without_its_decoder(tmp_path):
    size = {"width": 12, "depth": 2, "heads": 3, "patch": 4}
    recipe = replace(small_recipe(), task=Reconstruction(), label_smoothing=0.0)
    recipe = replace(recipe, model=Build(videomae_pretrain_small, decoder_depth=1, target="clip", **size))
    card = ModelCard.of(recipe, CLASSES)
    save_weights(tmp_path / "w.safetensors", card.build().state_dict(), card)
    pretrained: Any = load(tmp_path / "w.safetensors")
    lines: list[str] = []
    attentive = probe(replace(small_recipe(), model=Build(videomae_small, **size)), 9)
    attentive = replace(attentive, model=Build(probe_attentive, **attentive.model.arguments | {"heads": 3}))
    for template in (get_recipe(TEMPLATE), attentive):
        found = load_encoder(tmp_path / "w.safetensors", template, lines.append)
        assert found.recipe.model.arguments["encoder"] == "videomae_small"
        assert dict(found.recipe.model.arguments["arguments"]) == size
        assert found.recipe.val == small_recipe().val
        model: Any = found.recipe.model(num_classes=4)
        model.encoder.load_state_dict(found.weights)
        names = [name for name in found.weights if name.startswith(("patch_embed.", "blocks."))]
        assert len(names) > 20
        for name in names:
            assert torch.equal(found.weights[name], pretrained.state_dict()[f"encoder.{name}"]), name
    assert "unused: decoder." in lines[0]


def test_weights_without_a_card_need_a_recipe_of_the_network(tmp_path):
    weights = load(write_encoder(tmp_path / "w.safetensors")).state_dict()
    torch.save({"state_dict": weights}, tmp_path / "w.pth")
    lines: list[str] = []
    found = load_encoder(tmp_path / "w.pth", small_probe(), lines.append)
    assert all(torch.equal(weights[name], value) for name, value in found.weights.items())
    assert lines[0].startswith("encoder: loaded: ")
    with pytest.raises(UserError, match=r"w\.pth: has no model card, and the recipe names no encoder"):
        load_encoder(tmp_path / "w.pth", get_recipe(TEMPLATE), print)


def test_other_weights_are_refused_in_one_line(tmp_path):
    path = write_encoder(tmp_path / "w.safetensors")
    recipe = small_probe()
    other = replace(recipe, model=Build(recipe.model.builder, encoder="tsn_r10"))
    with pytest.raises(UserError, match="are of tsm_r10, and the encoder of the recipe is tsn_r10; pass"):
        load_encoder(path, other, print)
    with pytest.raises(UserError, match="no such file or run folder; --init-from takes trained weights"):
        load_encoder(tmp_path / "none.safetensors", recipe, print)
    card = ModelCard.of(small_recipe(), ("x", "y"))
    save_weights(tmp_path / "own.safetensors", tsn_r10(2).state_dict(), replace(card, builder="my_net"))
    with pytest.raises(UserError, match="are of my_net, a network from outside of the package; expected"):
        load_encoder(tmp_path / "own.safetensors", recipe, print)


def test_a_resumed_run_reads_its_own_copy(tmp_path):
    with pytest.raises(UserError, match="trains a probe on a frozen encoder; pass the weights"):
        find_encoder(tmp_path, None, resume=False)
    with pytest.raises(UserError, match=r"encoder\.safetensors: no such file; pass the weights"):
        find_encoder(tmp_path, None, resume=True)
    assert find_encoder(tmp_path, "w", resume=True) == "w"
    (tmp_path / FILE).touch()
    assert find_encoder(tmp_path, "w", resume=True) == tmp_path / FILE
    assert find_encoder(tmp_path, "w", resume=False) == "w"


@pytest.mark.parametrize("kind", ["probe_linear", "probe_attentive", "probe_map"])
@pytest.mark.parametrize(
    ("builder", "size", "unused"),
    [
        (
            videomae_small,
            {"width": 24, "depth": 1, "heads": 3, "patch": 4},
            {"fc_norm.weight", "fc_norm.bias"},
        ),
        (vjepa2_large, {"width": 60, "depth": 1, "heads": 3, "pool_depth": 1}, None),
    ],
)
def test_weights_behind_the_tokens_are_not_kept(tmp_path, kind, builder, size, unused):
    recipe = replace(small_recipe(), model=Build(builder, **size))
    card = ModelCard.of(recipe, ("x", "y"))
    whole: Any = card.build()
    save_weights(tmp_path / "w.safetensors", whole.state_dict(), card)
    template = replace(get_recipe(TEMPLATE), model=Build(getattr(models, kind)))
    found = load_encoder(tmp_path / "w.safetensors", template, print)
    missing = {name for name in whole.state_dict() if name not in found.weights}
    unused = unused or {name for name in whole.state_dict() if name.startswith("pooler.")}
    assert len(unused) > 1
    assert missing == unused | {"head.weight", "head.bias"}
    model: Any = found.recipe.model(num_classes=4).eval()
    model.encoder.load_state_dict(found.weights)
    x = torch.rand(1, 3, 4, 32, 32)
    torch.testing.assert_close(model.encoder.tokens(x), whole.eval().tokens(x))
    assert model(x).shape == (1, 4)
    note = heads_note(model)
    assert ("4 attention heads instead of 16" in note or "8 attention" in note) == (kind == "probe_attentive")


def test_heads_that_do_not_divide_the_channels_are_one_line():
    size = (("width", 12), ("depth", 1), ("heads", 3), ("patch", 4))
    with torch.device("meta"):
        for heads, expected in ((None, 4), (6, 6)):
            head: Any = probe_attentive(4, encoder="videomae_small", arguments=size, heads=heads).head
            assert head.pooler.heads == expected
        with pytest.raises(UserError, match=r"videomae_small have 12 channels; .* --set model\.heads=4"):
            probe_attentive(4, encoder="videomae_small", arguments=size, heads=5)

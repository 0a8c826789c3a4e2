"""Files of V-JEPA: an encoder and a probe, and outputs of the authors' code beyond the logits of a clip."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmaction_lite.errors import UserError
from mmaction_lite.models.vjepa import VJepa
from mmaction_lite.models.vjepa2 import vjepa2_large
from mmaction_lite.models.vjepa21 import vjepa21_base
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.recipe import Build, Recipe
from mmaction_lite.weights import load
from mmaction_lite.weights.card import card_of
from mmaction_lite.weights.conversion import convert_file
from mmaction_lite.weights.converters import convert, vjepa
from mmaction_lite.weights.converters.files import find_weights
from tests.weights.test_goldens import error, read, weights

REFERENCES: dict[str, Any] = {"vjepa2__reduced_probe": vjepa2_large, "vjepa21__reduced_probe": vjepa21_base}


def thin(builder: Any = vjepa2_large, **arguments: Any) -> VJepa:
    return builder(**{"num_classes": 5, "width": 32, "depth": 2, "pool_depth": 2, **arguments})


def files(model: VJepa, encoder: str = "target_encoder", probes: int = 1) -> tuple[dict, dict]:
    """The two files of the authors that hold the weights of `model`."""
    state = model.state_dict()
    backbone = {
        name.replace("encoder.", "module.backbone.", 1): value
        for name, value in state.items()
        if name.startswith("encoder.")
    }
    probe = {
        f"module.{name.replace('head.', 'linear.')}": value
        for name, value in state.items()
        if not name.startswith("encoder.")
    }
    others = {key: torch.zeros_like(value) for key, value in probe.items()}
    noise = {key: torch.zeros_like(value) for key, value in backbone.items()}
    first = {
        "encoder": noise,
        "predictor": {"module.backbone.x": torch.zeros(2)},
        encoder: backbone,
        "epoch": 3,
    }
    return first, {"classifiers": [probe, *[others] * (probes - 1)], "opt": [], "scaler": None, "epoch": 20}


def assert_same(ours: VJepa, expected: VJepa) -> None:
    torch.testing.assert_close(ours.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("builder", "key"), [(vjepa2_large, "target_encoder"), (vjepa21_base, "ema_encoder")]
)
def test_the_two_files_fill_the_network(builder: Any, key: str) -> None:
    model, other = thin(builder), thin(builder)
    encoder, probe = files(model, key)
    conversion = convert({**encoder, **probe}, other)
    assert conversion.source == vjepa.NAME
    assert conversion.reinitialized == conversion.unused == []
    assert conversion.notes[0] == f"{key} is loaded, not encoder, predictor"
    assert_same(other, model)


def test_an_encoder_leaves_pooler_and_head_as_they_are() -> None:
    model, other = thin(), thin()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    conversion = convert(files(model)[0], other)
    kept = [name for name in before if not name.startswith("encoder.")]
    assert sorted(conversion.reinitialized) == sorted(kept)
    for name, value in other.state_dict().items():
        assert torch.equal(value, before[name] if name in kept else model.state_dict()[name])


def test_a_probe_of_other_classes_leaves_the_pooler() -> None:
    model, other = thin(), thin(num_classes=7)
    encoder, probe = files(model)
    conversion = convert({**encoder, **probe}, other)
    assert conversion.reinitialized == ["head.weight", "head.bias"]
    torch.testing.assert_close(other.pooler.state_dict(), model.pooler.state_dict(), rtol=0, atol=0)


def test_the_first_of_several_probes_is_loaded_and_named() -> None:
    model, other = thin(), thin()
    encoder, probe = files(model, probes=3)
    conversion = convert({**encoder, **probe}, other)
    assert "the first of 3 probes is loaded" in str(conversion)
    assert_same(other, model)


def test_a_probe_alone_needs_the_encoder() -> None:
    with pytest.raises(
        UserError, match=r"a V-JEPA probe without the encoder; expected both.*--probe PROBE\.pt"
    ):
        convert(files(thin())[1], thin())


@pytest.mark.parametrize(
    ("weights_of", "into", "message"),
    [
        (vjepa21_base, vjepa2_large, r"weights of V-JEPA 2\.1, and the network is V-JEPA 2, .*of vjepa21_"),
        (vjepa2_large, vjepa21_base, r"weights of V-JEPA 2, and the network is V-JEPA 2\.1, .*of vjepa2_"),
    ],
)
def test_weights_of_the_other_version_are_refused(weights_of: Any, into: Any, message: str) -> None:
    encoder, probe = files(thin(weights_of))
    other = thin(into)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    for checkpoint in ({**encoder, **probe}, encoder):
        with pytest.raises(UserError, match=message):
            convert(checkpoint, other)
    torch.testing.assert_close(other.state_dict(), before, rtol=0, atol=0)


def test_other_networks_refuse_the_weights() -> None:
    with pytest.raises(UserError, match=r"weights of V-JEPA 2, and the network is Linear"):
        convert(files(thin())[0], torch.nn.Linear(3, 4))


@pytest.mark.parametrize("prefix", ["module.backbone.", "backbone.", "encoder.", ""])
def test_the_prefix_of_an_encoder_does_not_matter(prefix: str) -> None:
    model, other = thin(vjepa21_base), thin(vjepa21_base)
    plain = {f"{prefix}{name}": value for name, value in model.encoder.state_dict().items()}
    conversion = convert(plain | {f"{prefix}pos_embed": torch.zeros(1, 4, 32)}, other)
    assert [name.removeprefix(prefix) for name in conversion.unused if prefix != "module.backbone."] in (
        ["pos_embed"],
        [],
    )
    torch.testing.assert_close(other.encoder.state_dict(), model.encoder.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "lost", ["encoder.blocks.1.attn.qkv.bias", "pooler.cross_attention_block.xattn.q.bias"]
)
def test_a_missing_tensor_is_an_error(lost: str) -> None:
    model = thin()
    state, _ = find_weights({k: v for f in files(model) for k, v in f.items()})
    key = next(key for key, name in vjepa.rename(state).items() if name == lost)
    del state[key]
    with pytest.raises(UserError, match=rf"1 are missing \({lost}"):
        convert(state, thin())


def test_probes_of_four_levels_are_mentioned_for_48_classes() -> None:
    model = thin(num_classes=48, depth=24)
    encoder, probe = files(model)
    conversion = convert({**encoder, **probe}, thin(num_classes=48, depth=24))
    assert "Build(..., levels=(17, 19, 21, 23))" in str(conversion)
    four = thin(num_classes=48, depth=24, levels=(17, 19, 21, 23))
    assert "levels" not in str(convert({**encoder, **probe}, four))


@pytest.fixture
def recipe() -> Recipe:
    """A recipe of a thin network, with sizes of clips that it accepts."""
    build = Build(vjepa2_large, width=32, depth=2, pool_depth=2)
    return replace(get_recipe("tsm_r10_1x1x8_12e_motions_rgb"), model=build)


def test_two_files_become_one_weights_file(recipe: Recipe, tmp_path: Path) -> None:
    model = thin()
    encoder, probe = files(model)
    torch.save(encoder, tmp_path / "encoder.pt")
    torch.save(probe, tmp_path / "probe.pt")
    out = tmp_path / "weights.safetensors"
    conversion = convert_file(
        tmp_path / "encoder.pt", recipe, out, ["a", "b", "c", "d", "e"], probe=tmp_path / "probe.pt"
    )
    assert "target_encoder is loaded, not encoder, predictor" in conversion.notes
    loaded = load(out)
    assert card_of(loaded).classes == ("a", "b", "c", "d", "e")
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(loaded(x), model.eval()(x))


def test_files_in_the_wrong_places_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    encoder, probe = files(thin())
    torch.save(encoder, tmp_path / "encoder.pt")
    torch.save(probe, tmp_path / "probe.pt")
    out = tmp_path / "weights.safetensors"
    for given, as_probe, message in (
        ("encoder.pt", None, r"encoder\.pt: no classifier.*Add the file of its probe as --probe"),
        (
            "encoder.pt",
            "encoder.pt",
            r"encoder\.pt: has encoder, predictor, target_encoder, epoch; expected a list",
        ),
        ("probe.pt", None, r"probe\.pt: weights of a V-JEPA probe without the encoder"),
    ):
        with pytest.raises(UserError, match=message):
            convert_file(tmp_path / given, recipe, out, probe=tmp_path / as_probe if as_probe else None)
    assert not out.exists()


def reference(name: str) -> tuple[VJepa, dict[str, Any]]:
    golden = read(name)
    depth = 4 if name.startswith("vjepa2_") else 12
    model = REFERENCES[name](num_classes=174, width=192, depth=depth)
    convert(weights(golden), model)
    return model.eval(), golden


def drawn(shape: list[int], seed: int) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(np.random.PCG64(seed)).normal(0, 1, shape).astype(np.float32)
    )


@pytest.mark.parametrize(
    "name", ["vjepa2__reduced_probe", pytest.param("vjepa21__reduced_probe", marks=pytest.mark.slow)]
)
def test_segments_and_crops_are_averaged_as_in_the_reference(name: str) -> None:
    model, golden = reference(name)
    expected = golden["segments"]
    views = drawn(expected["input_shape"], 1)  # (segments, crops, 1, C, T, H, W)
    model.segments = len(views)
    with torch.inference_mode():
        logits = model(views[:, :, 0].permute(1, 2, 0, 3, 4, 5).flatten(2, 3))
    assert error(logits, expected["logits_per_crop"]) <= 1e-5
    assert error(logits.softmax(1).mean(0), expected["probability"]) <= 1e-5


@pytest.mark.slow
def test_images_and_hierarchical_tokens_are_those_of_the_reference() -> None:
    model, golden = reference("vjepa21__reduced_probe")
    image, hierarchical = golden["image_mode"], golden["hierarchical"]["tokens"]
    with torch.inference_mode():
        pairs = (
            (model.tokens(drawn(image["input_shape"], 2)), image["tokens"]),
            (model.encoder.hierarchical(drawn(golden["input_shape"], 0)), hierarchical),
        )
    for tokens, expected in pairs:
        assert list(tokens.shape) == expected["shape"]
        assert error(tokens.flatten()[:8], expected["first8"]) <= 1e-5
        assert float(tokens.std()) == pytest.approx(expected["std"], rel=1e-6)
        assert float(tokens.mean()) == pytest.approx(expected["mean"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCES)
def test_logits_in_double_precision_are_those_of_the_reference(name: str) -> None:
    model, golden = reference(name)
    with torch.inference_mode():
        logits = model.double()(drawn(golden["input_shape"], 0).double())
    assert error(logits, golden["logits_float64"]) <= 1e-13

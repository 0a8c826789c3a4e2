"""Fingerprints of networks on the generated clip."""

import json
import zlib
from copy import deepcopy

import pytest
import torch

from mmaction_lite import load
from mmaction_lite.errors import UserError
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.fingerprint import (
    check_fingerprint,
    differences,
    fingerprint,
    fingerprint_of_weights,
    generated_clip,
)


def test_the_clip_is_the_same_everywhere():
    clip = generated_clip(8)
    assert (clip.shape, clip.dtype) == ((1, 1, 8, 112, 112, 3), torch.uint8)
    assert zlib.crc32(clip.numpy().tobytes()) == 1720861081
    assert clip.float().std() > 30


def test_equal_networks_have_equal_fingerprints_and_others_do_not(recipe, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    torch.manual_seed(0)
    model = card.build()
    save_weights(tmp_path / "a.safetensors", model.state_dict(), card)
    found = fingerprint(load(tmp_path / "a.safetensors"))
    assert json.loads(json.dumps(found)) == fingerprint(load(tmp_path / "a.safetensors"))
    assert found["classes"] == 2
    assert not differences(found, found)
    rounded = deepcopy(found)
    rounded["mean"] += 1e-5 * abs(found["top"][0][1])
    check_fingerprint(found, rounded, "a")
    with torch.no_grad():
        model.get_submodule("fc").bias[0] += 0.3  # pyright: ignore
    save_weights(tmp_path / "b.safetensors", model.state_dict(), card)
    with pytest.raises(
        UserError, match="b: the logits on the generated clip are not the verified ones: mean is"
    ):
        check_fingerprint(fingerprint(load(tmp_path / "b.safetensors")), found, "b")
    assert differences(found, found | {"classes": 3}) == ["2 classes instead of 3"]


def test_the_checksum_of_weights_depends_on_their_values_and_names(recipe):
    model = recipe.model(num_classes=2)
    found = fingerprint_of_weights(model)
    assert len(found) == 16
    assert fingerprint_of_weights(deepcopy(model).train()) == found
    assert fingerprint_of_weights(deepcopy(model).to(memory_format=torch.channels_last)) == found
    changed = deepcopy(model)
    with torch.no_grad():
        changed.get_submodule("fc").bias[0] += 1e-6  # pyright: ignore
    assert fingerprint_of_weights(changed) != found
    assert fingerprint_of_weights(torch.nn.Sequential(model)) != found

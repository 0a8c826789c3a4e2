"""Checkpoint files of any project are read, or refused in one line."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmaction_lite.errors import UserError
from mmaction_lite.models import tsm_r10
from mmaction_lite.weights.card import ModelCard, save_weights
from mmaction_lite.weights.checkpoint import save_state
from mmaction_lite.weights.converters.files import find_state_dict, read_checkpoint, stored_classes
from tests.weights.test_pickles import EMPTY, WEIGHTS, caffe2, name, plain, text


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("SLOWONLY_8x8_R50.pkl", ": SLOW_8x8_R50.pyth$"),
        ("I3D_NLN_8x8_R50.pkl", "I3D_8x8_R50.pyth, SLOW_4x16"),
    ],
)
def test_caffe2_files_are_refused_with_the_file_to_take(file, named, tmp_path):
    (tmp_path / file).write_bytes(caffe2("blobs"))
    with pytest.raises(UserError, match=f"Caffe2 file .*PyTorchVideo's file of the same network.*{named}"):
        read_checkpoint(tmp_path / file)


def test_safetensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    torch.testing.assert_close(read_checkpoint(tmp_path / "w.safetensors"), WEIGHTS)


def test_other_files_are_a_one_line_error(tmp_path):
    def refuses(path: Path, expected: str) -> None:
        with pytest.raises(UserError) as error:
            read_checkpoint(path)
        assert str(path) in str(error.value)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)

    refuses(tmp_path / "missing.pth", "no such file")
    refuses(tmp_path, "a directory")
    path = tmp_path / "x.pth"
    for content, expected in {
        b"": "empty",
        b"<!DOCTYPE html><html>": "it begins with b'<!DOCTYPE",
        b"version https://git-lfs.github.com/spec/v1\noid": "it begins with b'version https://git",
        b"\x80\x02.": "damaged",
        b"\x80\x02K\x05.": "holds a int",
        b"\x80\x02"
        + name("nets.Net")
        + EMPTY
        + b"\x81}"
        + text("w")
        + b"K\x00sb.": "a pickled object of class nets.Net",
        b"PK\x03\x04nothing": "damaged",
    }.items():
        path.write_bytes(content)
        refuses(path, expected)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    refuses(path, "a tar file")
    for save in ({}, {"_use_new_zipfile_serialization": False}):
        torch.save({"state_dict": {"w": torch.ones(1000)}}, path, **save)
        path.write_bytes(path.read_bytes()[:-2500])
        refuses(path, "damaged")
    save_file(WEIGHTS, path := tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    refuses(path, "damaged")


def test_names_from_a_file_are_escaped_for_the_terminal(tmp_path, capsys):
    body = text("evil\x1b[2J") + text("f") + b"\x93" + EMPTY + b"R"
    read_checkpoint(plain(tmp_path / "x.pkl", body))
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("holder", ["state_dict", "model_state", "model", "module"])
def test_weights_are_found_where_projects_keep_them(holder):
    wrapped = {f"module.{key}": value for key, value in WEIGHTS.items()}
    checkpoint = {holder: wrapped, "optimizer": {"state": {}}, "epoch": 3}
    torch.testing.assert_close(find_state_dict(checkpoint), WEIGHTS)
    torch.testing.assert_close(find_state_dict({"model": {"state_dict": wrapped}}), WEIGHTS)
    torch.testing.assert_close(find_state_dict(WEIGHTS), WEIGHTS)
    torch.testing.assert_close(find_state_dict({"a": np.ones(2)}), {"a": torch.ones(2, dtype=torch.float64)})


def test_a_checkpoint_that_holds_itself_ends():
    checkpoint: dict = {"epoch": 1}
    checkpoint["model"] = checkpoint
    with pytest.raises(UserError, match="holds no weights"):
        find_state_dict(checkpoint)


def test_a_checkpoint_without_weights_names_what_it_holds():
    with pytest.raises(UserError, match=r"holds no weights .* it holds epoch, rng"):
        find_state_dict({"epoch": 3, "rng": "none"})
    with pytest.raises(UserError, match="it holds nothing"):
        find_state_dict({})


def test_class_names_are_read_from_every_file_of_this_package(recipe, tmp_path):
    card = ModelCard.of(recipe, ("down", "up"))
    weights = tsm_r10(num_classes=2).state_dict()
    save_weights(tmp_path / "a.safetensors", weights, card)
    save_state(tmp_path / "last.pt", {"card": card.to_json(), "model": weights})
    for file in ("a.safetensors", "last.pt"):
        assert stored_classes(read_checkpoint(tmp_path / file)) == ("down", "up")


def test_other_files_have_no_class_names(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    assert stored_classes(read_checkpoint(tmp_path / "a.safetensors")) is None
    for card in (None, 3, "no JSON", "[]", "{}", '{"classes": "ab"}', '{"classes": [1, 2]}'):
        assert stored_classes({"card": card}) is None


def test_prefixes_of_wrappers_are_removed_unless_the_network_has_them():
    one = torch.ones(1)
    wrapped = {"state_dict": {"module.model.a": one, "module.model.b": one}}
    assert find_state_dict(wrapped) == {"a": one, "b": one}
    assert set(find_state_dict({"module.model.a": one}, known=["model.a"])) == {"model.a"}
    assert set(find_state_dict({"model.a": one}, known=["model.a"])) == {"model.a"}
    with pytest.raises(UserError, match="holds no weights"):
        find_state_dict({"epoch": 3})

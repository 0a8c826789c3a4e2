"""Exported files behave like weights files in `load`, `predict` and `evaluate`."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite import extract_features, predict
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.errors import UserError
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.exported import ExportedModel, import_runtime, load_exported

pytestmark = pytest.mark.usefixtures("one_thread")
SUFFIXES = [".onnx", ".pt2"]
MUTANTS = int(os.environ.get("MMACTION_LITE_MUTANTS", "5"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_predictions_equal_those_of_the_weights(exported, tiny, suffix):
    video = tiny / "val" / "up" / "12.mp4"
    expected = predict(exported / "weights.safetensors", video)
    found = predict(exported / f"model{suffix}", video)
    assert found.labels == expected.labels
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    assert str(found.protocol) == str(expected.protocol)


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".pt2", marks=pytest.mark.slow)])
def test_evaluate_equals_the_weights_and_rejects_other_arithmetic(exported, tiny, suffix):
    samples = read_split(tiny, "val", ("up", "down"))
    model = load(exported / f"model{suffix}")
    expected = evaluate(card := load(exported / "weights.safetensors"), samples, card_of(card).test)
    found = evaluate(model, samples, card_of(model).test)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    with pytest.raises(UserError, match="an exported graph runs as it is"):
        evaluate(model, samples, card_of(model).test, precision="bfloat16")


def test_it_stays_on_the_cpu_and_checks_the_size_of_clips(exported):
    model = load(exported / "model.pt2")
    assert isinstance(model, ExportedModel)
    assert model.to("meta") is model
    assert next(model.parameters()).device.type == "cpu"
    with pytest.raises(UserError, match=r"got clips .*\(4, 20, 20, 3\).*; expected clips .*\(4, 20, 28, 3\)"):
        model(torch.zeros(1, 3, 4, 20, 20))
    with pytest.raises(UserError, match="with window 2"):
        model(torch.zeros(1, 3, 4, 20, 28), window=2)


def test_it_has_no_layers_to_extract(exported, tiny):
    with pytest.raises(UserError, match=r"model\.onnx: an exported file has no layers; pass the weights"):
        extract_features(load(exported / "model.onnx"), tiny / "val" / "up" / "12.mp4")


def message_of(file: Path) -> str:
    """The message of the error that a file causes, empty if it can be loaded."""
    try:
        load_exported(file)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".pt2", marks=pytest.mark.slow)])
def test_damaged_files_are_one_line(exported, tmp_path, suffix):
    data = (exported / f"model{suffix}").read_bytes()
    rng = np.random.default_rng(0)
    file = tmp_path / f"broken{suffix}"
    cases = [b"", b"x", data[:1000], data[: len(data) // 2], data[1:]]
    for _ in range(MUTANTS):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 4000), 20):
            changed[place] = rng.integers(256)
        cases.append(bytes(changed))
    refused = 0
    for content in cases:
        file.write_bytes(content)
        refused += bool(line := message_of(file))
        assert "\n" not in line
        assert line.startswith(str(file)) or not line
    assert refused >= 5


def test_missing_and_foreign_files(exported, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_exported(tmp_path / "none.onnx")
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(exported / "model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="has no model card; expected a file written by mmaction-lite export"):
        load_exported(tmp_path / "foreign.onnx")
    proto.graph.output[0].name = "other"
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"foreign\.onnx: "):
        load_exported(tmp_path / "foreign.onnx")


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"x\.onnx needs onnxruntime; install it with pip install 'mmaction"):
        import_runtime("onnxruntime", "x.onnx")

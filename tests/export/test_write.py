"""Exported files give the results of the weights, in both formats, for every family."""

import json
import os
from typing import Any

import pytest
import torch
from torch import nn

from mmaction_lite.errors import UserError
from mmaction_lite.export import onnx_file, write
from mmaction_lite.export.graph import example_frames
from mmaction_lite.export.write import check_export_out, compare, export_bytes, export_model, metadata
from mmaction_lite.models import optimize_for_inference
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.exported import open_graph
from tests.exports import carded, small_protocol
from tests.models.test_models import FORMS
from tests.thin import has_tokens, thin

pytestmark = pytest.mark.usefixtures("one_thread")
# The forms with different operators; the rest differs in depth and width. Their export to .pt2 is covered by
# tests of the models, too.
CHOSEN = [
    "tsm_mobilenetv2",
    "c2d_r50",
    "slowfast_r50_4x16",
    "r2plus1d_r50",
    "r3d_r18",
    "videomae_small",
    "x3d_s",
    "swin3d_tiny",
]
EVERY = os.environ.get("MMACTION_LITE_EVERY_EXPORT") == "1"
CASES = FORMS if EVERY else [*((name, {}) for name in CHOSEN), ("i3d_r50", {"non_local": "gaussian"})]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_onnx_equals_the_weights(name: str, arguments: dict[str, Any]) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    width = {"width": 16} if name.startswith("slowfast") else thin(name)
    size = (48, 64) if has_tokens(name) else (40, 48)
    model = carded(name, small_protocol(frames=8, size=size), **width, **arguments)
    found = compare(model, export_bytes(model, ".onnx"), ".onnx")
    assert max(found) < 1e-5
    if EVERY:
        assert max(compare(model, export_bytes(model, ".pt2"), ".pt2")) < 1e-5


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_any_batch_size_gives_the_results_of_the_weights(exported, suffix):
    model = load(exported / "weights.safetensors")
    run = open_graph((exported / f"model{suffix}").read_bytes(), suffix, "model").run
    for batch_size in (1, 2, 5):
        frames = example_frames((4, 20, 28, 3), batch_size)
        probabilities, logits = run(frames)
        with torch.no_grad():
            expected = model(card_of(model).test.normalize(frames))
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(probabilities, expected.softmax(1))


@pytest.mark.slow
def test_windows_are_part_of_the_graph():
    model = carded("slowonly_r50", small_protocol(size=(64, 96), window=1), width=8)
    data = export_bytes(model, ".pt2")
    assert open_graph(data, ".pt2", "x").run(example_frames((4, 64, 96, 3), 2))[1].shape == (2, 6, 2)
    assert max(compare(model, data, ".pt2")) < 1e-5


@pytest.mark.slow
def test_float16(tmp_path, exported):
    model = load(exported / "weights.safetensors")
    out = tmp_path / "half.pt2"
    result = export_model(model, out, precision="float16")
    assert 0 < result.difference < 0.02
    assert out.stat().st_size == result.num_bytes < (exported / "model.pt2").stat().st_size
    assert load(out).precision == "float16"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_difference_above_the_bound_leaves_no_file(tmp_path, exported, monkeypatch):
    model = load(exported / "weights.safetensors")
    monkeypatch.setitem(write.BOUNDS, "float32", 1e-12)
    with pytest.raises(UserError, match=r"differ from those of the model by .*; expected at most 1e-12"):
        export_model(model, tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_weights_above_the_limit_of_onnx_are_one_line(tmp_path, exported, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST_MODEL", 10_000)
    with pytest.raises(UserError, match=r"the weights have 0\.0 GB; expected at most .* Export to \.pt2"):
        export_model(load(exported / "weights.safetensors"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_an_export_replaces_an_export_and_nothing_else(tmp_path, exported):
    assert check_export_out(exported / "model.pt2", "pt2") == ".pt2"
    file = tmp_path / "model.pt2"
    file.write_bytes(b"mine")
    with pytest.raises(UserError, match="is not a file of mmaction-lite export, so it is not overwritten"):
        export_model(load(exported / "weights.safetensors"), file)
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "to", "expected"),
    [("a.pt", None, ".onnx or .pt2"), ("a.onnx", "pt2", ".pt2"), ("a", "onnx", ".onnx")],
)
def test_the_suffix_fits_the_format(tmp_path, name, to, expected):
    with pytest.raises(UserError, match=f"expected a file name ending in {expected}$"):
        check_export_out(tmp_path / name, to)


def test_models_that_are_optimized_or_exported_already(exported, tmp_path):
    model = load(exported / "weights.safetensors")
    for other in (optimize_for_inference(model), load(exported / "model.pt2")):
        with pytest.raises(UserError, match="exported or optimized already"):
            export_model(other, tmp_path / "x.pt2")


class Branching(nn.Module):
    def forward(self, x):
        return x.mean((2, 3, 4))[:, :2] if float(x.mean()) > 0 else x.sum((2, 3, 4))[:, :2]


def test_a_model_that_cannot_be_traced_is_one_line(tmp_path):
    model: Any = Branching()
    model.card = carded("tsn_r10", small_protocol()).card
    with pytest.raises(UserError, match=r"tsn_r10 cannot be exported to \.pt2 \(.*\); expected a model that"):
        export_model(model, tmp_path / "x.pt2")


def test_the_metadata_describe_what_the_caller_does():
    card = carded("tsm_r10", small_protocol()).card
    facts = metadata(card, "float32")
    assert json.loads(facts["classes"]) == ["up", "down"]
    assert facts["protocol"] == str(card.test)
    assert facts["short_side"] == "24"
    assert facts["crop"] == "CenterCrop 20x28"
    assert facts["input"].startswith("uint8 (batch, 4, 20, 28, 3)")
    assert json.loads(facts["task"])["task"] == "single_label"

from typing import Any

import numpy as np
import pytest

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.workers import IN_PROCESS
from mmaction_lite.errors import UserError
from mmaction_lite.export.graph import example_frames
from mmaction_lite.export.int8 import quantize_model, quantize_onnx
from mmaction_lite.export.write import compare, export_bytes
from mmaction_lite.weights.exported import load_exported, model_of, open_graph
from tests.exports import carded, small_protocol
from tests.thin import clip_size, thin


def test_int8_is_smaller_and_close(exported):
    onnx = pytest.importorskip("onnx")
    data = (exported / "model.onnx").read_bytes()
    clips = [example_frames((4, 20, 28, 3), 3, seed) for seed in range(2)]
    small = quantize_onnx(data, [clip[:1] for clips_ in clips for clip in clips_.split(1)])
    assert len(small) < 0.75 * len(data)
    kinds = {node.op_type for node in onnx.load_from_string(small).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    _, expected = open_graph(data, ".onnx", "float32").run(clips[0])
    _, found = open_graph(small, ".onnx", "int8").run(clips[0])
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.15
    assert model_of(small, ".onnx", "int8").precision == "int8"
    assert np.isfinite(found.numpy()).all()


@pytest.mark.slow
def test_attention_and_normalization_of_transformers_stay_in_float32():
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    size: dict[str, Any] = {"width": 32, "depth": 2, "heads": 2, "patch": 14}
    model = carded("videomae_small", small_protocol(size=(28, 28)), **size)
    data = export_bytes(model, ".onnx")
    clips = example_frames((4, 28, 28, 3), 3)
    small = quantize_onnx(data, clips.split(1))
    graph = onnx.load_from_string(small).graph
    kinds = {name: node.op_type for node in graph.node for name in node.output}
    sources = [
        kinds[node.input[0]] for node in graph.node if node.op_type in ("Softmax", "LayerNormalization")
    ]
    assert len(sources) >= 2 * 3 + 1
    assert "DequantizeLinear" not in sources
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) >= 2 * 4
    _, expected = open_graph(data, ".onnx", "float32").run(clips)
    _, found = open_graph(small, ".onnx", "int8").run(clips)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swin3d_tiny", "mvit_v2_small", "hiera_base", "uniformerv2_base"])
def test_hierarchical_networks_in_float32_and_int8(name):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    frames, *size = clip_size(name)
    few: dict[str, Any] = {"width": 16, "depths": (1, 1)} if name.startswith("mvit") else {}
    model = carded(name, small_protocol(frames=frames, size=(size[0], size[1])), **thin(name) | few)
    data = export_bytes(model, ".onnx")
    assert max(compare(model, data, ".onnx")) < 1e-5
    clips = example_frames((frames, size[0], size[1], 3), 3)
    small = quantize_onnx(data, clips.split(1))
    # Most of a thin Video Swin are masks and tables, which stay as they are.
    assert len(small) < (1.05 if name.startswith("swin3d") else 0.9) * len(data)
    _, expected = open_graph(data, ".onnx", "float32").run(clips)
    _, found = open_graph(small, ".onnx", "int8").run(clips)
    assert 0 < float((found - expected).norm() / expected.norm()) < 0.1


def test_no_clips_is_an_error(exported):
    with pytest.raises(UserError, match="no calibration clips"):
        quantize_onnx((exported / "model.onnx").read_bytes(), [])


def test_an_exported_file_is_not_quantized(exported, tiny):
    model = load_exported(exported / "model.onnx")
    message = r"model\.onnx: int8 quantizes weights, and this file is exported already; test it without int8"
    with pytest.raises(UserError, match=message):
        quantize_model(model, model.card.test, read_split(tiny, "val"), IN_PROCESS)

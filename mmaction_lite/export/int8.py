"""Quantize an ONNX file to 8 bits by ONNX Runtime's static quantization.

The quantized graph keeps the operators and adds conversions around them (the QDQ format), which runtimes
fuse: uint8 activations with a scale per tensor, int8 weights with a scale per output channel. The ranges of
the activations are the extremes over calibration clips.

In transformers, only linear layers and convolutions are quantized: a scale per tensor is too coarse for the
sums and normalizations between them. Softmax and products of two activations (attention) stay in float32 in
every network; ONNX Runtime computes an 8-bit softmax more slowly.
"""

import copy
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from mmaction_lite.data.annotations.samples import Samples
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.views.protocol import Protocol
from mmaction_lite.errors import UserError
from mmaction_lite.export.onnx_file import quiet_exporter, set_metadata
from mmaction_lite.export.write import export_bytes
from mmaction_lite.inference.evaluate import calibration_clips
from mmaction_lite.weights.card import card_of
from mmaction_lite.weights.exported import INPUT, ExportedModel, import_runtime, model_of

LARGEST_GROWTH = 1.2  # of the file by constant folding


def quantize_model(
    model: nn.Module, protocol: Protocol, samples: Samples, workers: WorkerSettings
) -> ExportedModel:
    """Return an 8-bit form of a model, with ONNX Runtime, for one protocol.

    Args:
        model: a model that `load` returned.
        protocol: becomes the test protocol of the result.
        samples: videos for calibration, see `calibration_clips`.
        workers: decoding worker processes.

    Raises:
        UserError: the model is an exported file, or see `quantize_onnx`, `export_bytes` and
            `calibration_clips`.
    """
    if isinstance(model, ExportedModel):
        raise UserError(
            f"{model.name}: int8 quantizes weights, and this file is exported already; test it without int8, "
            "or pass the weights that were exported"
        )
    model = copy.copy(model)
    model.card = replace(card_of(model), test=protocol)  # pyright: ignore[reportArgumentType]
    data = quantize_onnx(export_bytes(model, ".onnx"), calibration_clips(samples, protocol, workers))
    return model_of(data, ".onnx", "int8")


def check_packages() -> None:
    """Check that the packages which quantize and run a model are installed.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is not installed.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        import_runtime(name, "int8")


def quantize_onnx(data: bytes, clips: Iterable[Tensor]) -> bytes:
    """Return an 8-bit form of an ONNX file that `export_bytes` returned.

    Args:
        data: content of the file.
        clips: frames for calibration, uint8 (1, T, H, W, 3) each.

    Raises:
        UserError: onnx or onnxruntime is not installed, or `clips` is empty.
    """
    onnx = import_runtime("onnx", "int8")
    quantization = import_runtime("onnxruntime.quantization", "int8")
    batches = [{INPUT: clip.numpy()} for clip in clips]
    if not batches:
        raise UserError("int8: no calibration clips; expected at least one")
    facts = {prop.key: prop.value for prop in onnx.load_from_string(data).metadata_props}
    with tempfile.TemporaryDirectory() as folder, quiet_exporter():
        plain, prepared, quantized = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "int8"))
        plain.write_bytes(data)
        _prepare(plain, prepared)
        graph = onnx.load(prepared).graph
        is_transformer = any(node.op_type == "LayerNormalization" for node in graph.node)
        quantization.quantize_static(
            prepared,
            quantized,
            _Batches(batches),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"] if is_transformer else None,
            nodes_to_exclude=_normalization(graph) + _attention(graph),
        )
        proto = onnx.load(quantized)
    set_metadata(proto, facts | {"precision": "int8"})
    return proto.SerializeToString()


def _prepare(plain: Path, prepared: Path) -> None:
    """Write the graph in the form that the quantization expects: with shapes, and optimized.

    Constant folding is omitted if it makes the file larger, as for the biases of Video Swin, which a file
    stores as small tables.
    """
    runtime = import_runtime("onnxruntime", "int8")
    prepare = import_runtime("onnxruntime.quantization.shape_inference", "int8").quant_pre_process
    prepare(plain, prepared, skip_symbolic_shape=True)
    if prepared.stat().st_size <= LARGEST_GROWTH * plain.stat().st_size:
        return
    optimized = plain.with_name("optimized.onnx")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(optimized)
    runtime.InferenceSession(
        str(plain), options, providers=["CPUExecutionProvider"], disabled_optimizers=["ConstantFolding"]
    )
    prepare(optimized, prepared, skip_optimization=True, skip_symbolic_shape=True)


def _normalization(graph: Any) -> list[str]:
    """Return the names of the nodes between the input and the first convolution or other use."""
    values, names = {INPUT}, []
    for node in graph.node:
        if node.op_type in ("Reshape", "Cast", "Sub", "Mul") and node.input[0] in values:
            values.update(node.output)
            names.append(node.name)
    return names


def _attention(graph: Any) -> list[str]:
    """Return the names of softmax nodes and of matrix products of two activations."""
    weights = {tensor.name for tensor in graph.initializer}
    return [
        node.name
        for node in graph.node
        if node.op_type == "Softmax" or (node.op_type == "MatMul" and not weights.intersection(node.input))
    ]


class _Batches:
    """Calibration clips in the form that ONNX Runtime reads."""

    def __init__(self, batches: list[dict[str, np.ndarray]]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next clip, or None after the last."""
        return next(self._batches, None)

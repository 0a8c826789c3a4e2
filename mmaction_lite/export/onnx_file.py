"""Write a graph of `torch.export` as an ONNX file."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from mmaction_lite.errors import UserError
from mmaction_lite.weights.exported import INPUT, OUTPUTS, import_runtime

OPSET = 20
BATCH = "batch"
LARGEST_MODEL = 2 << 30  # bytes, a limit of protocol buffers


def onnx_bytes(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Convert a graph to the bytes of an ONNX file.

    Args:
        program: maps frames to probabilities and logits; the first dimension of all is the batch.
        metadata: texts to store in the file.

    Raises:
        UserError: onnx or onnxscript is not installed, or the weights have more than 2 GiB.
        Exception: of any type, if an operator has no translation.
    """
    for module in ("onnx", "onnxscript"):
        import_runtime(module, "export to ONNX")
    num_bytes = sum(tensor.nbytes for tensor in program.state_dict.values())
    if num_bytes > LARGEST_MODEL:  # checked before the conversion, which takes several times the memory
        raise UserError(
            f"export to ONNX: the weights have {num_bytes / 1e9:.1f} GB; expected at most "
            f"{LARGEST_MODEL / 1e9:.1f} GB, a limit of the format. Export to .pt2, or with --half"
        )
    with quiet_exporter():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            verbose=False,
        )
    assert exported is not None
    proto = exported.model_proto
    _simplify(proto)
    set_metadata(proto, metadata)
    return proto.SerializeToString()


def set_metadata(proto: Any, metadata: Mapping[str, str]) -> None:
    """Replace the metadata of an ONNX model."""
    del proto.metadata_props[:]
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)


def _simplify(proto: Any) -> None:
    """Remove shapes of intermediate results and source lines, which name paths of this machine."""
    proto.producer_name = "mmaction-lite"
    proto.doc_string = ""
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output):
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = BATCH


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hide warnings of exporter and quantizer about optional packages and their own deprecated functions."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

import logging

import pytest

onnx = pytest.importorskip("onnx")

from mmaction_lite.export.onnx_file import OPSET, quiet_exporter, set_metadata  # noqa: E402


def test_the_graph_is_plain_and_names_no_path(exported):
    proto = onnx.load(exported / "model.onnx")
    assert {entry.domain for entry in proto.opset_import} == {""}
    assert proto.opset_import[0].version == OPSET
    assert not proto.functions
    assert {node.domain for node in proto.graph.node} == {""}
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node}
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b".py" not in (exported / "model.onnx").read_bytes()
    onnx.checker.check_model(proto, full_check=True)


def test_metadata_replace_earlier_ones():
    proto = onnx.ModelProto()
    set_metadata(proto, {"a": "1"})
    set_metadata(proto, {"b": "2"})
    assert {prop.key: prop.value for prop in proto.metadata_props} == {"b": "2"}


def test_logging_is_restored():
    before = logging.root.manager.disable
    with quiet_exporter():
        assert not logging.getLogger("onnx").isEnabledFor(logging.WARNING)
    assert logging.root.manager.disable == before

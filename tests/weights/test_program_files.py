"""Files of torch.export that could execute code are refused before PyTorch reads them."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from mmaction_lite.weights.exported import METADATA_FILE
from mmaction_lite.weights.program_files import EXPRESSIONS, check_program


def rewritten(data: bytes, change: Callable[[str, Any], Any], added: dict[str, bytes] | None = None) -> bytes:
    """The archive with the JSON of its members changed, and members added."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        root = source.namelist()[0].partition("/")[0]
        for info in source.infolist():
            content, name = source.read(info), info.filename.removeprefix(f"{root}/")
            if name.endswith(".json"):
                content = json.dumps(change(name, json.loads(content))).encode()
            target.writestr(info.filename, content)
        for name, content in (added or {}).items():
            target.writestr(f"{root}/{name}", content)
    return out.getvalue()


def set_operator(name: str, value: Any) -> Any:
    if name == "models/model.json":
        value["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"
    return value


def set_guards(name: str, value: Any) -> Any:
    if name == "models/model.json":
        value["guards_code"] = ["exit()"]
    return value


def set_expression(name: str, value: Any) -> Any:
    text = json.dumps(value)
    return json.loads(text.replace("Symbol('s", "exit('s"))


def set_pickle(name: str, value: Any) -> Any:
    for entry in value.get("config", {}).values() if name.startswith("data/weights") else ():
        entry["use_pickle"] = True
    return value


def set_shape(name: str, value: Any) -> Any:
    for entry in value.get("config", {}).values() if name.startswith("data/weights") else ():
        entry["tensor_meta"]["sizes"] = [{"as_int": 1 << 40}]
    return value


def keep(_: str, value: Any) -> Any:
    return value


def test_an_exported_file_passes(exported):
    metadata, file = check_program((exported / "model.pt2").read_bytes(), METADATA_FILE)
    assert json.loads(metadata["classes"]) == ["up", "down"]
    assert file.tell() == 0
    assert check_program(rewritten(file.getvalue(), keep), METADATA_FILE)[0] == metadata


@pytest.mark.parametrize(
    ("change", "added", "message"),
    [
        (set_operator, {}, "the operator 'torch.os.system'"),
        (set_guards, {}, "code of guards"),
        (set_expression, {}, "the expression"),
        (set_pickle, {}, "a tensor that is a pickle"),
        (set_shape, {}, "larger than its data"),
        (keep, {"data/aotinductor/model/x.so": b"x"}, "the member 'data/aotinductor"),
        (keep, {"data/constants/custom_obj_0": b"x"}, "the member 'data/constants/custom"),
        (keep, {"data/weights/model.pt": b"x"}, "the member 'data/weights/model.pt'"),
    ],
)
def test_files_that_execute_code_or_allocate_memory_are_refused(exported, change, added, message):
    data = rewritten((exported / "model.pt2").read_bytes(), change, added)
    with pytest.raises(ValueError, match=message):
        check_program(data, METADATA_FILE)


def test_sample_inputs_are_refused(exported):
    data = (exported / "model.pt2").read_bytes()
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            content = b"pickle" if info.filename.endswith("sample_inputs/model.pt") else source.read(info)
            target.writestr(info.filename, content)
    with pytest.raises(ValueError, match="sample inputs, which are a pickle"):
        check_program(out.getvalue(), METADATA_FILE)


def test_expressions_of_shapes():
    symbol = "Symbol('s41', positive=True, integer=True)"
    for text in (f"Mul(Integer(4), {symbol})", "4*s0", "s0 + 1", "FloorDiv(s0, 2)"):
        assert EXPRESSIONS.fullmatch(text), text
    for text in ("exit()", "__import__('os')", "s0.__class__", "Mul(x)", "2**9", "Symbol('s41; exit')"):
        assert not EXPRESSIONS.fullmatch(text), text

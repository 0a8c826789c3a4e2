"""Check files of `torch.export` before PyTorch reads them.

`torch.export.load` can execute code: it unpickles tensors and sample inputs, evaluates the expressions of
symbolic shapes, and resolves every dotted name below `torch`. A file that passes `check_program` uses none of
these: it holds plain tensors, operators of the namespace `aten`, and expressions of a small grammar.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from typing import Any

MEMBERS = re.compile(
    r"models/model\.json|data/weights/(?:weight_\d+|model_weights_config\.json)"
    r"|data/constants/(?:tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|\.data/\w+"
)
OPERATORS = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.(?:add|sub|mul|floordiv|mod|getitem|eq|ge|le|gt|lt)"
)
FORBIDDEN_OPERATORS = ("from_file", "save")
EXPRESSIONS = re.compile(
    r"(?:(?:Add|Mul|Integer|Symbol|FloorDiv|CleanDiv|Mod|PythonMod|Max|Min|positive|nonnegative|integer|True"
    r"|False)\b|'[su]\d+'|[su]\d+\b|\d{1,9}\b|\*(?!\*)|[-+(),= ])*"
)
SYMBOL = re.compile(r"[su]\d+")
# Values that PyTorch resolves to functions or objects; no graph of this package has them.
FORBIDDEN_KEYS = {"as_operator", "as_custom_obj", "as_graph", "as_opaque_obj"}
LONGEST_JSON = 64 << 20  # bytes; the graph of the largest network takes 3 MB


def check_program(data: bytes, metadata_name: str) -> tuple[dict[str, str], io.BytesIO]:
    """Check the bytes of a `.pt2` file.

    Args:
        data: content of the file.
        metadata_name: name of the extra file with the metadata, a JSON object of texts.

    Returns:
        The metadata, and the data as a file to read from.

    Raises:
        ValueError: the file holds something else than a plain graph.
        Exception: of any type, if the file is damaged. Call inside of `errors.reading`.
    """
    file = io.BytesIO(data)
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if sum(info.file_size for info in infos) > len(data):
            raise ValueError("archive whose members are larger than the file")
        root = infos[0].filename.partition("/")[0]
        sizes = {info.filename.removeprefix(f"{root}/"): info.file_size for info in infos}
        if len(sizes) != len(infos):
            raise ValueError("archive that holds a member twice")
        extra = f"extra/{metadata_name}"
        for name, size in sizes.items():
            if name != extra and not MEMBERS.fullmatch(name):
                raise ValueError(f"archive with the member {name!r:.100}")
            if name.endswith(".json") and size > LONGEST_JSON:
                raise ValueError(f"{name} of {size} bytes, expected at most {LONGEST_JSON}")
        if sizes["data/sample_inputs/model.pt"]:
            raise ValueError("sample inputs, which are a pickle")

        def parse(name: str) -> Any:
            return json.loads(archive.read(f"{root}/{name}"))

        for kind in ("weights", "constants"):
            _check_tensors(parse(f"data/{kind}/model_{kind}_config.json"), f"data/{kind}/", sizes)
        _check_graph(parse("models/model.json"))
        metadata = parse(extra)
    if not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata that are not texts")
    file.seek(0)
    return metadata, file


def _check_tensors(config: Any, folder: str, sizes: dict[str, int]) -> None:
    """Check that tensors are stored as plain numbers, as many as their shapes need."""
    for entry in config["config"].values():
        if entry["use_pickle"] is not False:
            raise ValueError("a tensor that is a pickle")
        lengths = [int(length["as_int"]) for length in entry["tensor_meta"]["sizes"]]
        if math.prod(lengths) > sizes[folder + entry["path_name"]]:
            raise ValueError(f"a tensor of shape {lengths}, larger than its data")


def _check_graph(program: Any) -> None:
    """Check operators, expressions and tree descriptions of a graph."""
    if program["guards_code"]:
        raise ValueError("a graph with code of guards")
    if not all(SYMBOL.fullmatch(name) for name in program["range_constraints"]):
        raise ValueError("a range of something else than a symbol")
    for key, value in _items(program):
        if key in FORBIDDEN_KEYS and value is not None:
            raise ValueError(f"a graph with a value {key}")
        if key == "target" and isinstance(value, str):
            is_known = OPERATORS.fullmatch(value)
            if not is_known or any(word in value for word in FORBIDDEN_OPERATORS):
                raise ValueError(f"a graph with the operator {value!r:.100}")
        if key == "expr_str" and not EXPRESSIONS.fullmatch(str(value)):
            raise ValueError(f"a graph with the expression {value!r:.100}")
        if key in ("in_spec", "out_spec") and "__enum__" in str(value):
            raise ValueError("a graph with an enumeration")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of nested objects with its value."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending += item.values()
        elif isinstance(item, list):
            pending += item

"""Imports point down: each part of the package imports only the parts that are listed beside it here."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mmaction_lite"
GROUND = {"errors", "settings", "files", "device", "distributed"}
# The parts of the package, the highest first, and what each may import.
ALLOWED = {
    "__main__": {"cli"},
    "cli": {
        "demo",
        "benchmark",
        "serve",
        "export",
        "training",
        "inference",
        "report",
        "weights",
        "recipes",
        "tasks",
        "data",
    }
    | {"models", "__init__"}
    | GROUND,
    "demo": {"training", "inference", "report", "weights", "recipes", "tasks", "data", "models"} | GROUND,
    "benchmark": {"training", "inference", "weights", "recipes", "tasks", "optim", "data", "models"}
    | {"__init__"}
    | GROUND,
    "serve": {"inference", "report", "weights", "recipes", "tasks", "data", "models", "__init__"} | GROUND,
    "export": {"inference", "weights", "recipes", "tasks", "data", "models", "__init__"} | GROUND,
    "__init__": {"inference", "weights", "recipes"},
    "training": {"inference", "weights", "recipes", "tasks", "optim", "data", "models"} | GROUND,
    "inference": {"weights", "recipes", "tasks", "data", "models"} | GROUND,
    "report": {"tasks", "data"} | GROUND,
    "weights": {"recipes", "tasks", "data", "models"} | GROUND,
    "recipes": {"tasks", "optim", "data", "models"} | GROUND,
    "tasks": GROUND,
    "optim": {"models"} | GROUND,
    "data": GROUND,
    "models": {"settings", "errors"},
    "settings": {"errors"},
    "distributed": {"device", "errors"},
    "device": {"errors"},
    "files": {"errors"},
    "errors": set(),
}
# The folders inside `data`, likewise.
ALLOWED_IN_DATA = {
    "__init__": {"sources", "views"},
    "tools": {"loading", "views", "sources", "annotations"},
    "generated": {"annotations", "loading"},
    "loading": {"views", "sources", "annotations"},
    "views": {"sources"},
    "sources": {"annotations"},
    "annotations": set(),
}
# What kernels and memory layouts may know of the networks: the layers that families share, and no family.
SHARED_LAYERS = {"convolution", "inflated", "recognizer", "resnet", "sub_batch", "fast"}


def part(path: Path, root: Path | None = None) -> str:
    """The first folder or module below `root` (the package) on the way to a file."""
    return path.relative_to(root or PACKAGE).parts[0].removesuffix(".py")


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """All imports of a file, anywhere in it."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]


def imports(path: Path, within: str = "mmaction_lite") -> set[str]:
    """The parts of the package `within` that a file imports, anywhere in the file."""
    found = set()
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:  # relative
            folder = path.relative_to(PACKAGE).parts[: -node.level]
            module = ".".join(("mmaction_lite", *folder, *([node.module] if node.module else [])))
            names = [f"{module}.{alias.name}" for alias in node.names]
        found |= {
            name.removeprefix(f"{within}.").split(".")[0] for name in names if name.startswith(f"{within}.")
        }
    return found


def stray_imports(allowed: dict[str, set[str]], root: Path, within: str) -> list[str]:
    """The imports below `root` that `allowed` does not list."""
    stray = []
    for path in sorted(root.rglob("*.py")):
        own = part(path, root)
        # Other names are those that `__init__` exports, and imports on first use.
        names = {name if name in allowed else "__init__" for name in imports(path, within)}
        stray += [f"{path.relative_to(root)} imports {name}" for name in names - allowed[own] - {own}]
    return stray


@pytest.mark.parametrize("name", sorted({part(path) for path in PACKAGE.rglob("*.py")}))
def test_imports_between_rooms_point_down(name):
    assert not [line for line in stray_imports(ALLOWED, PACKAGE, "mmaction_lite") if line.startswith(name)]


def test_imports_inside_data_point_down():
    assert not stray_imports(ALLOWED_IN_DATA, PACKAGE / "data", "mmaction_lite.data")


def test_models_and_data_never_import_each_other():
    assert "data" not in ALLOWED["models"]
    assert "models" not in ALLOWED["data"]


def test_fast_kernels_import_no_model_family():
    for path in (PACKAGE / "models" / "fast").glob("*.py"):
        assert imports(path, "mmaction_lite.models") <= SHARED_LAYERS, path.name


@pytest.mark.parametrize("allowed", [ALLOWED, ALLOWED_IN_DATA], ids=["rooms", "data"])
def test_the_allowed_imports_have_no_cycle(allowed):
    order: list[str] = []
    left = {name: set(below) for name, below in allowed.items()}
    while ready := [name for name, below in left.items() if below <= set(order)]:
        order += ready
        for name in ready:
            del left[name]
    assert not left


def test_every_room_is_in_the_table_of_imports():
    assert {part(path) for path in PACKAGE.rglob("*.py")} <= ALLOWED.keys()
    assert {
        part(path, PACKAGE / "data") for path in (PACKAGE / "data").rglob("*.py")
    } <= ALLOWED_IN_DATA.keys()


def test_the_check_sees_every_form_of_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    file = tmp_path / "data" / "views" / "x.py"
    file.parent.mkdir(parents=True)
    file.write_text(
        "import mmaction_lite.training\nfrom mmaction_lite import recipes\nfrom .crops import y\n"
        "from ..loading.loader import w\ndef f():\n    from mmaction_lite.models.tsn import z\n"
    )
    assert imports(file) == {"training", "recipes", "models", "data"}
    assert imports(file, "mmaction_lite.data") == {"views", "loading"}
    found = stray_imports(ALLOWED, tmp_path, "mmaction_lite")
    assert sorted(found) == [f"data/views/x.py imports {name}" for name in ("models", "recipes", "training")]
    inside = stray_imports(ALLOWED_IN_DATA, tmp_path / "data", "mmaction_lite.data")
    assert inside == ["views/x.py imports loading"]


def test_names_that_the_package_exports_are_imports_of_it(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x.py").write_text("from mmaction_lite import predict")
    assert stray_imports(ALLOWED, tmp_path, "mmaction_lite") == ["models/x.py imports __init__"]


def test_the_root_of_the_package_is_small():
    assert len(list(PACKAGE.glob("*.py"))) <= 8


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_files_are_short_and_have_a_docstring(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    assert ast.get_docstring(ast.parse(text))
    assert not {"utils", "common", "helpers", "misc", "base"} & set(
        path.relative_to(PACKAGE).with_suffix("").parts
    )

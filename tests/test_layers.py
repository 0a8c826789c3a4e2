"""Imports point down: each part may import what stands beside it here, and nothing else of the package."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mmaction_lite"
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "data": {"errors", "device", "files"},
    "models": {"errors"},
    "optim": {"errors"},
    "loss": {"errors"},
    "distributed": {"errors", "device"},
    "sharding": {"distributed"},
    "gradients": {"errors", "distributed", "loss", "models", "recipes"},
    "metrics": {"errors"},
    "checkpoint": {"errors", "files"},
    "converters": {"errors", "models"},
    "device": {"errors"},
    "complexity": {"errors", "models"},
    "recipes": {"errors", "models", "data", "optim", "loss", "checkpoint", "device", "files"},
    "evaluate": {"errors", "data", "device", "distributed", "models", "metrics", "files"},
    "run": {"errors", "data", "recipes", "evaluate", "checkpoint", "converters", "files"},
    "convert": {"errors", "recipes", "converters"},
    "announce": {"errors", "data", "distributed", "recipes"},
    "watch": {"errors", "data", "device", "distributed", "evaluate", "metrics", "files"},
    "train": {
        "announce",
        "errors",
        "recipes",
        "models",
        "data",
        "optim",
        "loss",
        "device",
        "distributed",
        "gradients",
        "sharding",
        "evaluate",
        "run",
        "watch",
    },
    "recognize": {"errors", "recipes", "models", "data", "device", "evaluate"},
    "report": {"errors", "data", "metrics", "files"},
    "benchmark": {
        "errors",
        "recipes",
        "data",
        "device",
        "models",
        "optim",
        "complexity",
        "converters",
        "distributed",
        "gradients",
        "files",
    },
    "demo": {"errors", "recipes", "data", "evaluate", "train", "recognize", "report"},
    "__init__": {"recipes", "recognize"},
    "__main__": {"cli"},
}


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
            names += (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "mmaction_lite"
                else []
            )
        elif isinstance(node, ast.ImportFrom):  # within a folder
            folder = path.relative_to(PACKAGE).parts[: -node.level]
            names = [".".join(("mmaction_lite", *folder, node.module or ""))]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("mmaction_lite.")}
    return found - {part(path)}


@pytest.mark.parametrize("name", sorted({part(path) for path in PACKAGE.rglob("*.py")} - {"cli"}))
def test_imports_point_down(name):
    files = [path for path in PACKAGE.rglob("*.py") if part(path) == name]
    for path in files:
        stray = imports(path) - ALLOWED[name]
        assert not stray, f"{path.relative_to(PACKAGE)} imports {stray}"


def test_the_allowed_arrows_make_no_circle():
    order: list[str] = []
    left = {name: set(below) for name, below in ALLOWED.items()}
    while ready := [name for name, below in left.items() if below <= {*order, "cli"}]:
        order += ready
        for name in ready:
            del left[name]
    assert not left


def test_the_check_sees_every_form_of_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    file = tmp_path / "data" / "x.py"
    file.parent.mkdir()
    file.write_text(
        "import mmaction_lite.training.loop\nfrom mmaction_lite import recipes\nfrom .clips import y\n"
        "def f():\n    from mmaction_lite.models.tsn import z\n"
    )
    assert imports(file) == {"train", "recipes", "models"}


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_files_are_short_and_say_what_they_are_about(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    assert ast.get_docstring(ast.parse(text))
    assert not {"utils", "common", "helpers", "misc", "base"} & set(
        path.relative_to(PACKAGE).with_suffix("").parts
    )

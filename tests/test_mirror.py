"""Every module of the package has a test file of its name, which imports it and calls something of it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "mmaction_lite", ROOT / "tests"
MODULES = sorted(
    path.relative_to(PACKAGE)
    for path in PACKAGE.rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)

Names = dict[str, set[str]]


def places(module: Path, tests: Path = TESTS) -> list[Path]:
    """Where the tests of a module may be: in the same folder, or in any folder above it but the root."""
    *folders, _ = module.parts
    depths = range(len(folders), 0, -1) if folders else [0]
    return [tests.joinpath(*folders[:depth], f"test_{module.name}") for depth in depths]


def imported_names(tree: ast.Module, dotted: str) -> set[str]:
    """The names under which a file knows the module `dotted`, or something that it imports from it."""
    package, _, last = dotted.rpartition(".")
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or "mmaction_lite" for alias in node.names if alias.name == dotted}
        elif isinstance(node, ast.ImportFrom) and node.module == dotted:
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == package:
            names |= {alias.asname or alias.name for alias in node.names if alias.name == last}
    return names


def used_names(tree: ast.Module) -> Names:
    """For each function, class and constant of a file, the names that it uses, arguments included."""
    used: Names = {}
    for node in tree.body:
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        names |= {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            used.setdefault(node.name, set()).update(names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for inner in ast.walk(target):
                    if isinstance(inner, ast.Name):
                        used.setdefault(inner.id, set()).update(names)
    return used


def exercises(text: str, dotted: str) -> bool:
    """Whether a test function uses the module, directly or through fixtures and constants of the file."""
    tree = ast.parse(text)
    wanted, used = imported_names(tree, dotted), used_names(tree)
    reached = {name for name in used if name.startswith("test_")}
    while more := set().union(*(used.get(name, set()) for name in reached)) - reached:
        reached |= more
    return bool(wanted & reached)


def has_tests(module: Path) -> bool:
    dotted = ".".join(("mmaction_lite", *module.with_suffix("").parts))
    return any(
        path.exists() and exercises(path.read_text(encoding="utf-8"), dotted) for path in places(module)
    )


@pytest.mark.parametrize("module", MODULES, ids=Path.as_posix)
def test_module_has_a_test_file_of_its_name(module):
    names = " or ".join(path.relative_to(ROOT).as_posix() for path in places(module))
    assert has_tests(module), f"{module}: expected tests in {names} that import it and call something of it"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from mmaction_lite.data.sources.video import Video\ndef test_a():\n    Video('x')\n", True),
        ("from mmaction_lite.data.sources import video\ndef test_a():\n    video.Video('x')\n", True),
        ("import mmaction_lite.data.sources.video as v\ndef test_a():\n    v.Video('x')\n", True),
        ("def test_a():\n    from mmaction_lite.data.sources.video import Video as V\n    V('x')\n", True),
        ("from mmaction_lite.data.sources.video import Video\ndef test_a():\n    pass\n", False),
        ("from mmaction_lite.data.sources.video import Video\ndef helper():\n    Video('x')\n", False),
        ("from mmaction_lite.data.sources.frames import Frames\ndef test_a():\n    Frames('x')\n", False),
        (
            "from mmaction_lite.data.sources.video import Video\n@pytest.fixture\ndef video():\n"
            "    return Video('x')\ndef test_a(video):\n    assert video\n",
            True,
        ),
        (
            "from mmaction_lite.data.sources.video import open_video\nCASES = [open_video]\n"
            "@pytest.mark.parametrize('case', CASES)\ndef test_a(case):\n    case()\n",
            True,
        ),
    ],
)
def test_imports_and_uses_are_recognized(text, expected):
    assert exercises(text, "mmaction_lite.data.sources.video") == expected


def test_folders_below_a_room_may_be_flattened():
    assert places(Path("data/sources/video.py"), Path("tests")) == [
        Path("tests/data/sources/test_video.py"),
        Path("tests/data/test_video.py"),
    ]
    assert places(Path("device.py"), Path("tests")) == [Path("tests/test_device.py")]

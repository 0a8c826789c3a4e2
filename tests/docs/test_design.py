"""The trees on the page about the design are those of the package."""

import re

from tests.docs.pages import ROOT, blocks, page_text

PACKAGE = ROOT / "mmaction_lite"


def test_every_folder_and_every_file_of_the_root_is_in_the_tree():
    (tree,) = (block.text for block in blocks(page_text("docs/design.md")) if "mmaction_lite/" in block.text)
    named = set(re.findall(r"^[│├└─ ]*([\w.]+(?:\.py|/))", tree, re.MULTILINE))
    files = {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.name}/" for path in PACKAGE.rglob("*") if path.is_dir() and path.name[0] != "_"}
    above = {"mmaction_lite/", "tests/", "benchmarks/", "docs/"}
    assert named - above == files | folders


def test_every_file_of_the_folders_for_trained_models_is_in_the_second_tree():
    (tree,) = (block.text for block in blocks(page_text("docs/design.md")) if block.text.startswith("cli/"))
    named: dict[str, list[str]] = {}
    names: list[str] = []
    for line in tree.splitlines():
        if line.endswith("/"):
            names = named.setdefault(line.rstrip("/"), [])
        else:
            names += re.findall(r"\w+\.py", line)
    assert set(named) == {"cli", "inference", "export", "tasks"}
    for folder, names in named.items():
        files = [path.name for path in (PACKAGE / folder).glob("*.py") if path.name != "__init__.py"]
        assert sorted(names) == sorted(files), folder

"""The wheel and the source archive as a user gets them: complete, described, installable, importable."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import mmaction_lite

ROOT = Path(__file__).parent.parent

IMPORT_ALL = """
import importlib.metadata, pkgutil, mmaction_lite
assert {folder!r} in mmaction_lite.__file__, mmaction_lite.__file__
for module in pkgutil.walk_packages(mmaction_lite.__path__, "mmaction_lite."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
print("version", mmaction_lite.__version__, importlib.metadata.version("mmaction-lite"))
"""


def run(*command: object, cwd: Path) -> str:
    words, environment = [str(part) for part in command], dict(os.environ)
    environment.pop("PYTHONPATH", None)  # which would hide what is installed
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, built from the source archive, and the source archive."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, ROOT, cwd=out)
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, source


def test_the_version_has_one_place():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r"^version = ", project, re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", mmaction_lite.__version__)
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_version_is_known_without_importing_pytorch():
    code = "import sys, mmaction_lite; print(mmaction_lite.__version__, 'torch' in sys.modules)"
    assert run(sys.executable, "-c", code, cwd=ROOT).split() == [mmaction_lite.__version__, "False"]


@pytest.mark.slow
def test_the_archives_pass_the_check_of_the_index(archives):
    run(sys.executable, "-m", "twine", "check", "--strict", *archives, cwd=ROOT)


@pytest.mark.slow
def test_the_archives_hold_every_file_of_the_package(archives):
    wheel, source = archives
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "mmaction_lite").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"mmaction_lite/py.typed", "mmaction_lite/report/page.html.jinja"} <= package
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    peers = {file.name for file in (ROOT / "benchmarks" / "peers").iterdir() if file.is_file()}
    assert {"worker_mit_tsm.py", "pyslowfast.txt"} <= peers
    package_files = package | {f"mmaction_lite/benchmark/peers/{name}" for name in peers}
    assert package_files <= names
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert package | {"LICENSE", "README.md", "CHANGELOG.md", "constraints.txt", "Makefile"} <= names
    assert not [name for name in names if name.startswith((".venv", "runs", "build", "docs/generated/"))]


@pytest.mark.slow
def test_the_built_wheel_installs_in_a_clean_environment_and_imports_every_module(tmp_path, archives):
    wheel, _ = archives
    # The environment gets no pip of its own, and what is never imported is not compiled.
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "clean", cwd=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    options = ["--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt"]
    run(*pip, "install", *options, f"{wheel}[serve]", cwd=tmp_path)
    imported = run(python, "-c", IMPORT_ALL.format(folder=str(tmp_path)), cwd=tmp_path).split()
    modules = {path.stem for path in (ROOT / "mmaction_lite").rglob("*.py")} - {"__init__", "__main__"}
    assert {name.rsplit(".", 1)[-1] for name in imported} >= modules
    assert imported[-3:] == ["version", mmaction_lite.__version__, mmaction_lite.__version__]
    assert "train" in run(tmp_path / "clean" / "bin" / "mmaction-lite", "--help", cwd=tmp_path)
    for file in ("report/page.html.jinja", "serve/page/index.html", "serve/reference/reference.js"):
        assert list((tmp_path / "clean").rglob(f"mmaction_lite/{file}")), file

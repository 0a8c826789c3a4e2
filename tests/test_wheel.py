import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

IMPORT_ALL = """
import importlib, pkgutil, mmaction_lite
assert {folder!r} in mmaction_lite.__file__, mmaction_lite.__file__
for module in pkgutil.walk_packages(mmaction_lite.__path__, "mmaction_lite."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""


@pytest.mark.slow
def test_the_built_wheel_installs_in_a_clean_environment_and_imports_every_module(tmp_path):
    def run(*command, cwd=tmp_path):
        done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "clean")
    python = tmp_path / "clean" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel)
    imported = run(python, "-c", IMPORT_ALL.format(folder=str(tmp_path))).split()
    modules = {path.stem for path in (ROOT / "mmaction_lite").rglob("*.py")} - {"__init__", "__main__"}
    assert {name.rsplit(".", 1)[-1] for name in imported} >= modules
    assert "train" in run(tmp_path / "clean" / "bin" / "mmaction-lite", "--help")
    assert list((tmp_path / "clean").rglob("mmaction_lite/report.html.jinja"))

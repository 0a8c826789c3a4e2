"""The documentation site as a reader gets it: it builds without a warning and works without a network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow


def run(*command: object, **options: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)  # pyright: ignore
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_site_builds_without_a_warning_and_loads_nothing_from_other_hosts(tmp_path):
    # `make docs` runs the notebook; here the test below does.
    run(
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-j",
        "2",
        "-b",
        "html",
        "-D",
        "nb_execution_mode=off",
        ROOT / "docs",
        tmp_path,
    )
    assert "data-start_md" not in (tmp_path / "index.html").read_text()
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 80
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)\b[^>]*\bsrc=\"([^\"]+)\"", text)
        loaded += re.findall(r"<link\b[^>]*\bhref=\"([^\"]+)\"", text)
        assert not [link for link in loaded if re.match(r"(https?:)?//", link)], page
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text(encoding="utf-8")), (
            style
        )
    index = (tmp_path / "searchindex.js").read_text(encoding="utf-8")
    assert "quarantin" in index
    start = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="tutorial.html"' in start
    assert 'href="generated/api/index.html"' in start


def test_the_notebook_runs_and_draws_its_pictures(tmp_path):
    notebook = tmp_path / "tutorial.ipynb"
    notebook.write_bytes((ROOT / "docs" / "tutorial.ipynb").read_bytes())
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    run(sys.executable, "-m", "jupyter", "execute", "--inplace", "--timeout=300", notebook, env=environment)
    outputs = [
        output
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
    ]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 5
    text = "".join("".join(output.get("text", ())) for output in outputs)
    (accuracy,) = re.findall(r"^top-1 ([\d.]+)%", text, re.MULTILINE)
    assert float(accuracy) > 80
    assert "report.html" in text
    assert re.search(r"^appear +0\.\d+", text, re.MULTILINE)

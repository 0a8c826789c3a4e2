"""The commands and the Python blocks of the README run on small data, and its results are measured ones."""

import re
import shutil
import tomllib

import pytest

from tests.docs.pages import ROOT, page_text, run_page, write_clips_and_weights
from tests.weights.public import public_weights

pytestmark = pytest.mark.usefixtures("one_thread")

README = page_text("README.md")


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_make_targets_of_the_readme_are_the_usual_ones():
    assert {"demo", "test", "test-full", "lint", "docs"} <= set(re.findall(r"make ([\w-]+)", README))


def test_the_readme_names_what_pip_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {"av": "pyav", "torch": "pytorch"}
    for page in (README, page_text("docs/start.md")):
        text = page.lower()
        for dependency in project["dependencies"]:
            name = re.split(r"[><=\[]", dependency)[0].lower()
            assert names.get(name, name) in text, dependency
        for extra in project["optional-dependencies"].keys() - {"dev", "docs"}:
            assert f"`{extra}`" in text, extra


def test_every_command_and_every_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clips_and_weights(tmp_path)
    with public_weights(tmp_path / "cache"):
        assert run_page(README) == 6
    assert (tmp_path / "runs" / "mine" / "report.html").exists()
    shutil.rmtree(tmp_path / "runs")


def test_the_results_of_the_readme_are_those_of_the_benchmark_page():
    page = page_text("docs/benchmark.md")
    (measured,) = re.findall(r"^## Intel[^:\n]*$(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    number = r" ([\d.]+) \|"
    rows = re.findall(rf"^\| ([^|]+) \|{number * 4}$", README, re.MULTILINE)
    assert len(rows) >= 5
    for setting, *ratios in rows:
        (row,) = re.findall(
            rf"^\| {re.escape(setting)} \| MMAction2 1\.2\.0 \|.*\*\*.*$", measured, re.MULTILINE
        )
        assert ratios == re.findall(r"\*\*([\d.]+)\*\*", row), setting

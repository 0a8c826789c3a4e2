"""The commands and the Python blocks of the documentation run, and its links and options exist."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from mmaction_lite import get_recipe, list_recipes, list_weights
from mmaction_lite.data.generated import motions
from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.data.views.normalize import Normalize
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.tasks.named import TASKS
from mmaction_lite.tasks.task import Task
from tests.docs.pages import ROOT, blocks, commands, lines, page_text, run, run_page, unknown_options
from tests.docs.pages import write_clips_and_weights as write_clips

pytestmark = pytest.mark.usefixtures("one_thread")

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    if "generated" not in path.parts
)
LANGUAGES = {"bash", "sh", "python", "cpp", "js", "text", ""}
LANGUAGES |= {"{image}", "{include}", "{literalinclude}", "{toctree}"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips, weights of other projects, and the run that the README trains."""
    folder = tmp_path_factory.mktemp("pages")
    write_clips(folder)
    (train,) = re.findall(r"^mmaction-lite train .*", page_text("README.md"), re.MULTILINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(train)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, trained):
    """A copy of that folder, in which the commands of a page run."""
    folder = tmp_path / "here"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    yield folder
    for name, module in list(sys.modules.items()):  # another page may write another file of this name
        if str(getattr(module, "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES)
def test_links_targets_and_options_exist(page):
    text = page_text(page)
    assert {block.language for block in blocks(text)} <= LANGUAGES
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        path = (ROOT / page).parent / link
        # Pages in docs/generated are written when the site is built.
        assert link.startswith("https://") or "generated/" in link or path.exists(), link
    targets = set(re.findall(r"^([\w-]+):", page_text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= targets
    for line in commands(text):
        assert not unknown_options(line), line
    recipes = list_recipes()
    for recipe in re.findall(r"\b(?:ts[nm]|i3d|slow\w*?|r2plus1d)_r?\w+?_\d+e_\w+_rgb\b(?!@)", text):
        assert recipe in recipes, recipe
    for name in re.findall(r"(?<![\w.-])[\w.-]+@(?:mmaction2|pytorchvideo|torchvision|mit)\b", text):
        assert name in list_weights(), name


def test_unknown_commands_and_options_are_found():
    assert unknown_options("tarin x --data y") == ["tarin"]
    assert unknown_options("train x --dta y --data z") == ["--dta"]
    assert not unknown_options("data validate my_clips --out checked")


def test_start(here, monkeypatch):
    splits = {"train": range(20), "val": range(500, 505), "test": range(600, 620)}
    monkeypatch.setattr(
        motions.generate, "__kwdefaults__", (motions.generate.__kwdefaults__ or {}) | {"splits": splits}
    )
    assert run_page(page_text("docs/start.md")) >= 7
    assert (here / "runs" / "tsm" / "report.html").exists()


def test_own_clips(here):
    assert run_page(page_text("docs/own_clips.md")) >= 8
    assert (here / "clips.png").stat().st_size > 1000
    assert (here / "runs" / "doors" / "report.html").exists()


def test_training(here):
    shutil.rmtree(here / "runs")
    page = page_text("docs/training.md")
    clips = Normalize()(torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8))
    assert run_page(page, {"clips": [clips]}) >= 4
    assert "layer_decay=0.7" in (here / "runs" / "finetuned" / "recipe.txt").read_text()
    assert (here / "runs" / "python" / "weights.safetensors").exists()
    assert "AdamW" in (here / "runs" / "own" / "recipe.txt").read_text()


@pytest.mark.slow
def test_probes(here):
    shutil.rmtree(here / "runs" / "probe", ignore_errors=True)
    assert run_page(page_text("docs/train/probe.md")) >= 7
    for name in ("probe", "linear", "attentive", "grid"):
        assert (here / "runs" / name / "weights.safetensors").exists()
    recipe = (here / "runs" / "grid" / "recipe.txt").read_text()
    assert "learning_rates=(0.001, 0.01, 0.1)" in recipe


def test_every_setting_of_the_page_about_training_changes_a_recipe():
    base = get_recipe("tsm_r50_1x1x8_50e_kinetics400_rgb")
    section = page_text("docs/training.md").partition("## Settings")[2].partition("\n## ")[0]
    settings = re.findall(r"`([\w.]+=[^`]+)`", section)
    for setting in settings:
        assert apply_overrides(base, [setting]) != base, setting
    fields = {setting.partition("=")[0] for setting in settings}
    assert {"precision", "compile", "batch_norm", "freeze", "optimizer.layer_decay", "patience"} <= fields


def test_testing(here):
    page = page_text("docs/testing.md")
    assert run_page(page) >= 2
    line = next(block.text for block in blocks(page) if block.language == "text")
    assert line.startswith(f"{get_recipe('tsm_r10_1x1x8_12e_motions_rgb').test_protocol}; 200 videos of ")


def test_usage(here):
    assert run_page(page_text("docs/usage.md")) >= 2


def test_predict(here):
    assert run_page(page_text("docs/use/predict.md")) == 4
    assert (here / "annotated.mp4").stat().st_size > 1000
    assert len((here / "predictions.jsonl").read_text().splitlines()) == 20


def test_live(here):
    assert run_page(page_text("docs/use/live.md")) == 2
    rows = (here / "answers.jsonl").read_text().splitlines()
    assert all('"protocol"' in row for row in rows)


def test_timeline(here):
    assert run_page(page_text("docs/use/timeline.md")) == 3
    assert len((here / "segments" / "segments.csv").read_text().splitlines()) >= 1
    assert (here / "segments" / "some_clip.windows.jsonl").exists()
    assert (ROOT / "docs" / "use" / "timeline.png").stat().st_size < 120e3


def test_features(here):
    pytest.importorskip("sklearn")
    assert run_page(page_text("docs/use/features.md")) == 4
    assert len(list((here / "runs" / "mine" / "features").rglob("*.npz"))) == 16


@pytest.mark.slow
def test_export(here):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert run_page(page_text("docs/use/export.md")) == 5
    assert (here / "mine_int8.onnx").stat().st_size < (here / "mine.onnx").stat().st_size


@pytest.mark.slow
def test_serve(here):
    """The requests of the page against a server on another port; the commands are only checked."""
    pytest.importorskip("fastapi")
    from mmaction_lite.serve.app import create_app
    from mmaction_lite.serve.models import Models
    from mmaction_lite.serve.settings import ServeSettings
    from tests.serve.running import running

    settings = ServeSettings(workers=WorkerSettings(num_workers=1))
    with running(create_app(settings, Models(["runs/mine"], settings.memory_budget, "cpu"))) as client:
        page = page_text("docs/use/serve.md").replace("http://127.0.0.1:8000", str(client.base_url))
        run_page(page)
        requests = [line for block in blocks(page) for line in lines(block) if line.startswith("curl ")]
        assert len(requests) == 3
        for line in requests:
            if shutil.which("curl"):
                done = subprocess.run(shlex.split(line), capture_output=True, check=True)
                assert set(json.loads(done.stdout)) & {"predictions", "id", "models"}
    for name in ("serve", "serve_data", "serve_phone"):
        assert (ROOT / "docs" / "use" / f"{name}.png").stat().st_size < 120e3


def test_explain(here):
    assert run_page(page_text("docs/use/explain.md")) == 3
    assert (here / "explained" / "another_clip.up.mp4").stat().st_size > 1000
    assert (ROOT / "docs" / "use" / "explain.png").stat().st_size < 120e3


def test_zoo(here):
    assert run_page(page_text("docs/zoo.md")) == 4


def test_data(here):
    (here / "shards").mkdir()
    for name, label in (("a", "up"), ("b", "down")):
        with tarfile.open(here / "shards" / f"{name}.tar", "w") as tar:
            tar.add(here / "my_clips" / label, arcname=label)
    run_page(page_text("docs/data.md"))
    assert len((here / "shards" / "train.csv").read_text().splitlines()) == 21


def test_the_front_page_shows_commands_of_the_readme():
    (block,) = (block for block in blocks(page_text("docs/index.md")) if block.language == "bash")
    assert block in blocks(page_text("README.md"))


@pytest.mark.parametrize("page", ["docs/models.md", "docs/recipes.md"])
def test_other_pages(page, here):
    shutil.rmtree(here / "runs")
    run_page(page_text(page))


@pytest.mark.parametrize("name", ["model", "dataset", "modality"])
def test_extending(name, here):
    assert run_page(page_text(f"docs/extending/{name}.md")) >= 1


def test_extending_a_task():
    page = page_text("docs/extending/task.md")
    run_page(page)
    table = page.partition("## What a task does")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(TASKS)
    members = {name for name in vars(Task) if not name.startswith("_")}
    assert members <= set(re.findall(r"\w+", page))


@pytest.mark.slow
def test_online(here, monkeypatch):
    splits = {"train": range(20), "val": range(500, 510), "test": range(600, 620)}
    monkeypatch.setattr(
        motions.generate, "__kwdefaults__", (motions.generate.__kwdefaults__ or {}) | {"splits": splits}
    )
    assert run_page(page_text("docs/use/online.md")) == 4
    assert (here / "online.png").stat().st_size > 1000


def test_scores(here):
    shutil.copytree("runs/mine", "runs/other")
    assert run_page(page_text("docs/use/scores.md")) == 4
    for name in ("slices.csv", "flips.csv", "reliability.png"):
        assert (here / name).exists()

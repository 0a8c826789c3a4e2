"""Everything that the README shows is run, in the order of the page, on small data."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from mmaction_lite import get_recipe
from mmaction_lite.cli import main
from mmaction_lite.data.generated import motions
from mmaction_lite.models import tsm_r50
from mmaction_lite.recipes.overrides import apply_overrides
from tests.conftest import brightening, write_video

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text):
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


BLOCKS = blocks(README)
# What makes the published recipe on the page small enough for a test; later settings win.
SMALL = ["epochs=1", "batch_size=4", "model.width=8"]
SMALL += [f"{views}.crop.size=(32,32)" for views in ("train", "val", "test")]
SMALL = [part for setting in SMALL for part in ("--set", setting)]


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"make ([\w-]+)", README))
    assert {"demo", "test", "test-full", "lint"} <= named
    assert named <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def test_files_and_pictures_of_the_readme_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/report.png" in links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_tree_of_the_readme_is_the_tree():
    (tree,) = [text for language, text in BLOCKS if language == "" and "mmaction_lite/" in text]
    named = set(re.findall(r"([\w.]+(?:\.py|/))", tree))
    package = ROOT / "mmaction_lite"
    top = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    assert top <= named
    for parent in (package, package / "data"):
        folders = {f"{path.name}/" for path in parent.iterdir() if path.is_dir() and path.name[0] != "_"}
        assert folders <= named


def test_every_command_and_every_python_block_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    splits = {"train": range(40), "val": range(500, 510), "test": range(600, 620)}
    monkeypatch.setattr(
        motions.generate, "__kwdefaults__", (motions.generate.__kwdefaults__ or {}) | {"splits": splits}
    )
    write_clips_and_weights(tmp_path)
    commands = 0
    for language, text in BLOCKS:
        if language == "python" and (name := re.match(r"# (\w+\.py)", text)):
            (tmp_path / name[1]).write_text(text)
            (command,) = re.findall(r"mmaction-lite .*", text)
            run(command.replace("runs/mine", "runs/own"), capsys)
        elif language == "python":
            exec(compile(text, "README.md", "exec"), {})
        elif language == "bash":
            for line in text.strip().splitlines():
                run(line, capsys)
                commands += 1
    assert commands >= 10
    (command,) = re.findall(r"`(mmaction-lite test .*--recipe [^`]*)`", README)
    run(command, capsys)


def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_clips_and_weights(tmp_path)
    tutorial = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    lines = [line for language, text in blocks(tutorial) if language == "bash" for line in text.splitlines()]
    for line in lines:
        run(line, capsys)
    assert len(lines) == 8
    assert (tmp_path / "clips.png").stat().st_size > 1000
    assert (tmp_path / "runs" / "doors" / "report.html").exists()


def test_fine_tuning_as_the_page_on_training_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_clips_and_weights(tmp_path)
    (tmp_path / "resnet50.pth").rename(tmp_path / "kinetics.pth")
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (line,) = [text for language, text in blocks(page) if language == "bash"]
    run(line, capsys)
    text = (tmp_path / "runs" / "mine" / "recipe.txt").read_text()
    assert "layer_decay=0.7" in text
    # Every switch of the table is one.
    base = get_recipe("tsm_r50_1x1x8_50e_kinetics400_rgb")
    settings = re.findall(r"`([\w.]+=[^`]+)`", page.partition("## Switches")[2].partition("\n## ")[0])
    assert len(settings) >= 12
    for setting in settings:
        assert apply_overrides(base, [setting]) != base


def write_clips_and_weights(folder):
    """What a user has before the first command."""
    for number in range(20):
        write_video(folder / "my_clips" / ("up", "down")[number % 2] / f"{number}.mp4", brightening(number))
    write_video(folder / "some_clip.mp4", brightening(0))
    image_weights = {
        name.removeprefix("backbone."): tensor
        for name, tensor in tsm_r50(num_classes=2, width=8).state_dict().items()
        if name.startswith("backbone.")
    }
    torch.save(image_weights, folder / "resnet50.pth")  # torchvision's names, without its classifier


def run(line, capsys):
    program, *arguments = shlex.split(line)
    assert program == "mmaction-lite"
    if arguments[0] == "benchmark":
        arguments += ["--workers", "0"]
    if arguments[0] == "train" and "motions" not in line:
        arguments += SMALL
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert not exit_.value.code, (line, capsys.readouterr().err)

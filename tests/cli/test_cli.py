import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch

from mmaction_lite import list_recipes
from tests.cli.conftest import SMALL

pytestmark = pytest.mark.usefixtures("one_thread")


def test_main_job_from_the_command_line(run, tiny, tmp_path, motions_recipe):
    out = tmp_path / "run"
    code, output, error = run("train", motions_recipe, "--data", tiny, "--out", out, *SMALL)
    assert code == 0, error
    assert "3 steps done" in output
    assert "modified: batch_size=4, epochs=1, model.width=8" in error
    assert "note: lr 0.02 belongs to the recipe's batch size" in error
    assert "12 clips, 2 classes with 6 clips each" in error
    code, output, error = run("test", out, "--data", tiny, "--dump", out / "test.npz", "--workers", 0)
    assert code == 0, error
    assert f"6 videos of {tiny}/val, 0 unreadable" in output
    code, output, _ = run("report", out)
    assert code == 0
    assert output.strip() == str(out / "report.html")
    assert (out / "report.html").read_text().startswith("<!")
    code, _, error = run("train", motions_recipe, "--data", tiny, "--out", out, *SMALL)
    assert (code, "already used; pass --resume" in error) == (2, True)
    code, output, _ = run("train", motions_recipe, "--data", tiny, "--out", out, *SMALL, "--resume")
    assert (code, "3 steps done" in output) == (0, True)


def test_json_is_one_object_on_standard_output(run, trained, tiny):
    code, output, _ = run("list", "--json")
    assert (code, {row["name"] for row in json.loads(output)["recipes"]}) == (0, set(list_recipes()))
    code, output, _ = run("test", trained, "--data", tiny, "--protocol", "val", "--workers", 0, "--json")
    result = json.loads(output)
    assert code == 0
    assert result["videos"] == 6
    assert "1 clip × 1 crop" in result["protocol"]
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert result["top1"] == rows[-1]["top1"]
    clip = tiny / "val" / "up" / "12.mp4"
    code, output, _ = run("predict", trained / "weights.safetensors", clip, "--json")
    (row,) = json.loads(output)["videos"]
    assert sum(label["score"] for label in row["predictions"]) == pytest.approx(1)
    code, output, _ = run("data", "validate", tiny, "--json")
    assert code == 0
    facts = json.loads(output)["splits"]["train"]
    assert (facts["source"], facts["videos"], facts["unreadable"]) == (f"{tiny}/train", 12, 0)
    assert facts["videos_per_class"] == {"min": 6, "max": 6}


def test_weights_start_another_training_with_other_classes(run, trained, tiny, tmp_path, motions_recipe):
    for split in ("train", "val"):
        for name in ("up", "down"):
            (tmp_path / "data" / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / split / name).symlink_to(tiny / split / name)
        (tmp_path / "data" / split / "third").symlink_to(tiny / split / "up")
    arguments = ["--data", tmp_path / "data", "--out", tmp_path / "run", *SMALL]
    code, _, error = run("train", motions_recipe, *arguments, "--init-from", trained / "weights.safetensors")
    assert code == 0, error
    assert "re-initialized: fc.weight, fc.bias" in error


def mistakes(trained, tiny, tmp_path, recipe):
    clip = tiny / "val" / "up" / "12.mp4"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "classes.txt").write_text("a\nb\n")
    (tmp_path / "bad" / "train.txt").write_text(f"{clip} 0\n{clip} 2\n")
    run = ["--out", str(tmp_path / "run")]
    return [
        (["train", "tsm_r51", "--data", tiny, *run], "no recipe is named 'tsm_r51'; nearest: "),
        (
            ["train", recipe, "--data", tiny, *run, "--set", "epoch=3"],
            "Recipe has no field 'epoch'; nearest: epochs",
        ),
        (["train", recipe, "--data", tiny, *run, "--set", "epochs=x"], "epochs is 'x'; expected an integer"),
        (["train", recipe, "--data", tmp_path / "empty", *run], "empty: found no clips"),
        (["train", recipe, "--data", tmp_path / "gone", *run], "gone: no such file or folder"),
        (["train", recipe, "--data", tmp_path / "bad", *run], "train.txt:2: label 2 is out of range"),
        (["train", recipe, "--data", tiny, "--out", tmp_path / "file", *SMALL], "file: is already used"),
        (["train", recipe, "--data", tiny, "--out", tmp_path / "file" / "x", *SMALL], "file/x: "),
        (["train", recipe, "--data", tiny, "--out", "/proc/run", *SMALL], "/proc/run: "),
        (["train", recipe, "--data", tiny, *run, *SMALL, "--resume"], "last.pt: no such file"),
        (["train", recipe, "--data", tiny, *run, "--device", "gpu", *SMALL], "--device gpu: not usable here"),
        (
            ["train", recipe, "--data", tiny, *run, *SMALL, "--init-from", tmp_path / "file"],
            "file: not a checkpoint",
        ),
        (["train", recipe, "--data", tiny, *run, "--seed", "-1"], "Invalid value for '--seed'"),
        (
            ["train", recipe, "--data", tiny, *run, "--device", "meta", *SMALL],
            "--device meta: not usable here",
        ),
        (["train", recipe, "--data", tiny, *run, "--set", "train.crop.size=(0,0)"], "size is (0, 0)"),
        (["train", recipe, "--data", tiny, *run, "--set", "train.short_side=0"], "short_side is 0"),
        (["train", recipe, "--data", tiny, *run, "--set", "train.flip=7"], "flip is 7"),
        (["train", recipe, "--data", tiny, *run, "--set", "optimizer.betas=(2,2)"], "betas is (2, 2)"),
        (["train", recipe, "--data", tiny, *run, "--set", "model.width.x=2"], "has no field 'x'"),
        (
            ["train", recipe, "--data", tiny, *run, *SMALL, "--set", "model.width=-3"],
            "width is -3; expected an integer, at least 1",
        ),
        (
            ["train", recipe, "--data", tiny, *run, "--set", "normalize.std=(0,1,1)"],
            "std is (0, 1, 1); expected a tuple of 3 values",
        ),
        (["train", recipe, "--out", tmp_path / "run"], "Missing option '--data'"),
        (["tarin"], "No such command 'tarin'"),
        (["test", trained, "--data", tiny, "--protocol", "fast"], "Invalid value for '--protocol'"),
        (
            ["test", trained, "--data", tiny, "--amp", "half"],
            "Invalid value for '--amp': 'half' is not one of 'bfloat16', 'float16'",
        ),
        (
            ["test", trained, "--data", tiny, "--int8", "--amp", "bfloat16"],
            "int8 does not work with amp",
        ),
        (["test", trained], "Missing option '--data' (see mmaction-lite test --help)"),
        (["test", tmp_path / "gone.pt", "--data", tiny], "gone.pt: no such file"),
        (["test", tmp_path / "text.mp4", "--data", tiny], "text.mp4: is damaged or not a checkpoint"),
        (
            ["test", trained, "--data", tiny, "--dump", tmp_path / "x.csv"],
            "expected a file name ending in .npz",
        ),
        (["test", trained, "--data", tiny, "--dump", "/nowhere/x.npz"], "in a writable folder"),
        (["test", tmp_path / "empty", "--data", tiny], "empty: has no best.pt"),
        (["train", "my.py", "--data", tiny, *run], "expected FILE.py:FUNCTION, such as my.py:my_recipe"),
        (["test", trained, "--data", tmp_path / "bad"], "bad: has no test split; add "),
        (["predict", trained, tmp_path / "gone.mp4"], "gone.mp4: "),
        (["predict", trained, tmp_path / "text.mp4"], "text.mp4: "),
        (["predict", trained, tmp_path / "empty"], "empty: "),
        (["report", tmp_path / "empty"], "empty"),
        (["data", "generate", trained], str(trained)),
    ]


def test_every_user_error_is_one_line_and_exit_code_2(run, trained, tiny, tmp_path, motions_recipe):
    before = {path: path.stat().st_mtime_ns for path in trained.iterdir()}
    for arguments, message in mistakes(trained, tiny, tmp_path, motions_recipe):
        code, output, error = run(*arguments)
        assert code == 2, (arguments, output, error)
        assert len(error.strip().splitlines()) == 1, (arguments, error)
        assert message in error, (arguments, error)
        assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "file").read_text() == "in the way"
    assert before == {path: path.stat().st_mtime_ns for path in trained.iterdir()}


def test_convert_writes_weights_that_load(run, tmp_path):
    from mmaction_lite import load
    from mmaction_lite.models import tsn_r50
    from mmaction_lite.weights.card import card_of

    network = tsn_r50(num_classes=3)
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "x.pth"
    )
    (tmp_path / "names.txt").write_text("run\njump\nswim\n")
    arguments = ["--recipe", "tsn_r50_1x1x3_100e_kinetics400_rgb", "--out", tmp_path / "w.safetensors"]
    code, output, error = run("convert", tmp_path / "x.pth", *arguments, "--classes", tmp_path / "names.txt")
    assert code == 0, error
    assert [line.split(":")[0] for line in output.splitlines()] == ["loaded", "re-initialized", "unused"]
    model = load(tmp_path / "w.safetensors")
    assert card_of(model).classes == ("run", "jump", "swim")
    assert card_of(model).test.num_views == 10
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    code, _, error = run("convert", tmp_path / "x.pth", *arguments)
    assert (code, "w.safetensors: expected a new file" in error) == (2, True)
    arguments[-1] = tmp_path / "other.safetensors"
    (tmp_path / "names.txt").write_text("run\njump\n")
    code, _, error = run("convert", tmp_path / "x.pth", *arguments, "--classes", tmp_path / "names.txt")
    assert (code, "x.pth: the classifier has 3 classes; expected 2" in error) == (2, True)
    arguments[1] = "tsm_r50_1x1x8_50e_kinetics400_rgb"
    torch.save({"a": torch.ones(1)}, tmp_path / "y.pth")
    code, _, error = run("convert", tmp_path / "y.pth", *arguments)
    assert (code, len(error.splitlines()), "y.pth: weights of unknown origin" in error) == (2, 1, True)


@pytest.mark.slow
def test_names_of_recipes_are_printed_whole(run):
    code, output, _ = run("list")
    assert code == 0
    assert set(list_recipes()) <= set(output.split())


def test_list_models_prints_size_and_cost(run):
    code, output, _ = run("list", "models", "--json")
    rows = {row["builder"]: row for row in json.loads(output)["models"]}
    assert code == 0
    assert rows["tsn_r50"]["parameters"] == 24_327_632
    assert rows["tsn_r50"]["multiply_adds"] == pytest.approx(12.3e9, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM] * 2)
def test_a_signal_to_all_processes_saves_and_states_how_to_resume(tiny, tmp_path, motions_recipe, number):
    """A terminal sends Ctrl-C to the workers as well, a batch system its SIGTERM."""
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "mmaction_lite",
        "train",
        motions_recipe,
        "--data",
        str(tiny),
        "--out",
        str(out),
    ]
    command += [*SMALL, "--set", "epochs=5000", "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1].startswith("stopped at step ")
    assert error.splitlines()[-1].endswith("saved; continue with the same command and --resume")
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_training_without_a_recipe_chooses_one_and_is_resumed(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MMACTION_LITE_CACHE", str(tmp_path / "cache"))
    arguments = ["train", "--data", tiny, "--out", tmp_path / "run", "--offline", "--set", "epochs=1"]
    code, _, printed = run(*arguments)
    assert code == 0, printed
    assert "chosen: from nothing with tsm_r10_1x1x8_12e_motions_rgb" in printed
    command = next(line for line in printed.splitlines() if line.startswith("the same in full: "))
    code, _, printed = run(*arguments, "--resume")
    assert code == 0, printed
    full = shlex.split(command.removeprefix("the same in full: mmaction-lite "))
    code, _, printed = run(*full[:-1], tmp_path / "full", "--set", "epochs=1")
    assert code == 0, printed
    texts = [(tmp_path / name / "recipe.txt").read_text() for name in ("run", "full")]
    assert texts[0] == texts[1]

"""No command overwrites a file that the user made."""

import shutil

import pytest

from tests.cli.conftest import SMALL
from tests.cli.test_benchmark import RESULT

pytestmark = pytest.mark.usefixtures("one_thread")
MINE = b"written by the user"


@pytest.fixture
def commands(trained, tiny, tmp_path, motions_recipe):
    """Commands by name: arguments, and the file that each would write."""
    run, result = tmp_path / "run", tmp_path / "cpu.json"
    shutil.copytree(trained, run)
    shutil.copy(RESULT, result)
    (tmp_path / "weights.pth").write_bytes(b"never read")
    recipe = ["--recipe", motions_recipe]

    def browse(out):
        return ["data", "browse", "--data", tiny, *recipe, "--clips", "1", "--out", out]

    def index(out):
        return ["data", "index", tmp_path / "x.tar", "--out", out]

    return {
        "report": (["report", run], run / "report.html"),
        "report --out": (["report", run, "--out", tmp_path / "r.html"], tmp_path / "r.html"),
        "test --dump": (["test", run, "--data", tiny, "--dump", tmp_path / "s.npz"], tmp_path / "s.npz"),
        "features": (
            ["features", run, tiny / "val" / "up" / "12.mp4", "--out", tmp_path / "f.npz"],
            tmp_path / "f.npz",
        ),
        "features, metadata": (
            ["features", run, tiny / "val" / "up" / "12.mp4", "--out", tmp_path / "f.npy"],
            tmp_path / "f.json",
        ),
        "features, folder": (
            ["features", run, tiny / "val" / "up" / "12.mp4", "--out", tmp_path / "f", "--workers", "0"],
            tmp_path / "f" / "12.mp4.npz",
        ),
        "convert": (
            ["convert", tmp_path / "weights.pth", *recipe, "--out", tmp_path / "w.safetensors"],
            tmp_path / "w.safetensors",
        ),
        "browse": (browse(tmp_path / "clips.png"), tmp_path / "clips.png"),
        "index": (index(tmp_path / "train.csv"), tmp_path / "train.csv"),
        "page": (["benchmark", "page", result, "--out", tmp_path / "p.md"], tmp_path / "p.md"),
        "page, chart": (["benchmark", "page", result, "--out", tmp_path / "p.md"], tmp_path / "cpu.png"),
        "validate": (["data", "validate", tiny, "--out", tmp_path / "v"], tmp_path / "v" / "train.csv"),
        "prepare": (["data", "prepare", tiny, tmp_path / "v"], tmp_path / "v" / "classes.txt"),
        "generate": (["data", "generate", tmp_path / "v"], tmp_path / "v" / "train.txt"),
        "scenes": (["data", "generate", tmp_path / "v", "--scenes", "1"], tmp_path / "v" / "train" / "a"),
        "demo": (["demo", "--out", tmp_path / "v"], tmp_path / "v" / "summary.json"),
        "train": (
            ["train", motions_recipe, "--data", tiny, "--out", tmp_path / "v", *SMALL],
            tmp_path / "v" / "recipe.txt",
        ),
        "benchmark": (
            ["benchmark", "--recipes", "TSN 1x1x3", "--data", tiny, "--out", tmp_path / "v"],
            tmp_path / "v" / "benchmark.md",
        ),
        "benchmark result": (
            ["benchmark", "--recipes", "TSN 1x1x3", "--data", tiny, "--out", tmp_path / "v"],
            tmp_path / "v" / "benchmark.json",
        ),
    }


def test_files_of_the_user_stay_and_the_message_is_one_line(run, commands, tmp_path):
    for name, (arguments, file) in commands.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(MINE)
        before = {path: path.stat().st_mtime_ns for path in file.parent.rglob("*")}
        code, output, error = run(*arguments)
        assert (code, output) == (2, ""), (name, output, error)
        assert len(error.splitlines()) == 1, (name, error)
        assert str(tmp_path) in error, (name, error)
        assert file.read_bytes() == MINE, name
        assert {path: path.stat().st_mtime_ns for path in file.parent.rglob("*")} == before, name
        file.unlink()
        shutil.rmtree(tmp_path / "v", ignore_errors=True)


@pytest.mark.parametrize("name", ["report", "report --out", "test --dump", "browse", "page", "validate"])
def test_results_of_the_command_itself_are_replaced(run, commands, name):
    arguments, file = commands[name]
    for _ in range(2):
        code, _, error = run(*arguments)
        assert code == 0, error
    assert file.stat().st_size > 0


def test_lists_that_the_user_changed_stay(run, tiny, tmp_path):
    for arguments in (["validate", tiny, "--out", tmp_path / "v"], ["prepare", tiny, tmp_path / "p"]):
        out = arguments[-1]
        small = ["--frames", "--short-side", "24"] if arguments[0] == "prepare" else []
        assert run("data", *arguments, *small)[0] == 0
        text = (out / "train.csv").read_bytes().split(b"\n", 1)[1]
        (out / "train.csv").write_bytes(b"path,label\n" + text[: len(text) // 2])
        before = (out / "train.csv").read_bytes()
        code, _, error = run("data", *arguments, *small)
        assert (code, len(error.splitlines())) == (2, 1)
        assert f"{out}/train.csv: was changed since it was written" in error
        assert (out / "train.csv").read_bytes() == before


@pytest.mark.parametrize("end", ["", "/", "/.", "/../v"])
def test_a_dataset_is_not_validated_into_itself(run, tiny, tmp_path, end):
    out = tmp_path / "v"
    assert run("data", "validate", tiny, "--out", out)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for command in (["validate", f"{out}{end}", "--out", out], ["prepare", f"{out}{end}", out]):
        code, _, error = run("data", *command)
        assert (code, "holds the data that are read" in error) == (2, True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

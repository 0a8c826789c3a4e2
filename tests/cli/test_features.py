"""The commands `features` and `search`: outputs, exit codes and one-line errors."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmaction_lite.cli import features as command
from mmaction_lite.inference.feature_files import read_features
from tests.data.mutants import mutant, write_bases

pytestmark = pytest.mark.usefixtures("one_thread")
# Mutants of the slow test; 2,000 take seven minutes.
MUTANTS = int(os.environ.get("MMACTION_LITE_MUTANTS", "60"))
SECONDS_PER_MUTANT = 10.0


def test_files_and_a_folder(run, trained, tiny, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "broken.mp4").write_bytes(b"")
    arguments = ["features", trained, tiny / "val", tmp_path / "broken.mp4", "--out", out, "--workers", "0"]
    code, output, error = run(*arguments)
    assert code == 2
    lines = output.splitlines()
    assert len(lines) == 7
    assert lines[-1].startswith(
        "head input; 1x1x8 frames: 1 clip × 1 crop (CenterCrop 42x56 of short side 48"
    )
    assert lines[-1].endswith("features averaged over views")
    assert error.splitlines()[0].startswith("7 videos, 0 finished earlier; 7 rows of 64 float32")
    assert error.splitlines()[1].startswith(f"{tmp_path / 'broken.mp4'}: ")
    assert len(read_features(out)) == 6
    code, output, error = run(*arguments, "--json")
    result = json.loads(output)
    assert code == 2
    assert [row.get("rows", "error") for row in result["videos"]] == [None] * 6 + ["error"]
    assert result["layer"] == "head input"
    assert result["protocol"].endswith("features averaged over views")
    code, _, error = run(*arguments, "--layer", "fc")
    assert code == 2
    assert "holds other features (layer head input, not fc); use another folder" in error


def test_a_data_set_and_one_file_for_all_rows(run, trained, tiny, tmp_path):
    options = ["--layer", "backbone.layer3", "--pool", "space", "--half", "--workers", "0"]
    code, _output, _ = run(
        "features", trained, "--data", tiny, "--split", "train", "--out", tmp_path / "o", *options
    )
    assert code == 0
    assert (tmp_path / "o" / "up" / "10.mp4.npz").exists()
    code, _, _ = run(
        "features", trained, "--data", tiny, "--split", "train", "--out", tmp_path / "x.npy", *options
    )
    assert code == 0
    one, other = read_features(tmp_path / "o"), read_features(tmp_path / "x.npy")
    assert one.values.shape == (12, 32, 8)
    assert one.values.dtype == np.float16
    np.testing.assert_allclose(one.values, other.values, rtol=1e-2)
    assert one.videos == other.videos
    assert np.load(tmp_path / "x.npy").shape == (12, 32, 8)


def test_an_interruption_is_one_line(run, trained, tiny, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmaction_lite.inference.feature_folder.save_features", interrupted)
    code, output, error = run("features", trained, tiny / "val", "--out", tmp_path / "o", "--workers", "0")
    assert (code, output) == (130, "")
    assert error.splitlines()[-1].endswith("finished files are kept, and the same command continues")


def test_layers_are_listed(run, trained):
    code, output, _ = run("features", trained, "--layers")
    assert code == 0
    assert output.split()[0] == "layer"
    assert "backbone.layer4" in output
    code, output, _ = run("features", trained, "--layers", "--json")
    rows = json.loads(output)["layers"]
    assert rows[-1] == {"name": "head input", "kind": "input of Linear", "shape": [64, 8, 1, 1]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither videos nor --data is given"),
        (["clip.mp4", "--data", "x"], "both videos and --data are given"),
        (["clip.mp4"], "--out is missing"),
        (["clip.mp4", "--out", "no/x.npz"], "expected a name in a writable folder"),
        (["clip.mp4", "--out", "x.h5"], "the suffix '.h5' names no format of features"),
        (["clip.mp4", "--out", "o", "--layer", "stem"], "has no layer 'stem'"),
        (["clip.mp4", "--out", "o", "--window", "2"], "a window length is given without a stride"),
        (
            ["clip.mp4", "--out", "o", "--stride", "0"],
            "'--stride': Input should be greater than or equal to 0.01",
        ),
        (["clip.mp4", "--out", "o", "--pool", "max"], "'max' is not one of"),
        (["clip.mp4", "--out", "o", "--search", "x"], "use mmaction-lite search"),
        (["gone/*.mp4", "--out", "o"], "no clip matches this pattern"),
    ],
)
def test_wrong_options_are_one_line(run, trained, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("features", trained, *arguments)
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1


def test_search(run, trained, tiny, tmp_path):
    pytest.importorskip("sklearn")
    run("features", trained, "--data", tiny, "--split", "train", "--out", tmp_path / "o", "--workers", "0")
    stored = tiny / "train" / "up" / "10.mp4"
    code, output, _ = run("search", tmp_path / "o", stored, "--top", "3")
    assert code == 0
    lines = output.splitlines()
    assert lines[0] == f"{stored}, 0.00 to 0.64 s"
    assert len(lines) == 5
    assert str(stored) not in "".join(lines[1:])
    assert lines[-1].startswith("cosine distance of head input; 1x1x8 frames")
    code, output, _ = run("search", tmp_path / "o", stored, "--json")
    near = json.loads(output)["rows"][0]["neighbors"]
    distances = [row["distance"] for row in near]
    assert len(near) == 5
    assert distances == sorted(distances)

    new = tiny / "val" / "up" / "12.mp4"
    code, _, error = run("search", tmp_path / "o", new)
    assert code == 2
    assert "is not among the 12 videos" in error
    code, output, _ = run("search", tmp_path / "o", new, "--weights", trained, "--top", "1")
    assert code == 0
    assert len(output.splitlines()) == 3
    code, _, error = run("search", tmp_path / "o", new, "--weights", trained, "--at", "9")
    assert code == 2
    assert "no row contains the time 9 s" in error


def test_search_over_windows_finds_other_times(run, trained, tiny, tmp_path):
    pytest.importorskip("sklearn")
    video = tiny / "val" / "up" / "12.mp4"
    out = tmp_path / "x.npz"
    run("features", trained, video, "--stride", "0.1", "--window", "0.1", "--out", out, "--workers", "0")
    _code, output, _ = run("search", out, video, "--at", "0.25", "--top", "2", "--json")
    (row,) = json.loads(output)["rows"]
    assert row["start_seconds"] == pytest.approx(0.2)
    assert all(abs(near["start_seconds"] - 0.2) >= 0.1 - 1e-6 for near in row["neighbors"])


@pytest.mark.slow
def test_two_processes_write_the_same_files_as_one(run, trained, tiny, tmp_path):
    options = ["--data", tiny, "--split", "train", "--workers", "0", "--device", "cpu", "--stride", "0.2"]
    assert run("features", trained, *options, "--out", tmp_path / "one")[0] == 0
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    arguments = [trained, *options, "--out", tmp_path / "two", "--json"]
    done = subprocess.run(
        [*start, "mmaction_lite", "features", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["videos"]) == 12
    one, two = read_features(tmp_path / "one"), read_features(tmp_path / "two")
    files = [
        sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.npz")) for n in ("one", "two")
    ]
    assert files[0] == files[1]
    assert one.info == two.info
    assert one.videos == two.videos
    np.testing.assert_array_equal(one.first_frame, two.first_frame)
    np.testing.assert_allclose(one.values, two.values, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_damaged_videos_are_one_line_each(run, trained, tmp_path):
    bases = write_bases(tmp_path / "bases")
    numbers = random.Random(0).sample(range(10**6), MUTANTS)
    folder = tmp_path / "mutants"
    folder.mkdir()
    slowest, unreadable = 0.0, 0
    for number in numbers:
        name, content = mutant(number, bases)
        path = folder / name
        path.write_bytes(content)
        options = ["--stride", "0.2"] if number % 2 else []
        begin = time.monotonic()
        code, _output, error = run(
            "features", trained, path, "--out", tmp_path / "out", "--workers", "0", *options
        )
        slowest = max(slowest, time.monotonic() - begin)
        lines = error.splitlines()
        assert "Traceback" not in error
        assert code in (0, 2), error
        assert len(lines) <= 3, error
        assert slowest < SECONDS_PER_MUTANT, name
        unreadable += code == 2
        path.unlink()
        for file in sorted(Path(tmp_path / "out").rglob("*.npz")):
            assert np.isfinite(read_features(file).values).all()
            file.unlink()
    print(f"{MUTANTS} mutants, {unreadable} with unreadable frames, slowest {slowest:.2f} s")


def test_the_commands_have_a_summary_for_the_help():
    assert (command.features.__doc__ or "").endswith(".")
    assert (command.search.__doc__ or "").endswith(".")

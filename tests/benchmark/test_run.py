"""The benchmark command: processes in turns, what it leaves behind, and the page made of it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmaction_lite.benchmark import comparison as comparison_module
from mmaction_lite.benchmark import older as older_module
from mmaction_lite.benchmark import processes as processes_module
from mmaction_lite.benchmark import run as run_module
from mmaction_lite.benchmark import settings as settings_module
from mmaction_lite.benchmark.comparison import (
    our_command,
)
from mmaction_lite.benchmark.lists import frames_of
from mmaction_lite.benchmark.processes import InstalledPeer
from mmaction_lite.benchmark.run import read_imported, read_result
from mmaction_lite.benchmark.settings import find_setting
from mmaction_lite.benchmark.tables import check_scaling
from mmaction_lite.cli import app
from mmaction_lite.errors import UserError
from tests.benchmark.fake_worker import FAKE, state

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = sorted((DOCS / "benchmarks").glob("*.json"))
RECIPE = "tsm_r10_1x1x8_12e_motions_rgb"


# The same, whose every moment is spent working.
BUSY = FAKE.replace(
    "steps = 0\n",
    """
import threading
def burn():
    while True:
        pass
threading.Thread(target=burn, daemon=True).start()
steps = 0
""",
)


def run(out: Path, *more: str) -> None:
    command = ["benchmark", "--recipes", RECIPE, "--device", "cpu", "--workers", "0", "--rounds", "2"]
    app([*command, "--out", str(out), *more], standalone_mode=False)


@pytest.mark.slow
def test_the_command_writes_results_tables_and_picture_and_goes_on(tiny, tmp_path, quick, capsys):
    out = tmp_path / "out"
    run(out, "--data", str(tiny), "--batch-size", "3", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((out / "benchmark.json").read_text())
    assert found["results"][0]["batch_size"] == 3
    assert {"processor", "torch", "cores"} <= found["environment"].keys()
    assert found["limits"]["multiply_adds"] > 0
    assert (out / "benchmark.png").read_bytes()[1:4] == b"PNG"
    assert RECIPE in (out / "benchmark.md").read_text()
    run(out, "--data", str(tiny), "--batch-size", "3", "--json")
    again = capsys.readouterr()
    assert json.loads(again.out) == found
    assert "nothing is left to measure" in again.err
    with pytest.raises(UserError, match="measured with batch size 3, not 2; choose another --out"):
        run(out, "--data", str(tiny), "--batch-size", "2")


def test_folders_that_do_not_fit_are_one_line(tmp_path):
    (tmp_path / "benchmark.json").write_text("{}")
    with pytest.raises(UserError, match="is a file; --out is a folder"):
        run(tmp_path / "benchmark.json", "--synthetic")
    with pytest.raises(UserError, match="no such folder; --peers is the folder"):
        run(tmp_path, "--synthetic", "--peers", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"benchmark\.json: .*"):
        run(tmp_path, "--synthetic")


def test_recipes_that_need_the_frame_rate_read_video_files(tmp_path):
    data = tmp_path / "scenes"
    frames_of(data).mkdir()
    sources = {
        name: run_module._sources(data, find_setting(name), needs_frames=True)
        for name in ("C2D 8x8", "I3D 8x8", "I3D 32x2", "I3D 32x2, fast")
    }
    assert sources["C2D 8x8"] == sources["I3D 8x8"] == (str(data), None)
    assert sources["I3D 32x2"] == (str(data), str(frames_of(data)))
    assert sources["I3D 32x2, fast"] == (None, str(frames_of(data)))


def test_two_processes_do_not_write_to_one_folder(tmp_path):
    out = tmp_path / "out"
    code = "import sys; from pathlib import Path; from mmaction_lite.files import FolderLock\n"
    code += "with FolderLock(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    with run_module.output_folder(out):
        pass
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(
            UserError, match="writes to this folder; wait until it ends, or use another folder"
        ):
            run(out, "--synthetic")
        other.kill()
    assert not (out / "benchmark.json").exists()


@pytest.mark.slow
def test_rows_that_start_together_are_measured_like_others(tiny, tmp_path, quick, capsys, monkeypatch):
    """Peers too, in each precision; what failed is tried again."""
    worker = tmp_path / "worker_fake.py"
    worker.write_text(FAKE)
    rows = [RECIPE, "tsn_r10_1x1x8_12e_motions_rgb"]
    knows = {RECIPE: "any", rows[1]: "cannot be built"}
    find = find_setting
    monkeypatch.setattr(
        settings_module, "find_setting", lambda name: replace(find(name), peers={"fake": knows[name]})
    )
    monkeypatch.setattr(comparison_module, "_check", lambda field, name: None)  # a fake has no weights
    peers = {"fake": InstalledPeer([sys.executable, str(worker)])}
    monkeypatch.setattr(processes_module, "find_peers", lambda folder, sources: peers)
    options = ["--recipes", rows[0], "--recipes", rows[1], "--synthetic", "--device", "cpu", "--rounds", "1"]
    options += ["--out", str(tmp_path / "out"), "--json", "--amp", "bfloat16"]
    app(["benchmark", *options, "--as-published", "--at-once", "2"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)["results"]
    assert [(row["recipe"], row["peer_precision"]) for row in found] == [
        (name, precision) for name in rows for precision in ("float32", "bfloat16")
    ]
    assert ["error" in row for row in found] == [False, False, True, True]
    assert all(len(row[phase]["ours"]) == 1 for row in found for phase in ("train", "infer"))
    knows[rows[1]] = "any"
    app(["benchmark", *options, "--as-published"], standalone_mode=False)
    again = json.loads(capsys.readouterr().out)["results"]
    assert not any("error" in row for row in again)
    assert again[:2] == found[:2]
    with pytest.raises(UserError, match="--as-published goes with --amp"):
        app(["benchmark", "--as-published", "--out", str(tmp_path / "other")], standalone_mode=False)


@pytest.mark.slow
def test_a_row_of_ours_that_fails_is_measured_again_and_the_others_are_kept(
    tiny, tmp_path, quick, capsys, monkeypatch
):
    rows, failing = [RECIPE, "tsn_r10_1x1x8_12e_motions_rgb"], [RECIPE]
    feeding = run_module.measure_feeding

    def feed(field, *more):
        if field.config.setting == failing[0]:
            raise UserError("no clip can be read")
        return feeding(field, *more)

    monkeypatch.setattr(run_module, "measure_feeding", feed)
    options = ["--recipes", rows[1], "--data", str(tiny), "--batch-size", "2", "--no-inference"]
    with pytest.raises(UserError, match="not all rows could be measured: no clip can be read"):
        run(tmp_path / "fed", *options, "--note", "A try.")
    assert "A try." in (tmp_path / "fed/benchmark.md").read_text()
    found = read_result(tmp_path / "fed/benchmark.json")["results"]
    assert [row.get("error") for row in found] == ["no clip can be read", None]
    assert ["video" in row for row in found] == [False, True]
    failing[0] = ""
    run(tmp_path / "fed", *options)
    kept, again = read_result(tmp_path / "fed/benchmark.json")["results"]
    assert kept == found[1]
    assert "video" in again
    assert "error" not in again


@pytest.mark.slow
def test_a_network_of_ours_that_cannot_be_built_leaves_the_other_rows(tmp_path, quick, capsys, monkeypatch):
    worker, other = tmp_path / "worker.py", "tsn_r10_1x1x8_12e_motions_rgb"
    worker.write_text(
        "import json, os, sys\n"
        f"if json.loads(sys.argv[1])['setting'] == {RECIPE!r}:\n"
        "    sys.exit(print(json.dumps({'error': 'MemoryError: too large'})))\n"
        f"os.execv(sys.executable, {our_command()!r} + sys.argv[1:])\n"
    )
    monkeypatch.setattr(comparison_module, "our_command", lambda: [sys.executable, str(worker)])
    message = f"not all rows could be measured: {RECIPE}: MemoryError: too large"
    with pytest.raises(UserError, match=message):
        run(tmp_path / "out", "--recipes", other, "--synthetic", "--at-once", "2")
    (found,) = read_result(tmp_path / "out/benchmark.json")["results"]
    assert found["setting"] == other
    assert {"train", "infer"} <= found.keys()


@pytest.mark.slow
def test_peers_of_other_rows_are_stopped_while_one_is_measured(tmp_path, quick, capsys, monkeypatch):
    if not Path("/proc").exists():
        pytest.skip("no /proc to look at")
    worker = tmp_path / "worker_fake.py"
    worker.write_text(BUSY)
    find = find_setting
    monkeypatch.setattr(
        settings_module, "find_setting", lambda name: replace(find(name), peers={"fake": "any"})
    )
    monkeypatch.setattr(comparison_module, "_check", lambda field, name: None)  # a fake has no weights
    peers = {"fake": InstalledPeer([sys.executable, str(worker)])}
    monkeypatch.setattr(processes_module, "find_peers", lambda folder, sources: peers)
    measure, fields, states = run_module.measure_network, [], []

    def look(field, *more):
        peers = [each.workers["fake float32"] for each in fields if each.workers]  # closed ones have none
        states.append([state(peer.processes[0].pid) for peer in peers])
        return measure(field, *more)

    started = comparison_module.Comparison.__enter__
    monkeypatch.setattr(
        comparison_module.Comparison, "__enter__", lambda field: fields.append(field) or started(field)
    )
    monkeypatch.setattr(run_module, "measure_network", look)
    options = ["--recipes", "tsn_r10_1x1x8_12e_motions_rgb", "--synthetic", "--at-once", "2"]
    run(tmp_path / "out", *options, "--no-inference")
    assert states == [["T", "T"], ["T"]]


@pytest.mark.slow
def test_numbers_of_others_are_taken_over_with_who_measured_them(tmp_path, quick, capsys):
    out, file = tmp_path / "out", tmp_path / "theirs.json"
    row = {"setting": RECIPE, "batch_size": 8, "iteration_seconds": 0.5}
    theirs = {"framework": "PySlowFast", "measured_by": "A. Nobody, one V100", "results": [row]}
    file.write_text(json.dumps(theirs))
    run(out, "--synthetic", "--no-inference")
    run(out, "--synthetic", "--no-inference", "--peer-result", str(file), "--note", "Beside a warm oven.")
    found = read_result(out / "benchmark.json")
    assert "infer" not in found["results"][0]
    assert found["imported"] == [theirs]
    assert "\n\nBeside a warm oven.\n\n" in (out / "benchmark.md").read_text()
    assert "| PySlowFast, measured by A. Nobody, one V100 | 8 | 0.500 |" in capsys.readouterr().out
    for wrong, message in (
        ({**theirs, "results": [{**row, "setting": "TSX"}]}, "result 1: setting 'TSX' is not one of"),
        (
            {**theirs, "results": [{**row, "batch_size": "8"}]},
            "batch_size must be a number, got '8'",
        ),
        ({**theirs, "results": [{**row, "iteration_seconds": 0}]}, "must be a number, got 0"),
        ({"framework": "PySlowFast", "results": []}, 'has no "measured_by"'),
    ):
        file.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=message):
            read_imported(file, {RECIPE})
    with pytest.raises(UserError, match="measured_by"):  # before anything is measured
        run(tmp_path / "new", "--synthetic", "--peer-result", str(file))
    assert not (tmp_path / "new").exists()
    file.write_text("not JSON")
    with pytest.raises(UserError, match="no JSON file of results"):
        read_imported(file, {RECIPE})
    with pytest.raises(UserError, match="is no result of mmaction-lite benchmark"):
        read_result(file)


@pytest.mark.slow
def test_processes_that_train_together_are_measured_and_predicted(tmp_path, quick, capsys):
    run(tmp_path / "out", "--synthetic", "--devices", "2")
    assert "predicted / measured" in capsys.readouterr().out
    row = read_result(tmp_path / "out" / "benchmark.json")["results"][0]
    assert {"train", "apart", "link", "sharded"} <= row.keys()
    made = check_scaling(row, 2)
    assert made["apart"] <= made["predicted"] <= made["apart"] + made["exchange"] + 1e-9
    with pytest.raises(UserError, match="add --synthetic"):
        run(tmp_path / "other", "--devices", "2")


@pytest.mark.slow
def test_scaling_is_predicted_from_a_result(tmp_path, quick, capsys):
    run(tmp_path / "out", "--synthetic")
    capsys.readouterr()
    file = str(tmp_path / "out" / "benchmark.json")
    command = ["benchmark", "scaling", file, "--recipe", RECIPE, "--link-gb", "1"]
    command += ["--devices", "1", "--devices", "4"]
    app([*command, "--json"], standalone_mode=False)
    predictions = json.loads(capsys.readouterr().out)["predictions"]
    assert [made["devices"] for made in predictions] == [1, 4]
    assert predictions[1]["clips_per_second"] > predictions[0]["clips_per_second"]
    app(command, standalone_mode=False)
    assert "efficiency" in capsys.readouterr().out
    with pytest.raises(UserError, match="has no row 'tsn'"):
        app(["benchmark", "scaling", file, "--recipe", "tsn", "--link-gb", "1"], standalone_mode=False)


@pytest.mark.slow
def test_an_older_commit_takes_turns_with_the_current_files(tmp_path, quick, capsys, monkeypatch):
    """Here the current files stand for the older ones."""
    monkeypatch.setattr(older_module, "_git", lambda root, commit, *words: b"0123abcd")

    class Files:
        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

        def extractall(self, folder, filter):
            (folder / "mmaction_lite").symlink_to(Path(run_module.__file__).parents[1])

    monkeypatch.setattr(older_module.tarfile, "open", lambda fileobj: Files())
    run(tmp_path / "out", "--quick", "--against", "HEAD~1")
    (row,) = read_result(tmp_path / "out" / "benchmark.json")["results"]
    assert row["peer"] == "commit 0123abcd"
    assert row["batch_size"] == 1
    assert row["frameworks"]["peer"] == f"{row['frameworks']['ours']}, commit 0123abcd"
    assert {"ours", "peer"} == row["train"].keys() == row["infer"].keys()
    assert "check" not in row
    assert "ratios to commit HEAD~1 that exclude 1:" in capsys.readouterr().out
    with pytest.raises(UserError, match="measures one device, and no other framework; leave out --devices"):
        run(tmp_path / "other", "--quick", "--against", "HEAD", "--devices", "2")

"""The benchmark command: processes in turns, what it leaves behind, and the page made of it."""

import json
import os
import signal
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaction_lite.benchmark import comparison as comparison_module
from mmaction_lite.benchmark import run as run_module
from mmaction_lite.benchmark import settings as settings_module
from mmaction_lite.benchmark.comparison import (
    Comparison,
    Peer,
    Worker,
    WorkerConfig,
    WorkerError,
    measure_feeding,
    measure_network,
    our_command,
    rows_of,
    take_turns,
)
from mmaction_lite.benchmark.run import read_imported, read_result
from mmaction_lite.benchmark.scaling import predict_scaling
from mmaction_lite.benchmark.settings import find_setting
from mmaction_lite.benchmark.tables import check_scaling, seconds
from mmaction_lite.benchmark.worker import kind
from mmaction_lite.cli import app
from mmaction_lite.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = sorted((DOCS / "benchmarks").glob("*.json"))
RECIPE = "tsm_r10_1x1x8_12e_motions_rgb"

# Answers as `benchmarks/peers/config.py` does; what it is asked to do stands in its setting.
FAKE = """
import json, shutil, sys, time
options = json.loads(sys.argv[1])
if options["setting"] == "cannot be built":
    print(json.dumps({"error": "ImportError: no such thing"}))
    sys.exit()
framework = f"Fake 1.0, {options['precision']}"
print(json.dumps({"framework": framework, "phases": ["train", "infer"]}), flush=True)
steps = 0
for line in sys.stdin:
    request = json.loads(line)
    steps += request.get("steps", 0)
    if options["setting"] == "dies" and steps > 1:
        sys.exit(3)
    if request["phase"] == "check":
        answer = {"error": "KeyError: no weights"} if options["setting"] == "no check" else {}
        shutil.copy(options["list"], request["file"])
    elif request["phase"] == "memory":
        answer = {"mib": 100.0}
    else:
        time.sleep(0.02 * request["steps"])
        answer = {"steps": [{"iteration": 0.02}] * request["steps"]}
    print(json.dumps(answer), flush=True)
"""

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


def plan(data: Path | None = None, weights: Path | None = None) -> WorkerConfig:
    return WorkerConfig(
        setting=RECIPE,
        input=(2, 8, 42, 56),
        batch_size=2,
        device="cpu",
        threads=1,
        precision="float32",
        compile=None,
        video=str(data) if data else None,
        frames=str(data) if data else None,
        list=str(weights) if weights else None,
        workers=0,
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(comparison_module.TURN_SECONDS, "cpu", 0.02)


@pytest.fixture
def fake(tmp_path):
    file = tmp_path / "worker_fake.py"
    file.write_text(FAKE)
    return [sys.executable, str(file)]


def measure(config, peers, rounds, folder, say):
    with Comparison(config, peers, folder, 1, say) as field:
        field.begin()
        field.begin_peers()
        found = measure_network(field, rounds, ("train", "infer"))
        if config.video or config.frames:
            found |= measure_feeding(field, rounds, 100.0)
        return rows_of(field, found)


def test_ours_is_measured_alone_stage_by_stage(tiny, tmp_path, quick):
    more_than_there_are = replace(plan(data=tiny), batch_size=16, input=(16, 8, 42, 56))
    (found,) = measure(more_than_there_are, [], 2, tmp_path, print)
    assert set(found["train"]) == {"ours"}
    assert len(found["train"]["ours"]) == 2
    for step in found["stages"]:
        parts = sum(value for name, value in step.items() if name != "iteration")
        assert set(step) == {"iteration", "copy", "normalise", "forward", "backward", "optimizer"}
        assert 0.8 * step["iteration"] <= parts <= step["iteration"]
    for phase in ("train", "infer"):
        spent = found["profile"][phase]
        assert spent.keys() == {"products", "normalisation", "other"}
        assert 0 < spent["products"] < sum(spent.values())
    assert all("data" in step for turn in found["frames"]["ours"] for step in turn)
    assert "video" not in found  # no decoding process could keep up
    assert found["read_milliseconds"].keys() == {"video", "frames"}
    assert seconds(found["infer"]["ours"]) < seconds(found["train"]["ours"])
    assert len(found["infer"]["int8"]) == 2
    assert found["memory_mib"]["ours"] > 0


def test_operators_and_kernels_are_told_apart():
    for name, expected in {
        "aten::mkldnn_convolution": "products",
        "aten::convolution_backward": "products",
        "aten::addmm_": "products",
        "sm90_xmma_wgrad_implicit_gemm_bf16": "products",
        "aten::native_batch_norm_backward": "normalisation",
        "triton_poi_fused__native_batch_norm_convolution_backward_3": "other",
        "aten::add_": "other",
        "aten::threshold_backward": "other",
    }.items():
        assert kind(name) == expected, name


def test_a_source_is_chosen_that_the_decoding_processes_can_keep_up_with(tiny, tmp_path, quick):
    with Comparison(replace(plan(data=tiny), workers=2), [], tmp_path, 1, print) as field:
        field.begin()
        assert "video" in measure_feeding(field, 1, 0.1)
        assert "frames" in measure_feeding(field, 1, 1e6)


def test_a_fed_gpu_takes_more_steps_than_batches_lie_ready(tmp_path, quick, fake, monkeypatch):
    monkeypatch.setitem(comparison_module.TURN_SECONDS, "cuda", 0.02)
    config = replace(plan(), device="cuda", workers=3)
    with Comparison(plan(), [Peer("fake", fake, "any", "float32")], tmp_path, 1, print) as field:
        field.begin()
        field.begin_peers()
        field.config = config  # the fakes say nothing of where they work
        monkeypatch.setattr(field, "can", lambda name, phase: name != "ours")
        assert [len(turn) for turn in take_turns(field, "video", 2)["fake float32"]] == [12, 12]
        assert [len(turn) for turn in take_turns(field, "train", 2)["fake float32"]] == [5, 5]


def test_a_peer_that_cannot_start_leaves_and_ours_is_ended(tmp_path, quick, fake):
    said = []
    peers = [Peer("gone", [str(tmp_path / "nothing")], "any", "float32")]
    (found,) = measure(plan(), peers, 1, tmp_path, said.append)
    assert "No such file" in found["error"]
    with Comparison(plan(), [], tmp_path, 1, print) as field:
        process = field.workers["ours"].processes[0]
    assert process.returncode == -signal.SIGKILL


def save_check(file: Path, error: float = 0.0) -> Path:
    """What a peer hands over: its weights, a clip and its logits, which differ from ours by `error`."""
    torch.manual_seed(0)
    model = find_setting(RECIPE).build().model(num_classes=400).eval()
    clip = torch.randn(1, 3, 8, 42, 56)
    with torch.no_grad():
        logits = model(clip) + error
    torch.save({"state_dict": model.state_dict(), "clip": clip, "logits": logits}, file)
    return file


def test_a_peer_takes_turns_with_ours(tmp_path, quick, fake):
    peers = [Peer("fake", fake, "any", precision) for precision in ("float32", "bfloat16")]
    rows = measure(plan(weights=save_check(tmp_path / "w.pt")), peers, 3, tmp_path, print)
    assert [row["frameworks"]["peer"] for row in rows] == ["Fake 1.0, float32", "Fake 1.0, bfloat16"]
    for found in rows:
        for phase in ("train", "infer"):
            assert [len(turn) for turn in found[phase]["peer"]] == [
                len(turn) for turn in found[phase]["ours"]
            ]
            assert seconds(found[phase]["peer"]) == 0.02
        assert found["memory_mib"]["peer"] == 100
        assert found["check"]["difference"] < 1e-5
        assert "error" not in found
    assert rows[0]["train"]["ours"] == rows[1]["train"]["ours"]


@pytest.mark.parametrize(
    ("setting", "error"),
    [("dies", "it ended"), ("cannot be built", "no such thing"), ("no check", "no weights")],
)
def test_a_peer_that_fails_ends_its_own_part_alone(tmp_path, quick, fake, setting, error):
    said = []
    config = plan(weights=save_check(tmp_path / "w.pt"))
    peers = [Peer(name, fake, which, "float32") for name, which in (("it", setting), ("other", "any"))]
    found, other = measure(config, peers, 2, tmp_path, said.append)
    assert error in found["error"]
    assert error in said[-1]
    ours = {"ours", "int8"}
    assert set(found["infer"]) == (ours | {"peer"} if setting == "no check" else ours)
    assert "error" not in other
    assert set(other["infer"]) == ours | {"peer"}


def state(process: int) -> str:
    """Of a process; "T" if it is stopped, which may take a moment to be seen."""
    deadline, found = time.monotonic() + 5, ""
    while found != "T" and time.monotonic() < deadline:
        found = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        time.sleep(0.01)
    return found


def test_workers_are_stopped_between_their_turns(tmp_path, fake):
    with closing(Worker(fake, plan(), tmp_path / "log")) as worker:
        worker.begin()
        process = worker.processes[0].pid
        if not Path("/proc").exists():
            pytest.skip("no /proc to look at")
        assert state(process) == "T"
        assert worker.ask(phase="train", steps=1)["steps"] == [{"iteration": 0.02}]
        os.kill(process, signal.SIGKILL)
        worker.processes[0].wait()
        with pytest.raises(WorkerError, match="it ended"):
            worker.ask(phase="train", steps=1)


def test_the_logits_of_a_peer_are_compared_with_ours(tmp_path):
    with closing(Worker(our_command(), plan(), tmp_path / "log")) as worker:
        worker.begin()
        right, wrong = save_check(tmp_path / "right.pt"), save_check(tmp_path / "wrong.pt", 1.0)
        assert worker.ask(phase="check", file=str(right))["difference"] < 1e-5
        assert worker.ask(phase="check", file=str(wrong))["difference"] > 0.1


def run(out: Path, *more: str) -> None:
    command = ["benchmark", "--recipes", RECIPE, "--device", "cpu", "--workers", "0", "--rounds", "2"]
    app([*command, "--out", str(out), *more], standalone_mode=False)


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
    with pytest.raises(UserError, match="is a file; --out is a folder"):
        run(out / "benchmark.json", "--synthetic")
    with pytest.raises(UserError, match="no such folder; --peers is where"):
        run(out, "--synthetic", "--peers", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="measured with batch size 3, not 2; choose another --out"):
        run(out, "--data", str(tiny), "--batch-size", "2")


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
    monkeypatch.setattr(run_module, "find_peers", lambda folder: {"fake": [sys.executable, str(worker)]})
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
    monkeypatch.setattr(run_module, "find_peers", lambda folder: {"fake": [sys.executable, str(worker)]})
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


def test_processes_that_train_together_leave_together(tmp_path):
    with closing(Worker(our_command(), plan(), tmp_path / "log", 2)) as worker:
        worker.begin()
        with pytest.raises(WorkerError, match="KeyError: 'nothing'"):
            worker.ask(phase="nothing", steps=1)
        worker._signal("SIGCONT")
        assert [process.wait(20) for process in worker.processes] == [0, 0]


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
    assert {"train", "apart", "link"} <= row.keys()
    made = check_scaling(row, 2)
    assert made["apart"] <= made["predicted"] <= made["apart"] + made["exchange"] + 1e-9
    with pytest.raises(UserError, match="add --synthetic"):
        run(tmp_path / "other", "--devices", "2")


def test_scaling_is_limited_by_what_is_slowest(tmp_path, quick, capsys):
    one: Any = {"batch_size": 8, "step_seconds": 0.4, "backward_seconds": 0.25}
    one["gradient_bytes"] = 100e6
    fast: Any
    slow: Any
    fast, slow = ({"link_bytes_per_second": rate} for rate in (50e9, 0.1e9))
    assert predict_scaling(1, **one, **fast).iteration == 0.4
    many = predict_scaling(8, **one, **fast)
    assert 0.4 < many.iteration < 0.402
    assert many.limited_by == "network"
    assert many.clips_per_second == pytest.approx(8 * 8 / many.iteration)
    hidden = 0.8 * 0.25
    crawling = predict_scaling(8, **one, **slow)
    assert crawling.iteration == pytest.approx(0.4 + 2 * 7 / 8 * 1.0 - hidden)
    assert crawling.limited_by == "exchange"
    starved = predict_scaling(8, **one, **fast, loader_clips_per_second=10)
    assert (starved.iteration, starved.limited_by) == (0.8, "data")

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

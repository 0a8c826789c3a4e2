"""Workers in turns: how they are started, stopped, asked and compared."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmaction_lite.benchmark import comparison as comparison_module
from mmaction_lite.benchmark.comparison import (
    Comparison,
    measure_feeding,
    measure_network,
    rows_of,
    take_turns,
)
from mmaction_lite.benchmark.processes import Peer, WorkerConfig
from mmaction_lite.benchmark.settings import find_setting
from mmaction_lite.benchmark.tables import seconds

RECIPE = "tsm_r10_1x1x8_12e_motions_rgb"


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
    assert found["memory_mib"]["ours"] > 0


@pytest.mark.slow
def test_a_source_is_chosen_that_the_decoding_processes_can_keep_up_with(tiny, tmp_path, quick):
    with Comparison(replace(plan(data=tiny), workers=2), [], tmp_path, 1, print) as field:
        field.begin()
        assert "video" in measure_feeding(field, 1, 0.1)
        assert "frames" in measure_feeding(field, 1, 1e6)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
    ours = {"ours"}
    assert set(found["infer"]) == (ours | {"peer"} if setting == "no check" else ours)
    assert "error" not in other
    assert set(other["infer"]) == ours | {"peer"}


class Fed:
    """Stands for a comparison on two decoding processes that read a video clip in a second."""

    config = WorkerConfig(
        setting=RECIPE,
        input=(2, 8, 42, 56),
        batch_size=2,
        device="cpu",
        threads=1,
        precision="float32",
        compile=None,
        video="videos",
        frames="frames",
        list=None,
        workers=2,
    )

    peers = ()

    def can(self, name, phase):
        return True

    def ask_ours(self, *, phase, source, clips):
        return {"milliseconds": {"video": 1000.0, "frames": 100.0}[source]}


@pytest.mark.parametrize(
    ("clips_per_second", "source"), [(1.49, "video"), (1.51, "frames"), (100.0, "frames")]
)
def test_videos_are_read_where_three_quarters_of_the_processes_suffice(monkeypatch, clips_per_second, source):
    monkeypatch.setattr(comparison_module, "take_turns", lambda field, phase, rounds: {phase: rounds})
    found = measure_feeding(Fed(), 3, clips_per_second)  # pyright: ignore[reportArgumentType]
    assert found == {"read_milliseconds": {"video": 1000.0, "frames": 100.0}, source: {source: 3}}

"""Two processes on one machine, started by torchrun as a user does."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.inference.evaluate import evaluate
from mmaction_lite.weights.card import card_of, load
from mmaction_lite.weights.checkpoint import load_state
from tests.probes import write_encoder

# Normalized by running statistics and without dropout nothing depends on how a batch is divided.
RECIPE = """
import os
from dataclasses import replace
from pathlib import Path
from mmaction_lite.data.views.samplers import DenseClips, SegmentFrames
from mmaction_lite.data.loading.batch_plan import Multigrid, Phase
from mmaction_lite.data.views.mixing import Mixing
from mmaction_lite.data.views.crops import CenterCrop, RandomCrop, ScaleJitterCrop
from mmaction_lite.data.views.views import TestViews, TrainViews
from mmaction_lite.models import tsm_r10
from mmaction_lite.models.lora import LoRA
from mmaction_lite.optim import SGD, OneCycle, Unfreeze
from mmaction_lite.recipes.recipe import Build, Recipe


def small() -> Recipe:
    val = TestViews(clips=SegmentFrames(num_segments=4), short_side=24, crop=CenterCrop(size=(20, 28)))
    return Recipe(
        model=Build(tsm_r10, width=8, dropout=0.0), dataset="tiny",
        train=TrainViews(clips=val.clips, short_side=24, crop=RandomCrop(size=(20, 28)), flip=0.5),
        val=val, test=val,
        optimizer=SGD(lr=0.02, nesterov=True), schedule=OneCycle(), epochs=3, batch_size=4,
        batch_norm="frozen", mixing=Mixing(), max_grad_norm=1.0, ema_decay=0.5,
    )


def with_dropout() -> Recipe:
    return replace(small(), model=Build(tsm_r10, width=8, dropout=0.5), mixing=None, batch_norm="train")


def simple() -> Recipe:
    return replace(small(), ema_decay=None)


def with_statistics() -> Recipe:
    return replace(small(), mixing=None, ema_decay=None, batch_norm="train", epochs=2)


def with_precise_statistics() -> Recipe:
    \"\"\"Weights and draws do not depend on the number of processes, and each has its own batches.\"\"\"
    return replace(
        small(), mixing=None, ema_decay=None, optimizer=SGD(lr=0.0), epochs=1, precise_bn_clips=12,
        batch_norm="train",
    )


def unfreezing() -> Recipe:
    return replace(small(), unfreeze=Unfreeze(epoch=1, lr_share=0.5), mixing=None)


def with_adapters() -> Recipe:
    from tests.models.test_lora import Tokens

    lora = LoRA(rank=2, targets=("q", "v", "fc1"))
    return replace(simple(), mixing=None, model=Build(Tokens), lora=lora, optimizer=SGD(lr=0.1))


def probing() -> Recipe:
    from tests.probes import small_probe

    return replace(small_probe(storage="float32", passes=2), epochs=2, val_every=1)


def by_multigrid() -> Recipe:
    \"\"\"Two shapes, and in each of them views of two sizes.\"\"\"
    views = replace(
        small().train, clips=DenseClips(clip_len=8), crop=ScaleJitterCrop(size=(24, 24), short_side=(28, 36)),
        short_side=None,
    )
    phases = (Phase(epochs=2, batch=2, clip_len=4, side=20), Phase(epochs=2, batch=1, clip_len=8, side=24))
    return replace(
        small(), train=views, multigrid=Multigrid(phases=phases, short_sides=(16,)), epochs=4, batch_size=2,
        mixing=None,
    )


def dying() -> Recipe:
    \"\"\"Rank 1 is killed in its fifth step, the first time.\"\"\"
    from mmaction_lite.training.gradients import Gradients

    add, count = Gradients.add, iter(range(1000))

    def add_and_die(self, *arguments, **options):
        if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and next(count) == 4:
            os.kill(os.getpid(), 9)
        return add(self, *arguments, **options)

    Gradients.add = add_and_die
    return small()


def asked_to_stop() -> Recipe:
    \"\"\"Rank 1 gets SIGTERM in its fifth step.\"\"\"
    from mmaction_lite.training.gradients import Gradients

    add, count = Gradients.add, iter(range(1000))

    def add_and_ask(self, *arguments, **options):
        if os.environ["RANK"] == "1" and next(count) == 4:
            os.kill(os.getpid(), 15)
        return add(self, *arguments, **options)

    Gradients.add = add_and_ask
    return small()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed"),
]


@pytest.fixture(scope="module")
def my(tmp_path_factory):
    file = tmp_path_factory.mktemp("recipes") / "my_small.py"
    file.write_text(RECIPE)
    return file


def start(processes: int, *arguments: object, restarts: int = 0) -> subprocess.Popen[str]:
    """Start `mmaction-lite` with these arguments in the given number of processes."""
    words = [sys.executable, "-m"]
    if processes > 1:
        words += ["torch.distributed.run", f"--nproc-per-node={processes}", f"--max-restarts={restarts}"]
        words += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m"]
    return subprocess.Popen(
        [*words, "mmaction_lite", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def end(running: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for a started command."""
    try:
        output, errors = running.communicate(timeout=240)
    finally:
        running.kill()
        running.wait()
    return subprocess.CompletedProcess(running.args, running.returncode, output, errors)


def command(processes: int, *arguments: object, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `mmaction-lite` with these arguments in the given number of processes."""
    return end(start(processes, *arguments, restarts=restarts))


def ends(running: Sequence[subprocess.Popen[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Wait for commands that run at the same time; all of them must succeed."""
    try:
        done = [end(each) for each in running]
    finally:
        for each in running:
            each.kill()
    assert not any(each.returncode for each in done), [each.stderr for each in done]
    return done


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_training(one: Path, other: Path) -> None:
    """Equal schedule and counts, equal losses and weights within rounding."""
    for a, b in zip(rows(one), rows(other), strict=True):
        assert a.keys() == b.keys()
        for name in a.keys() & {"step", "epoch", "lr", "top1", "mean_class", "videos", "unreadable"}:
            assert a[name] == pytest.approx(b[name], rel=1e-6), name
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    states = [load_state(run / "last.pt") for run in (one, other)]
    assert states[0]["progress"] == states[1]["progress"]
    for name, tensor in states[0]["model"].items():
        torch.testing.assert_close(tensor, states[1]["model"][name], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def alone(my, tiny, tmp_path_factory):
    """The run of a single process."""
    out = tmp_path_factory.mktemp("alone") / "run"
    done = command(1, "train", f"{my}:small", "--data", tiny, "--out", out, "--workers", 1)
    assert done.returncode == 0, done.stderr
    return out


def test_two_processes_equal_one(my, tiny, tmp_path, alone):
    out = tmp_path / "run"
    done = command(2, "train", f"{my}:small", "--data", tiny, "--out", out, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "2 × cpu" in done.stderr
    assert "batch 4 (2 × 2)" in done.stderr
    assert done.stdout.count("steps done") == 1  # the first process speaks
    assert_same_training(alone, out)
    scores = [np.load(run / "val.npz")["scores"] for run in (alone, out)]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-5)


def test_two_processes_go_through_the_shapes_of_one(my, tiny, tmp_path):
    arguments = ["train", f"{my}:by_multigrid", "--data", tiny, "--workers", 0, "--out"]
    ends([start(processes, *arguments, tmp_path / str(processes)) for processes in (1, 2)])
    assert_same_training(tmp_path / "1", tmp_path / "2")


def test_a_killed_process_costs_no_step(my, tiny, tmp_path, alone):
    """torchrun restarts all processes, and they resume without --resume."""
    out = tmp_path / "run"
    done = command(2, "train", f"{my}:dying", "--data", tiny, "--out", out, "--workers", 0, restarts=1)
    assert done.returncode == 0, done.stderr
    assert_same_training(alone, out)


def test_one_process_resumes_a_run_of_two(my, tiny, tmp_path, alone):
    out = tmp_path / "run"
    done = command(2, "train", f"{my}:asked_to_stop", "--data", tiny, "--out", out, "--workers", 0)
    assert done.returncode != 0
    assert done.stderr.count("saved; continue with the same command and --resume") >= 1, done.stderr
    assert load_state(out / "last.pt")["progress"]["step"] in (5, 6)
    done = command(1, "train", f"{my}:small", "--data", tiny, "--out", out, "--workers", 0, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_training(alone, out)


def test_every_video_is_tested_once(my, tiny, tmp_path, alone):
    """Five videos on two processes."""
    lines = [f"{clip} {clip.parent.name}" for clip in sorted((tiny / "val").rglob("*.mp4"))[:5]]
    (tmp_path / "val.txt").write_text("\n".join(lines) + "\n")
    arguments = ["test", alone, "--data", tmp_path / "val.txt", "--json", "--workers", 0, "--dump"]
    runs = ends([start(processes, *arguments, tmp_path / f"{processes}.npz") for processes in (1, 2)])
    found = []
    for processes, done in zip((1, 2), runs, strict=True):
        with np.load(tmp_path / f"{processes}.npz") as arrays:
            found.append((json.loads(done.stdout), arrays["paths"].tolist(), arrays["scores"]))
    assert found[0][:2] == found[1][:2]
    assert found[0][0]["videos"] == 5
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-5)


def test_two_processes_train_what_the_first_one_chooses(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MMACTION_LITE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    done = command(2, "train", "--data", tiny, "--out", out, "--offline", "--workers", 0, "--set", "epochs=1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("chosen: from nothing with tsm_r10_1x1x8_12e_motions_rgb") == 1, done.stderr
    assert "2 × cpu" in done.stderr
    assert (out / "weights.safetensors").is_file()


def test_processes_that_do_not_divide_the_batch(my, tiny, tmp_path):
    done = command(
        2, "train", f"{my}:small", "--data", tiny, "--out", tmp_path / "run", "--set", "batch_size=6"
    )
    assert done.returncode != 0
    assert "batch_size 6 cannot be divided evenly over 2 processes, in pairs for mixing" in done.stderr


def test_dropout_differs_between_processes(my, tiny, tmp_path):
    """And a run of two is repeatable to the bit."""
    arguments = ["train", f"{my}:with_dropout", "--data", tiny, "--workers", 0, "--out"]
    ends([start(2, *arguments, tmp_path / name) for name in ("a", "b")])
    states = [load_state(tmp_path / name / "last.pt")["model"] for name in ("a", "b")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def assert_scores_are_those_of_the_saved_weights(run: Path, data: Path) -> None:
    """Each process scored its videos with the weights and statistics that the first one saved."""
    model = load(run / "best.pt")
    card = card_of(model)
    samples = read_split(data, "val", card.classes)
    scores = evaluate(model, samples, card.val).scores
    np.testing.assert_allclose(np.load(run / "val.npz")["scores"], scores, rtol=1e-4, atol=1e-6)


def test_processes_validate_with_the_statistics_that_are_saved(my, tiny, tmp_path):
    """Without an exchange each process would use the running statistics of its own clips."""
    out = tmp_path / "run"
    done = command(2, "train", f"{my}:with_statistics", "--data", tiny, "--out", out, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert_scores_are_those_of_the_saved_weights(out, tiny)


def test_precise_statistics_are_those_of_the_clips_of_all_processes(my, tiny, tmp_path):
    """The mean of the first normalization does not depend on how clips are divided into batches."""
    arguments = ["train", f"{my}:with_precise_statistics", "--data", tiny, "--workers", 0, "--out"]
    ends([start(processes, *arguments, tmp_path / str(processes)) for processes in (1, 2)])
    means = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        state = load_state(out / "best.pt")["model"]
        means.append(next(tensor for name, tensor in state.items() if name.endswith("running_mean")))
        assert_scores_are_those_of_the_saved_weights(out, tiny)
    assert means[0].abs().max() > 0.01
    torch.testing.assert_close(means[0], means[1], rtol=1e-4, atol=1e-5)


def test_two_processes_unfreeze_as_one(my, tiny, tmp_path):
    arguments = ["train", f"{my}:unfreezing", "--data", tiny, "--workers", 0, "--out"]
    for done in ends([start(processes, *arguments, tmp_path / str(processes)) for processes in (1, 2)]):
        assert done.stderr.count("epoch 1: all layers are trained") == 1
    assert_same_training(tmp_path / "1", tmp_path / "2")


def test_two_processes_train_adapters_as_one(my, tiny, tmp_path):
    arguments = ["train", f"{my}:with_adapters", "--data", tiny, "--workers", 0, "--out"]
    runs = {"10": (1, []), "20": (2, []), "21": (2, ["--shard"])}
    ends([start(number, *arguments, tmp_path / name, *more) for name, (number, more) in runs.items()])
    for name in runs:
        best = load_state(tmp_path / name / "best.pt")["model"]
        assert not any("lora" in name for name in best)
    for other in ("20", "21"):
        assert_same_training(tmp_path / "10", tmp_path / other)


def test_two_processes_train_a_probe_as_one(my, tiny, tmp_path):
    """Each process computes its share of the features, and both train on all of them."""
    encoder = write_encoder(tmp_path / "encoder.safetensors")
    running = []
    for processes in (1, 2):
        arguments = ["--init-from", encoder, "--feature-cache", tmp_path / f"features_{processes}"]
        arguments += ["--data", tiny, "--out", tmp_path / str(processes), "--workers", 0]
        running.append(start(processes, "train", f"{my}:probing", *arguments))
    ends(running)
    one, two = tmp_path / "1", tmp_path / "2"
    assert_same_training(one, two)
    for a, b in zip(rows(one), rows(two), strict=True):
        assert [head["top1"] for head in a.get("heads", [])] == [head["top1"] for head in b.get("heads", [])]
    for processes in (1, 2):  # each process writes a shard of the training and one of the validation split
        assert len([*(tmp_path / f"features_{processes}").rglob("*.features")]) == 2 * processes
    assert (two / "encoder.safetensors").exists()
    np.testing.assert_allclose(*(np.load(run / "val.npz")["scores"] for run in (one, two)), atol=1e-5)


def test_a_sharded_training_equals_one_process(my, tiny, tmp_path):
    """And is resumed as such."""
    arguments = ["train", f"{my}:simple", "--data", tiny, "--workers", 0, "--out"]
    sharded = [*arguments, tmp_path / "2", "--shard"]
    with_average = ["train", f"{my}:small", "--data", tiny, "--out", tmp_path / "3", "--shard"]
    running = [start(1, *arguments, tmp_path / "1"), start(2, *sharded), start(2, *with_average)]
    refused = end(running.pop())
    assert refused.returncode != 0
    assert "--shard cannot be combined with ema_decay or compile" in refused.stderr
    ends(running)
    assert_same_training(tmp_path / "1", tmp_path / "2")
    done = command(2, *sharded, "--resume")
    assert done.returncode == 0, done.stderr
    done = command(2, *sharded[:-1], "--resume")
    assert "the run has saved no 'optimizer'; pass --shard as it was" in done.stderr

"""Resume trainings that were stopped, were killed or could not write."""

import errno
import os
import re
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.cache import Caches
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.tools.validate import validate
from mmaction_lite.data.views.samplers import SegmentClips
from mmaction_lite.errors import Interrupted, UserError
from mmaction_lite.recipes import get_recipe
from mmaction_lite.recipes.overrides import apply_overrides
from mmaction_lite.training import run_folder as run_module
from mmaction_lite.training.loop import train
from mmaction_lite.training.progress import TrainingLog
from mmaction_lite.training.resume import adapt_files, find_changes, step_at
from mmaction_lite.weights.checkpoint import load_state, save_state
from tests.training.test_loop import die_after, rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("num_workers", "steps", "cached"),
    [(0, 4, True), (2, 5, False), pytest.param(0, 2, True, marks=pytest.mark.slow)],
)
def test_resume_equals_an_uninterrupted_run_bit_for_bit(
    tiny, recipe, tmp_path, monkeypatch, num_workers, steps, cached
):
    recipe = replace(recipe, epochs=3)
    workers = WorkerSettings(num_workers=num_workers)
    caches = Caches() if cached else Caches(budget_bytes=0)
    train(recipe, tiny, tmp_path / "whole")
    with monkeypatch.context() as patch:
        die_after(patch, steps)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tiny, tmp_path / "broken", workers=workers, caches=caches)
    assert load_state(tmp_path / "broken" / "last.pt")["progress"]["step"] == steps // 3 * 3
    with (tmp_path / "broken" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # torn by the kill
    train(recipe, tiny, tmp_path / "broken", resume=True, workers=workers, caches=caches)
    whole, broken = (load_state(tmp_path / name / "last.pt") for name in ("whole", "broken"))
    assert whole["progress"] == broken["progress"]
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, broken["model"][name]), name
    moments = [state["optimizer"]["state"] for state in (whole, broken)]
    assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])
    assert rows(tmp_path / "whole") == rows(tmp_path / "broken")
    files = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "broken")]
    assert files[0] == files[1]


@pytest.mark.parametrize("variable", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_job_that_is_started_again_resumes_without_being_asked(
    tiny, recipe, tmp_path, monkeypatch, variable
):
    """SLURM and torchrun count the restarts of a job in these variables; 0 is the first start."""
    monkeypatch.setenv(variable, "0")
    with monkeypatch.context() as patch:
        die_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tiny, tmp_path / "run")
    with pytest.raises(UserError, match="is already used; pass --resume"):
        train(recipe, tiny, tmp_path / "run")
    monkeypatch.setenv(variable, "1")
    assert train(recipe, tiny, tmp_path / "run").step == 6
    assert [row["step"] for row in rows(tmp_path / "run") if "split" in row] == [3, 6]
    assert train(recipe, tiny, tmp_path / "new").step == 6  # nothing to resume from


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_resumes(tiny, recipe, tmp_path, monkeypatch, number):
    recipe = replace(recipe, epochs=3)
    train(recipe, tiny, tmp_path / "whole")
    finish_step = TrainingLog.step

    def step(self, done, *arguments):
        finish_step(self, done, *arguments)
        if done == 5:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "step", step)
        with pytest.raises(
            Interrupted, match=r"stopped at step 5 of 9, saved; continue with the same command and --resume"
        ):
            train(recipe, tiny, tmp_path / "run", stop_on_signals=True)
    assert signal.getsignal(number) == signal.SIG_DFL
    train(recipe, tiny, tmp_path / "run", resume=True)
    whole, stopped = (load_state(tmp_path / name / "last.pt")["model"] for name in ("whole", "run"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_missed_validation_is_repeated_after_resuming(tiny, recipe, tmp_path, monkeypatch):
    train(recipe, tiny, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "validated", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(recipe, tiny, tmp_path / "run")
    assert load_state(tmp_path / "run" / "last.pt")["progress"]["step"] == 3
    train(recipe, tiny, tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_last_weights_are_written_as_often_as_asked(tiny, recipe, tmp_path, monkeypatch):
    """The file holds the weights at that time, while the training changes them."""
    slow, saved = threading.Event(), []

    def save(path, state):
        slow.wait(10)
        saved.append((path.name, state["progress"]["step"], state["model"]["fc.weight"].clone()))
        save_state(path, state)

    monkeypatch.setattr(run_module, "save_state", save)
    finish_step = TrainingLog.step

    def step(self, number, *arguments):
        finish_step(self, number, *arguments)
        if number == 2:
            slow.set()

    monkeypatch.setattr(TrainingLog, "step", step)
    slow.set()
    train(replace(recipe, epochs=1), tiny, tmp_path / "run", save_seconds=0)
    assert [number for name, number, _ in saved if name == "last.pt"][:4] == [0, 1, 2, 3]
    steps = {number: weight for name, number, weight in saved if name == "last.pt"}
    assert not torch.equal(steps[1], steps[2])
    saved.clear()
    train(replace(recipe, epochs=2), tiny, tmp_path / "plain")
    assert [number for name, number, _ in saved if name == "last.pt"] == [0, 3, 3, 6, 6]


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_keeps_the_last(
    tiny, recipe, tmp_path, monkeypatch
):
    def full(path, state):
        if state["progress"]["step"] > 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save_state(path, state)

    monkeypatch.setattr(run_module, "save_state", full)
    with pytest.raises(OSError, match="No space left"):
        train(replace(recipe, epochs=3), tiny, tmp_path / "run")
    monkeypatch.undo()
    assert load_state(tmp_path / "run" / "last.pt")["progress"]["step"] == 3
    assert train(replace(recipe, epochs=3), tiny, tmp_path / "run", resume=True).step == 9


def test_a_resumed_run_deletes_partial_files_of_a_killed_process(tiny, recipe, tmp_path):
    train(recipe, tiny, tmp_path / "run")
    partial = [tmp_path / "run" / f".{name}.0x1" for name in ("last.pt", "metrics.jsonl", "quarantine.jsonl")]
    for path in partial:
        path.write_text("half")
    train(recipe, tiny, tmp_path / "run", resume=True)
    assert not any(path.exists() for path in partial)


def test_a_finished_run_is_extended_with_one_line(tiny, recipe, tmp_path, capsys):
    first = apply_overrides(recipe, ["epochs=1"])
    train(first, tiny, tmp_path / "run")
    capsys.readouterr()
    done = train(apply_overrides(recipe, ["epochs=3"]), tiny, tmp_path / "run", resume=True)
    assert done.step == 9
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("resumed")]
    assert re.fullmatch(
        r"resumed at epoch 1 of 3, with learning rate 0\.00\d+: epochs changes from 1 to 3", line
    )
    assert [row["epoch"] for row in rows(tmp_path / "run") if row.get("split") == "val"] == [1, 2, 3]
    assert "epochs=3" in (tmp_path / "run" / "recipe.txt").read_text()
    with pytest.raises(UserError, match="3 epochs are done; expected at least as many"):
        train(apply_overrides(recipe, ["epochs=2"]), tiny, tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"cannot resume: .*lr=0\.004.*lr=0\.1"):
        train(apply_overrides(recipe, ["epochs=3", "optimizer.lr=0.1"]), tiny, tmp_path / "run", resume=True)


ADDED = r",\s+(interpolation='bilinear'|draw='length'|starts='parts'|margin=False)"


def test_runs_of_versions_with_fewer_settings_resume(tmp_path):
    """Settings that such a run does not list have their defaults; shorter lines are not broken."""
    samples = Samples(PackedStrings(["a.mp4"]), np.zeros(1, np.int64), ("run",), tmp_path, "list")
    recipe = get_recipe("slowfast_r50_4x16x1_196e_kinetics400_rgb")
    segments = replace(recipe, val=replace(recipe.val, clips=SegmentClips(num_segments=16)))
    for run, number in ((recipe, 5), (segments, 5)):
        head = f"# {run.name}, seed 0\n# trained on 1 clips of 1 classes, checksum 0\n"
        old, removed = re.subn(ADDED, "", f"{head}{run}\n")
        assert removed >= number
        old = re.sub(
            r"(PySlowFast|Segment)Clips\(.*?\)", lambda match: " ".join(match[0].split()), old, flags=re.S
        )
        assert not find_changes(tmp_path, old, f"{head}{run}\n", run, samples, classes=("run",)).lines
        longer = apply_overrides(run, ["epochs=300"])
        new = f"{head.replace('196e', '300e')}{longer}\n"
        changes = find_changes(tmp_path, old, new, longer, samples, classes=("run",))
        assert changes.lines == ["epochs changes from 196 to 300"]
        other = replace(run, train=replace(run.train, interpolation="bicubic"))
        message = "started with 'no such setting', now it is \"interpolation='bicubic'\"; start a new run"
        with pytest.raises(UserError, match=message):
            find_changes(tmp_path, old, f"{head}{other}\n", other, samples, classes=("run",))


def test_a_run_continues_without_the_unreadable_clips(tiny, recipe, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny, data)
    for number in (0, 2, 4):
        (data / "train" / "up" / f"{number}.mp4").write_bytes(b"broken")
    with pytest.raises(
        UserError, match=r"data validate DATA --out checked`, then continue with --data checked"
    ):
        train(replace(recipe, epochs=3), data, out)
    validate(data, lambda items, total, title: items, tmp_path / "checked")
    other = tmp_path / "other"
    validate(tmp_path / "checked", lambda items, total, title: items, other)
    with pytest.raises(UserError, match="cannot resume: the run was started with '# trained on 12 clips"):
        train(replace(recipe, epochs=3), other, out, resume=True)
    capsys.readouterr()
    done = train(replace(recipe, epochs=3), tmp_path / "checked", out, resume=True)
    assert done.step == 6  # two steps in an epoch instead of three
    assert "the training split changes from 12 to 9 readable clips" in capsys.readouterr().err
    assert (out / "quarantine.jsonl").read_text() == ""
    assert train(replace(recipe, epochs=3), tmp_path / "checked", out, resume=True).step == 6


def test_steps_keep_their_epochs_when_the_number_of_clips_changes():
    old, new = BatchPlan(100, 4), BatchPlan(91, 4)
    for epoch in (0, 1, 7):
        assert step_at(new, old.epochs(old.first_step(epoch))) == new.first_step(epoch)
    assert step_at(new, 1.5) == 33


@pytest.mark.parametrize("epoch", ['"two"', "1e999", "NaN", "[1]"])
def test_a_row_whose_epoch_was_edited_is_named_when_the_clips_change(tmp_path, epoch):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "epoch": 1}}\n{{"step": 2, "epoch": {epoch}}}\n\n')
    samples = Samples(PackedStrings(["a.mp4"]), np.zeros(1, np.int64), ("run",), tmp_path, "list")
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2: .*; delete this line"):
        adapt_files(tmp_path, BatchPlan(2, 2), samples)


def test_a_quarantined_path_that_is_no_text_is_left_out_when_the_clips_change(tmp_path):
    (tmp_path / "quarantine.jsonl").write_text('{"path": 5}\n{"path": "/clips/a.mp4"}\n')
    samples = Samples(PackedStrings(["a.mp4"]), np.zeros(1, np.int64), ("run",), Path("/clips"), "list")
    adapt_files(tmp_path, BatchPlan(2, 2), samples)
    assert (tmp_path / "quarantine.jsonl").read_text() == '{"path": "/clips/a.mp4"}\n'

"""Rows of metrics.jsonl, and the list of videos that cannot be read."""

import io
import json
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch
from rich.console import Console

from mmaction_lite.data.annotations.samples import PackedStrings, Samples
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import Fault
from mmaction_lite.distributed import DistributedContext
from mmaction_lite.errors import UserError
from mmaction_lite.training.progress import Quarantine, TrainingLog
from mmaction_lite.training.training import StepResult


def open_log(out: Path, *, first_step: int = 0, num_samples: int = 8, batch_size: int = 4) -> TrainingLog:
    paths = [f"{number}.mp4" for number in range(num_samples)]
    samples = Samples(
        PackedStrings(paths), np.zeros(num_samples, np.int64), ("a", "b"), Path("clips"), "train.txt"
    )
    return TrainingLog(
        out,
        samples,
        BatchPlan(num_samples, batch_size),
        first_step=first_step,
        last_step=20,
        console=Console(file=io.StringIO()),
        context=DistributedContext(0, 1, 1, torch.device("cpu")),
    )


def add_step(
    log: TrainingLog,
    number: int,
    *,
    loss: float = 1.0,
    correct: float = 0.5,
    seconds: float = 1.0,
    data_seconds: float = 0.0,
) -> None:
    began = perf_counter() - seconds
    result = StepResult(0.1, torch.tensor(loss), torch.tensor(correct))
    log.step(number, result, [0, 1, 2, 3], began, data_seconds)


def read_rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def write_row(out: Path, **times: float) -> dict:
    """The row of one step."""
    with open_log(out) as log:
        add_step(log, 1, **times)
        log.settle()
    (row,) = read_rows(out)
    return row


@pytest.mark.parametrize(
    ("data_seconds", "limit"), [(0.0, "network"), (0.95, "network"), (1.05, "data"), (8.0, "data")]
)
def test_a_step_is_limited_by_data_when_it_waits_for_more_than_a_tenth(tmp_path, data_seconds, limit):
    row = write_row(tmp_path, seconds=10.0, data_seconds=data_seconds)
    assert row["limited_by"] == limit
    assert row["data_seconds"] == data_seconds
    assert row["iteration_seconds"] == pytest.approx(10, abs=0.1)


def test_a_row_is_the_mean_of_the_steps_since_the_last(tmp_path):
    with open_log(tmp_path, num_samples=80) as log:  # 20 steps in an epoch, a row every fourth
        for number, (loss, correct) in enumerate([(1.0, 0.0), (2.0, 0.5), (3.0, 1.0), (6.0, 0.5)], 1):
            add_step(log, number, loss=loss, correct=correct, data_seconds=number / 10)
        log.settle()
    (row,) = read_rows(tmp_path)
    assert (row["step"], row["epoch"], row["lr"]) == (4, 0.2, 0.1)
    assert (row["loss"], row["top1"]) == (3.0, 0.5)
    assert row["data_seconds"] == pytest.approx(0.25)


def test_the_expected_time_of_a_long_training_is_printed_after_ten_steps(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("mmaction_lite.training.progress.perf_counter", lambda: next(clock))
    for last_step, is_printed in ((110, True), (20, False)):
        with open_log(tmp_path) as log:
            log._last_step = last_step
            for number in range(1, 12):
                log._estimate(number)
            assert isinstance(log.console.file, io.StringIO)
            printed = log.console.file.getvalue()
        expected = "expected time: 0:00:38 for 100 steps of 0.375 s, without validations"
        assert (printed.count(expected) == 1) == is_printed


def test_rows_after_the_checkpoint_are_dropped_with_a_torn_line(tmp_path):
    lines = [json.dumps({"step": number, "loss": 1.0}) for number in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 4, "lo')
    with open_log(tmp_path, first_step=2):
        pass
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2]


def test_a_loss_that_is_not_finite_names_the_videos_of_its_batch(tmp_path):
    with open_log(tmp_path) as log:
        add_step(log, 7, loss=float("inf"))
        with pytest.raises(UserError, match=r"loss of step 7 is inf: .*clips/0\.mp4, .*clips/3\.mp4$"):
            log.settle()
    assert not (tmp_path / "metrics.jsonl").exists()


def test_broken_videos_are_listed_once_and_five_in_a_hundred_are_allowed(tmp_path):
    quarantine = Quarantine(tmp_path, 100)
    faults = [Fault(f"{number}.mp4", "no frames") for number in range(6)]
    quarantine.add(faults[:3])
    quarantine.add(faults[:5])
    lines = [json.loads(line) for line in (tmp_path / "quarantine.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4"]
    assert Quarantine(tmp_path, 100).paths == {line["path"] for line in lines}
    with pytest.raises(UserError, match=r"6 of 100 videos cannot be read, more than 5%.*no frames"):
        quarantine.add(faults[5:])


def test_a_training_that_diverges_stops_within_ten_steps(tmp_path):
    with open_log(tmp_path) as log:
        for number in range(1, 12):
            add_step(log, number, loss=0.7 if number == 1 else 5e3)
        with pytest.raises(
            UserError,
            match=r"diverges: the loss of step 11 is 5000, that of the first step was 0\.7; .*\(0\.1\)",
        ):
            log.settle()


def test_single_large_losses_do_not_stop_a_training(tmp_path):
    with open_log(tmp_path) as log:
        for number in range(1, 40):
            add_step(log, number, loss=5e3 if number % 10 else 0.7)
        log.settle()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("edited", "line 2: damaged"),
        ('{"reason": "b"}', "line 2: damaged .*expected an object with path"),
        ('{"path": 3}', "line 2: path is 3; expected text"),
    ],
)
def test_an_edited_list_of_unreadable_videos_is_named_and_kept(line, message, tmp_path):
    file = tmp_path / "quarantine.jsonl"
    file.write_text(f'{{"path": "a", "reason": "b"}}\n{line}\n{{"path": "c", "reason": "d"}}\n')
    before = file.read_bytes()
    with pytest.raises(UserError, match=rf"quarantine\.jsonl, {message}"):
        Quarantine(tmp_path, 100)
    assert file.read_bytes() == before

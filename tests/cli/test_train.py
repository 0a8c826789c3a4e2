"""Command `train`; tests/training tests the trainings, tests/cli/test_probe.py those of probes."""

import json

from mmaction_lite.cli import train as command
from tests.cli.conftest import SMALL


def test_a_run_is_described_by_one_line(run, tiny, tmp_path, motions_recipe):
    out = tmp_path / "run"
    code, printed, _ = run("train", motions_recipe, *SMALL, "--data", tiny, "--out", out, "--device", "cpu")
    (line,) = printed.splitlines()
    assert (code, line.startswith("3 steps done; best val top-1 "), line.endswith(f": {out}")) == (
        0,
        True,
        True,
    )
    rows = [json.loads(row) for row in (out / "metrics.jsonl").read_text().splitlines()]
    assert max(row.get("step", 0) for row in rows) == 3


def test_fine_tuning_needs_weights_before_anything_is_written(run, tiny, tmp_path, motions_recipe):
    code, _, error = run("train", motions_recipe, "--finetune", "--data", tiny, "--out", tmp_path / "run")
    assert (code, "pass them as --init-from" in error, (tmp_path / "run").exists()) == (2, True, False)


def test_the_summary_in_the_reference_is_a_sentence():
    assert (command.train.__doc__ or "").endswith(".")

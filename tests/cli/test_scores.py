import csv
import json
import re
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from mmaction_lite import load
from mmaction_lite.cli import scores as command
from mmaction_lite.tasks.score_files import read_scores
from mmaction_lite.weights.card import card_of
from mmaction_lite.weights.fingerprint import fingerprint_of_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_int8(run, trained, tiny):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    code, output, error = run("test", trained, "--data", tiny, "--int8", "--workers", 0, "--json")
    assert code == 0, error
    assert "; int8; 6 videos" in json.loads(output)["protocol"]


def test_options_of_int8_are_checked_before_anything_is_loaded(run, monkeypatch):
    arguments = ("test", "gone.safetensors", "--data", "gone", "--int8")
    for option, message in (
        (("--amp", "bfloat16"), "int8 does not work with amp bfloat16; use one of them"),
        (("--compile", "default"), "int8 does not work with compile; use one of them"),
        (("--device", "cuda"), "--device cuda: --int8 computes on the CPU; omit --device, or pass cpu"),
    ):
        assert run(*arguments, *option) == (2, "", f"error: {message}\n")
    monkeypatch.setitem(sys.modules, "onnx", None)
    message = "int8 needs onnx; install it with pip install 'mmaction-lite[export]'"
    assert run(*arguments) == (2, "", f"error: {message}\n")


def test_dumped_scores_are_the_printed_ones(run, trained, tiny, tmp_path):
    code, output, _ = run(
        "test", trained, "--data", tiny, "--dump", tmp_path / "s.npz", "--workers", 0, "--json"
    )
    assert code == 0
    with np.load(tmp_path / "s.npz") as saved:
        assert (saved["scores"].argmax(1) == saved["labels"]).mean() == json.loads(output)["top1"]


def test_views_are_dumped_and_parquet_equals_npz(run, trained, tiny, tmp_path):
    arguments = ("test", trained, "--data", tiny, "--workers", 0)
    for name in ("s.npz", "s.parquet") if find_spec("pyarrow") else ("s.npz",):
        code, _, error = run(*arguments, "--dump", tmp_path / name, "--dump-views")
        assert code == 0, error
    table = read_scores(tmp_path / "s.npz")
    model = load(trained)
    views = card_of(model).test.num_views
    assert table.view_logits is not None
    assert table.view_logits.shape == (6, views, 2)
    assert (table.views, table.weights) == (views, fingerprint_of_weights(model))
    again = card_of(model).test.average_logits(torch.from_numpy(table.view_logits), table.task.probabilities)
    np.testing.assert_array_equal(table.scores, again.numpy())
    if find_spec("pyarrow"):
        other = read_scores(tmp_path / "s.parquet")
        np.testing.assert_array_equal(other.scores, table.scores)
        assert (other.paths, other.protocol) == (table.paths, table.protocol)
    code, _, error = run(*arguments, "--dump-views")
    assert (code, error) == (2, "error: --dump-views adds logits to a score file; pass the file as --dump\n")


def test_test_lists_every_class_with_intervals(run, trained, tiny, tmp_path):
    table = tmp_path / "classes.csv"
    arguments = ("test", trained, "--data", tiny, "--workers", 0, "--per-class", table)
    code, output, error = run(*arguments)
    assert code == 0, error
    interval = r"[\d.]+% \(95% interval [\d.]+ to [\d.]+%\)"
    assert re.search(rf"^top-1 {interval}, mean class ([\d.]+%|{interval})$", output, re.M)
    assert f"note: the videos of {tiny}/val chose these weights in training" in error
    rows = list(csv.DictReader(table.read_text().splitlines()))
    code, output, _ = run(*arguments, "--json")  # the table is ours, and may be replaced
    assert code == 0
    found = json.loads(output)
    assert [(row["name"], int(row["videos"])) for row in rows] == [("down", 3), ("up", 3)]
    assert [(row["name"], row["videos"]) for row in found["per_class"]] == [("down", 3), ("up", 3)]
    correct = sum(row["correct"] for row in found["per_class"])
    assert correct / 6 == found["top1"]
    assert sum(pair["videos"] for pair in found["confusion"]) == 6 - correct
    assert found["intervals"]["top1"][0] <= found["top1"] <= found["intervals"]["top1"][1]
    assert found["chose_weights"] is True
    table.write_text("my own\n")
    for name in ("classes.csv", "classes.txt"):
        code, _, error = run(*arguments[:-1], tmp_path / name)
        assert code == 2
    assert table.read_text() == "my own\n"


def test_the_note_on_the_split_that_chose_the_weights_needs_a_run_folder(run, trained, tiny, tmp_path):
    (tmp_path / "mine.safetensors").write_bytes((trained / "weights.safetensors").read_bytes())
    shutil.copytree(tiny / "val", tmp_path / "data" / "test")
    for weights, data in ((tmp_path / "mine.safetensors", tiny), (trained, tmp_path / "data")):
        code, _, error = run("test", weights, "--data", data, "--workers", 0)
        assert (code, "chose these weights" in error) == (0, False)


def test_the_command_has_a_summary_for_the_help():
    assert (command.test.__doc__ or "").endswith(".")

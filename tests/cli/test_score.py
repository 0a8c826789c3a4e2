"""The command `score`."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite import load
from mmaction_lite.cli import score as command
from mmaction_lite.tasks.named import task_named
from mmaction_lite.tasks.score_files import read_scores, write_scores
from mmaction_lite.weights.card import card_of
from tests.tasks.test_fusion import shuffled, table_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Score files a.npz, b.npz, a_val.npz and b_val.npz in the current folder."""
    for name, seed in (("a", 0), ("b", 1), ("a_val", 0), ("b_val", 1)):
        table = table_of(name, seed, 200)
        videos = [path.replace("rgb", "val") if "val" in name else path for path in table.paths]
        table = replace(table, file=tmp_path / f"{name}.npz", paths=videos)
        write_scores(shuffled(table, seed + len(name)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_metrics_are_exactly_those_of_test(run, trained, tiny, tmp_path):
    dump = tmp_path / "s.npz"
    arguments = ("test", trained, "--data", tiny, "--workers", 0, "--dump", dump, "--json")
    code, output, error = run(*arguments)
    assert code == 0, error
    expected = json.loads(output)
    code, output, error = run("score", dump, "--json")
    assert code == 0, error
    found = json.loads(output)
    for name in ("top1", "mean_class", "videos", "unreadable", "intervals", "protocol", "per_class"):
        assert found[name] == expected[name], name
    assert 0 <= found["ece"] <= 1


def test_files_are_fused_and_written(run, files):
    code, output, error = run("score", "a.npz", "b.npz", "--weights", "1,0", "--json")
    assert code == 0, error
    alone = json.loads(run("score", "a.npz", "--json")[1])
    assert json.loads(output)["top1"] == alone["top1"]
    arguments = ("--fit-on", "a_val.npz", "--fit-on", "b_val.npz", "--dump", "fused.npz")
    code, output, error = run("score", "a.npz", "b.npz", *arguments)
    assert code == 0, error
    assert "a.npz, weight 1: top-1 " in output
    assert output.splitlines()[-1].startswith("probabilities fused: 1 × a.npz (")
    fused = read_scores(files / "fused.npz")
    assert json.loads(run("score", "fused.npz", "--json")[1])["top1"] == fused.metrics["top1"]


def test_two_files_are_compared(run, files):
    code, output, error = run("score", "a.npz", "b.npz", "--compare", "--csv", "flips.csv")
    assert code == 0, error
    assert "McNemar's exact test: p = " in output
    assert "right before, wrong after: /data/rgb/" in output
    found = json.loads(run("score", "a.npz", "b.npz", "--compare", "--json")[1])
    rows = list(csv.DictReader((files / "flips.csv").read_text().splitlines()))
    assert rows == found["flips"]
    broken = sum(row["change"] == "broken" for row in rows)
    assert found["difference"] == pytest.approx((len(rows) - 2 * broken) / 200)
    assert found["low"] <= found["difference"] <= found["high"] < 0
    assert f"{broken} in a.npz only" in output


def test_slices_classes_and_pictures_are_written(run, files):
    lines = "".join(f"{n}.mp4,{'odd' if n % 2 else 'even'}\n" for n in range(200))
    (files / "slices.csv").write_text(f"video,number\n{lines}")
    arguments = (
        "--slices",
        "slices.csv",
        "--by",
        "folder",
        "--csv",
        "table.csv",
        "--per-class",
        "classes.csv",
    )
    code, output, error = run("score", "a.npz", *arguments, "--picture", "r.png")
    assert code == 0, error
    assert "number even: 100 videos, top-1 " in output
    assert "folder 3: 50 videos" in output
    rows = list(csv.DictReader((files / "table.csv").read_text().splitlines()))
    assert [row["slice"] for row in rows] == ["all", "0", "1", "2", "3", "even", "odd"]
    assert len(list(csv.DictReader((files / "classes.csv").read_text().splitlines()))) == 4
    assert (files / "r.png").stat().st_size > 5000
    assert run("score", "a.npz", *arguments, "--picture", "r.png")[0] == 0  # replaces its own files
    (files / "table.csv").write_text("mine\n")
    code, _, error = run("score", "a.npz", *arguments)
    assert (code, "is not a table of mmaction-lite score" in error) == (2, True)


def test_a_temperature_is_fitted_and_stored(run, files, trained, tiny, tmp_path):
    arguments = ("--temperature-from", "a_val.npz", "--picture", "r.svg")
    code, output, error = run("score", "a.npz", *arguments)
    assert (code, error) == (0, ""), error
    assert "fitted on " in output
    assert (
        "note: the temperature was fitted on videos that are scored here"
        in run("score", "a.npz", "--temperature-from", "a.npz")[2]
    )
    dump = tmp_path / "val.npz"
    assert run("test", trained, "--data", tiny, "--workers", 0, "--dump", dump)[0] == 0
    table = read_scores(dump)
    mixed = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4]] * 2, np.float32)
    mixed[np.arange(6), table.labels] = [0.9, 0.9, 0.4, 0.9, 0.9, 0.4]
    mixed[np.arange(6), 1 - table.labels] = [0.1, 0.1, 0.6, 0.1, 0.1, 0.6]
    write_scores(replace(table, scores=mixed))
    out = tmp_path / "hot.safetensors"
    arguments = ("--temperature-from", dump, "--store-in", trained, "--out", out)
    code, output, error = run("score", dump, *arguments)
    assert code == 0, error
    (line,) = [line for line in output.splitlines() if "weights with temperature" in line]
    code, output, error = run("test", out, "--data", tiny, "--workers", 0)
    assert code == 0, error
    assert line.partition("weights with ")[2] in output.splitlines()[-1]
    assert card_of(load(out)).test.temperature is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["a.npz", "--weights", "1", "1.5"],
            "1.5: no such file. Separate weights by commas: --weights 1,1.5",
        ),
        (["a.npz", "--weights", "x"], "--weights is 'x'; expected a number for each file"),
        (["a.npz", "--compare"], "--compare takes two score files"),
        (["a.npz", "b.npz", "--compare", "--weights", "1,1"], "--compare takes two score files"),
        (["a.npz", "b.npz", "--compare", "--picture", "r.png"], "--compare writes no file but the table"),
        (["a.npz", "--out", "x.safetensors"], "--out names the copy of the weights of --store-in"),
        (["a.npz", "--store-in", "run"], "--store-in stores the temperature of one model"),
        (["a.npz", "--dump", "a.npz"], "a.npz: is an input of this command"),
        (
            ["a.npz", "b.npz", "--fit-on", "a_val.npz", "--dump", "a_val.npz"],
            "a_val.npz: is an input of this",
        ),
        (["a.npz", "--temperature-from", "a_val.npz", "--dump", "a_val.npz"], "a_val.npz: is an input"),
        (["a.npz", "--csv", "x.txt"], "a table is a CSV file"),
        (["gone.npz"], "gone.npz: no such file; expected a score file"),
        (["a.npz", "--threshold", "2"], "--threshold"),
    ],
)
def test_wrong_options_are_one_line(run, files, arguments, message):
    code, _, error = run("score", *arguments)
    assert (code, error.count("\n")) == (2, 1), error
    assert message in error


def test_multi_label_and_pairs(run, files):
    labels = np.random.default_rng(0).random((200, 4)) < 0.3
    multi = replace(
        table_of("m", 0, 200),
        task=task_named("multi_label"),
        labels=labels,
        scores=np.where(labels, 0.6, 0.3),
    )
    write_scores(replace(multi, file=files / "m.npz"))
    names = ["verb: a", "verb: b", "noun: a", "noun: b"]
    pairs = table_of("p", 0, 200, class_names=names, labels=np.stack([np.arange(200) % 2] * 2, 1))
    write_scores(replace(pairs, file=files / "p.npz", task=task_named("verb_noun").for_classes(names)))
    for name, shown in (("m.npz", "mAP"), ("p.npz", "action top-1")):
        for arguments in ([name], [name, name, "--compare"], [name, "--per-class", f"{name}.csv"]):
            code, output, error = run("score", *arguments)
            assert code == 0, error
            assert shown in output


def test_the_command_has_a_summary_for_the_help():
    assert (command.score.__doc__ or "").endswith(".")

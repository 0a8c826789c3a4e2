"""The command `serve`."""

import os
from pathlib import Path

import pytest

from mmaction_lite.cli import serve as command
from mmaction_lite.errors import UserError
from tests.exports import write_small_weights

pytest.importorskip("fastapi")


def test_the_command_has_a_summary_for_the_help():
    assert (command.serve.__doc__ or "").endswith(".")


def test_a_public_address_needs_a_token(run, tmp_path):
    code, _, error = run("serve", tmp_path, "--host", "0.0.0.0")
    assert code == 2
    assert "reachable from other machines" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--scores", "x.npz"), "belong to a data set; pass --data"),
        (("--data", "missing"), "no such file or folder"),
        (("--allow-url", "*"), "expected HOST"),
    ],
)
def test_wrong_options_are_one_line_before_the_server_starts(options, message, run, tmp_path):
    write_small_weights(tmp_path / "small.safetensors")
    code, _, error = run("serve", tmp_path / "small.safetensors", "--port", "0", *options)
    assert code == 2
    assert message in error


def test_a_data_set_and_a_run_are_opened(tiny, tmp_path):
    found = command.Browsed(data=tiny, corrections=tmp_path / "c.jsonl", run=tmp_path).open("name")
    assert found["dataset"].summary()["num_clips"] == 6
    assert found["run"].read().state == "waiting"
    assert command.NOTHING.open("name") == {"run": None}


def test_without_arguments_the_last_run_is_served(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no weights are given, and runs/ holds no run"):
        command.last_run()
    for number, name in enumerate(("old", "demo/tsm", "demo/tsn")):
        path = tmp_path / "runs" / name / "best.pt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1000 + number % 2, 1000 + number % 2))
    assert command.last_run() == str(Path("runs/demo/tsm"))


def test_a_training_without_weights_is_shown_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.last_runs(Path("runs/new")) == []
    with pytest.raises(UserError, match="no weights are given"):
        command.last_runs(None)
    (tmp_path / "runs" / "old").mkdir(parents=True)
    (tmp_path / "runs" / "old" / "best.pt").touch()
    assert command.last_runs(Path("runs/new")) == [str(Path("runs/old"))]


def test_the_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(command.TOKEN, raising=False)
    assert command.read_token(None) is None
    monkeypatch.setenv(command.TOKEN, "from-the-variable")
    assert command.read_token(None) == "from-the-variable"
    (tmp_path / "token").write_text("from-the-file\n")
    assert command.read_token(tmp_path / "token") == "from-the-file"
    with pytest.raises(UserError, match="expected a text file with the token"):
        command.read_token(tmp_path / "missing")


def test_the_address_of_the_page_can_be_opened():
    assert command.address_of(("0.0.0.0", 80)) == "http://127.0.0.1:80/"
    assert command.address_of(("::1", 8000, 0, 0)) == "http://[::1]:8000/"

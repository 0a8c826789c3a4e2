"""The command `serve`."""

import pytest

from mmaction_lite.cli import serve as command
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

"""Commands that measure speed; tests/benchmark tests what they measure."""

import json
from pathlib import Path

import pytest

from mmaction_lite.cli.benchmark import app

RESULT = Path(__file__).parents[2] / "docs" / "benchmarks" / "cpu.json"


def test_there_is_a_command_for_each_part():
    assert {command.name for command in app.registered_commands} == {"compare", "page", "scaling", "loader"}


def test_the_page_is_written_from_results(run, tmp_path):
    result = tmp_path / "cpu.json"
    result.write_text(RESULT.read_text())
    code, output, error = run("benchmark", "page", result, "--out", tmp_path / "page.md")
    assert code == 0, error
    assert output == f"{tmp_path}/page.md\n"
    assert "TSN 1x1x3" in (tmp_path / "page.md").read_text()
    assert result.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_scaling_is_printed_for_each_number_of_devices(run):
    arguments = ["benchmark", "scaling", RESULT, "--recipe", "SlowOnly 8x8", "--link-gb", "10"]
    code, output, error = run(*arguments, "--devices", "1", "--devices", "8")
    assert code == 0, error
    rows = [line.split() for line in output.splitlines()]
    assert [row[0] for row in rows if row[0] in ("1", "8")] == ["1", "8"]
    code, output, error = run(*arguments, "--json")
    predictions = json.loads(output)["predictions"]
    assert [prediction["devices"] for prediction in predictions] == [1, 8, 64, 800]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as-published"], "--as-published goes with --amp"),
        (["--devices", "2"], "add --synthetic"),
        (["--against", "HEAD", "--devices", "2", "--synthetic"], "leave out --devices, --peer-source"),
        (["--against", "HEAD", "--peer-source", "mit_tsm=tsm"], "leave out --devices, --peer-source"),
        (["--quick", "--devices", "2", "--peer-source", "mit_tsm=tsm"], "leave out --peer-source"),
        (["--quick", "--data", "clips"], "--data clips goes without --quick"),
        (["--synthetic", "--data", "clips"], "--data clips goes without --synthetic"),
        (["--peers", "nowhere"], "nowhere: no such folder"),
        (["scaling", "none.json", "--recipe", "TSN 1x1x3", "--link-gb", "1"], "none.json"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(run, tmp_path, arguments, message):
    out = [] if arguments[0] == "scaling" else ["--out", tmp_path / "out"]
    code, _, error = run("benchmark", *arguments, *out)
    assert code == 2
    assert len(error.splitlines()) == 1
    assert message in error
    assert not (tmp_path / "out").exists()

"""Output of commands: odd names, other locales, closed pipes, and JSON."""

import json
import os
import subprocess
import sys

import pytest

from mmaction_lite import __version__
from mmaction_lite.cli.options import print_json, show, warn
from tests.conftest import brightening, write_video

ODD = "a\x1b[31m\n\u202e[red]跑\udce9"


def start(*arguments, **options):
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "mmaction_lite", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=100, check=False, **options)


def test_the_version_is_printed(run):
    assert run("--version") == (0, f"mmaction-lite {__version__}\n", "")


def test_control_characters_are_escaped_on_one_line(capsys):
    warn(ODD)
    show(f"first\nsecond {ODD[:5]}")
    output, error = capsys.readouterr()
    assert error == "a\\x1b[31m\\n\\u202e[red]跑\\udce9\n"
    assert output == "first\nsecond a\\x1b[31\n"


def test_json_is_valid_for_any_number_and_name(capsys):
    print_json({"names": [ODD, "跑"], "numbers": (float("nan"), float("inf"), 0.5)})
    output = capsys.readouterr().out
    assert "跑" in output
    assert len(output.splitlines()) == 1
    assert json.loads(output) == {"names": [ODD, "跑"], "numbers": [None, None, 0.5]}


@pytest.mark.slow
def test_any_class_name_is_printed_in_a_locale_without_unicode(tmp_path):
    names = ("跑步 [red]", "bé")
    for number in range(4):
        write_video(tmp_path / "data" / names[number % 2] / f"{number}.mp4", brightening(number, 4))
    (tmp_path / "data" / names[0] / "\x1b[31mé.mp4").write_bytes(b"")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    text = start("data", "validate", tmp_path / "data", env=environment)
    assert (text.returncode, b"Traceback" in text.stderr) == (1, False), text.stderr
    assert b"\x1b" not in text.stdout + text.stderr
    found = start("data", "validate", tmp_path / "data", "--json", env=environment)
    fault = json.loads(found.stdout.decode("ascii"))["faults"][0]
    assert "[red]" in fault
    assert fault.isprintable()


@pytest.mark.slow
def test_a_closed_pipe_or_output_is_silent_and_a_full_disk_is_one_line():
    command = f"{sys.executable} -m mmaction_lite list"
    for line in (f"{command} --json | true", f"{command} >&-"):
        done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=100, check=False)
        assert done.stderr == b"", line
    done = subprocess.run(["bash", "-c", f"{command} > /dev/full"], capture_output=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert b"No space left on device" in done.stderr

"""The corrections file: atomic, locked, and never a file of somebody else."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.files import read_json_lines
from mmaction_lite.serve.corrections import FORMAT, Corrections, default_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clips.corrections.jsonl"


def test_corrections_are_stored_beside_the_data_set(tmp_path, file):
    assert default_file(tmp_path / "clips") == file
    corrections = Corrections(file)
    assert not file.exists()
    corrections.set("val/a.mp4", ["up"], ["down"])
    corrections.set("val/b.mp4", ["up", "left"], ["up"])
    assert corrections.labels() == {"val/a.mp4": ["down"], "val/b.mp4": ["up"]}
    (_, header), (_, row), _ = read_json_lines(file)
    assert header == {"format": FORMAT}
    assert (row["clip"], row["labels"], row["corrected"]) == ("val/a.mp4", ["up"], ["down"])
    assert Corrections(file).labels() == corrections.labels()


@pytest.mark.parametrize("corrected", [None, ["up"]])
def test_a_correction_is_removed(corrected, file):
    corrections = Corrections(file)
    corrections.set("a", ["up"], ["down"])
    corrections.set("a", ["up"], corrected)
    assert corrections.labels() == {}


@pytest.mark.parametrize("content", ["", "path,label\na.mp4,up\n", '{"a": 1}\n', "\0\0\0"])
def test_other_files_are_not_replaced(content, file):
    file.write_text(content)
    with pytest.raises(UserError, match="corrections file"):
        Corrections(file)
    assert file.read_text() == content


def test_a_damaged_line_is_an_error_with_its_number(file):
    row = {"clip": "a", "corrected": "down"}
    file.write_text(json.dumps({"format": FORMAT}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match="line 2"):
        Corrections(file)


def test_corrections_are_not_written_over_the_data_set(tmp_path):
    listed = tmp_path / "val.jsonl"
    listed.write_text(json.dumps({"format": FORMAT}) + "\n")
    with pytest.raises(UserError, match="is an input"):
        Corrections(listed, (listed,))


def test_a_folder_that_is_not_writable_is_reported_at_the_start(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Corrections(tmp_path / "missing" / "corrections.jsonl")


def _write_many(file: str, name: str) -> None:
    corrections = Corrections(Path(file))
    for number in range(10):
        corrections.set(f"{name}-{number}", ["up"], ["down"])


@pytest.mark.slow
def test_several_servers_write_one_file(file):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_many, args=(str(file), name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(Corrections(file).labels()) == 20


@pytest.mark.slow
def test_a_kill_leaves_a_complete_file(file):
    code = f"""
import itertools
from pathlib import Path
from mmaction_lite.serve.corrections import Corrections
corrections = Corrections(Path({str(file)!r}))
for number in itertools.count():
    corrections.set(str(number), ["up"], ["down"])
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    stored = 0
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], env=environment)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(_labels(file)) < stored + 8:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        corrections = Corrections(file)
        stored = len(corrections.labels())
        assert stored >= 8
        corrections.set("after", ["up"], ["down"])
        file.unlink()
        stored = 0


def _labels(file: Path) -> dict[str, list[str]]:
    return Corrections(file).labels() if file.exists() else {}

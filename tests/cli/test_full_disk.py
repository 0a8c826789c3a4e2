"""Commands on a disk that is full: one line, and the same command continues when there is space."""

import os
import resource
import subprocess
import sys

import pytest

from mmaction_lite import list_recipes
from tests.cli.conftest import SMALL

MOTIONS = next(name for name in list_recipes() if name.startswith("tsm") and "motions" in name)


def command(*arguments: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command, with at most `limit` bytes per file: larger writes fail as on a full disk."""
    sizes = (limit, limit) if limit else resource.getrlimit(resource.RLIMIT_FSIZE)
    return subprocess.run(
        [sys.executable, "-m", "mmaction_lite", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, sizes),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["train", "validate", "prepare", "generate"])
def test_a_full_disk_is_one_line_and_the_command_continues_later(tiny, tmp_path, name):
    out = tmp_path / "out"
    arguments, limit = {
        "train": (["train", MOTIONS, "--data", tiny, "--out", out, "--workers", 0, *SMALL], 50_000),
        "validate": (["data", "validate", tiny, "--out", out, "--workers", 0], 700),
        "prepare": (["data", "prepare", tiny, out, "--workers", 0], 700),
        "generate": (["data", "generate", out], 2000),
    }[name]
    done = command(*arguments, limit=limit)
    (line,) = [line for line in done.stderr.splitlines() if "could not be written" in line]
    assert done.returncode == 2, done.stderr
    assert line.startswith("error: "), done.stderr
    assert str(out) in line
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    if name != "generate":  # 800 clips
        done = command(*arguments)
        assert done.returncode == 0, done.stderr

"""Run a fuzz test in a process of its own, whose memory it can limit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def run_alone(module: str, folder: Path, count: int) -> dict[str, Any]:
    """Call `run(folder, count)` of a test module in a new process, and return its result.

    The tests are skipped on systems on which `run` cannot limit the address space.
    """
    if not sys.platform.startswith("linux"):
        pytest.skip("limits the address space")
    code = f"import sys, json; from pathlib import Path; from {module} import run; "
    code += "print(json.dumps(run(Path(sys.argv[1]), int(sys.argv[2]))))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(count)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60 + count,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])

"""Worker processes end with the process that started them. Drills on whole commands."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmaction_lite.data.loading import lifetime
from tests.training.test_processes import RECIPE

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
MARK = "MMACTION_LITE_DRILL"
LIMIT_SECONDS = 5.0


class Command:
    """A running command, and all processes that it has started.

    Args:
        out: file for its output.
        arguments: arguments of `mmaction-lite`.
    """

    def __init__(self, out: Path, *arguments: object):
        self.mark = f"{MARK}={out}"
        self.out = out
        with out.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mmaction_lite", *map(str, arguments)],
                env=os.environ | {MARK: str(out), "OMP_NUM_THREADS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=output,
                start_new_session=True,
                # SIGHUP is ignored if the tests run under nohup.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )

    def members(self) -> list[int]:
        """Return the ids of all its processes that have not ended."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z" and self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def wait_for_workers(self, number: int) -> None:
        """Wait until the command, its fork server, its resource tracker and `number` workers run."""
        end = time.time() + 120
        while len(self.members()) < 3 + number:
            assert time.time() < end, self.out.read_text()
            assert self.process.poll() is None, self.out.read_text()
            time.sleep(0.05)

    def left_over(self) -> list[str]:
        """Return descriptions of the processes that live for longer than the limit."""
        end = time.time() + LIMIT_SECONDS
        while (left := self.members()) and time.time() < end:
            time.sleep(0.05)
        files = [Path("/proc", str(pid), name) for pid in left for name in ("cmdline", "status")]
        return [file.read_text() for file in files if file.exists()]

    def close(self) -> None:
        """Kill everything."""
        for pid in [*self.members(), self.process.pid]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()


def test_workers_end_with_a_killed_command(tmp_path):
    command = Command(tmp_path / "output", "data", "generate", tmp_path / "motions")
    try:
        command.wait_for_workers(1)
        command.process.kill()
        assert command.left_over() == []
    finally:
        command.close()
    assert "Traceback" not in command.out.read_text()


@pytest.fixture(scope="module")
def many(tiny, tmp_path_factory):
    """A data set that takes long: lists with thousands of names of the same clips, and a recipe."""
    root = tmp_path_factory.mktemp("many")
    clips = sorted((tiny / "train").rglob("*.mp4"))
    lines = []
    for number in range(1500):
        clip = clips[number % len(clips)]
        (root / f"{number}.mp4").hardlink_to(clip)
        lines.append(f"{number}.mp4 {clip.parent.name}\n")
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("".join(lines))
    (root / "my_small.py").write_text(RECIPE)
    return root


@pytest.mark.slow
def test_no_command_leaves_processes_after_any_signal(many, tiny, tmp_path):
    """Four commands times three signals, all at the same time."""
    from mmaction_lite import get_recipe
    from mmaction_lite.weights.card import ModelCard, save_weights

    recipe = f"{many / 'my_small.py'}:small"
    weights = tmp_path / "weights.safetensors"
    found = get_recipe(recipe)
    card = ModelCard.of(found, ("down", "up"))
    save_weights(weights, card.build(found).state_dict(), card)
    numbers = [signal.SIGKILL, signal.SIGHUP, signal.SIGSEGV]
    commands = {}
    try:
        for number in numbers:
            out = tmp_path / number.name
            options = {
                "train": ["train", recipe, "--data", tiny, "--out", f"{out}_train", "--set", "epochs=2000"],
                "test": ["test", weights, "--recipe", recipe, "--data", many],
                "validate": ["data", "validate", many, "--out", f"{out}_validate"],
                "prepare": ["data", "prepare", many, f"{out}_prepare"],
            }
            for name, arguments in options.items():
                output = tmp_path / f"{number.name}_{name}.txt"
                commands[number, name] = Command(output, *arguments, "--workers", 2)
        for command in commands.values():
            command.wait_for_workers(2)
        time.sleep(1.0)
        for (number, _), command in commands.items():
            command.process.send_signal(number)
        left = {key: command.left_over() for key, command in commands.items()}
        assert not any(left.values()), left
        codes = {key: command.process.wait() for key, command in commands.items()}
        for (number, name), code in codes.items():
            text = commands[number, name].out.read_text()
            assert "Traceback" not in text, text
            is_handled = number == signal.SIGHUP and name != "test"
            expected = 130 if name == "train" else 128 + number
            assert code == (expected if is_handled else -number), (number, name, text)
            if is_handled and name != "train":
                assert "stopped by SIGHUP" in text
        assert "saved; continue with the same command and --resume" in (
            tmp_path / "SIGHUP_train.txt"
        ).read_text().replace("\n", " ")
        assert "checked.jsonl" in {file.name for file in (tmp_path / "SIGHUP_validate").iterdir()}
    finally:
        for command in commands.values():
            command.close()


def test_only_connections_that_are_cut_are_not_reported(capsys):
    for error in (BrokenPipeError(), ConnectionResetError(), EOFError()):
        lifetime._report_unless_cut(type(error), error, None)
    assert capsys.readouterr().err == ""
    lifetime._report_unless_cut(ValueError, ValueError("damaged"), None)
    assert "ValueError: damaged" in capsys.readouterr().err


def test_a_process_without_parent_process_is_left_alone(monkeypatch):
    monkeypatch.setattr(lifetime.os, "_exit", pytest.fail)
    lifetime.end_with_parent()
    lifetime.require_main_guard()


LARGE = """
import sys
import numpy as np
from mmaction_lite.data.loading.parallel import run_tasks
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.errors import UserError
from tests.data.test_parallel import Square

work = Square()
work.table = np.zeros(10_000_000)
try:
    list(run_tasks(work, [1, 2], WorkerSettings(num_workers=1)))
except UserError as error:
    print("user error:", error)
"""
SCRIPT = """
import sys
from pathlib import Path
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.tools.validate import validate
from mmaction_lite.errors import UserError

try:
    if sys.argv[2] == "train":
        from mmaction_lite.training.loop import train
        from tests.conftest import small_recipe

        train(small_recipe(), Path(sys.argv[1]), Path(sys.argv[3]), workers=WorkerSettings(num_workers=1))
    validate(Path(sys.argv[1]), lambda items, total, title: items, workers=WorkerSettings(num_workers=2))
except UserError as error:
    print("user error:", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("function", ["train", "validate", "large"])
def test_a_script_without_the_main_guard_gets_one_sentence(tiny, tmp_path, function):
    (tmp_path / "script.py").write_text(LARGE if function == "large" else SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tiny, function, tmp_path / "run"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout == f"user error: {lifetime.NO_GUARD_ADVICE}\n"
    assert "Traceback" not in done.stderr
